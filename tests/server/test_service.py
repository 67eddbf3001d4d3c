"""``edgevit serve`` as clients see it: a real server on loopback, Triton's own client, and clients that misbehave."""

import http.client
import json
import re
import signal
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from service_host import call, photo, png, until
from tiny import finish

pytestmark = pytest.mark.usefixtures("all_cores")

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")


def test_images_are_answered_as_in_python(server, model, tmp_path):
    content = png(photo(), tmp_path)
    status, _, body = call(server, "/v1/predict?top=3", content)
    assert status == 200
    found = json.loads(body)["predictions"]
    for each, wanted in zip(found, model.predict(content, top=3), strict=True):
        assert (each["label"], each["index"]) == (wanted.label, wanted.index)
        assert each["probability"] == pytest.approx(wanted.probability, abs=1e-6)


def test_tritons_own_client_is_answered(server, model):
    client = pytest.importorskip("tritonclient.http")
    name = model.info().model
    with client.InferenceServerClient(server.removeprefix("http://")) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready(name)
        metadata = triton.get_model_metadata(name)
        assert metadata["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 16, 16]}]
        images = model.prepare([photo(seed) for seed in range(3)])
        given = client.InferInput("images", list(images.shape), "FP32")
        given.set_data_from_numpy(images, binary_data=False)
        wanted = client.InferRequestedOutput("logits", binary_data=False)
        found = triton.infer(name, [given], outputs=[wanted], request_id="7")
        np.testing.assert_allclose(found.as_numpy("logits"), model.infer(images), atol=1e-5)
        assert found.get_response()["id"] == "7"


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/v1/predict", b"", 400, "empty|no image|not an image|cannot"),
        ("/v1/predict", b"no image", 400, "image"),
        ("/v1/predict?top=0", b"no image", 400, "."),
        ("/v1/predict", bytes((1 << 20) + 1), 413, "bytes"),
        ("/v2/models/{}/infer", b"", 400, "not valid"),
        ("/v2/models/{}/infer", b"[" * 100_000, 400, "not valid"),
        ("/v2/models/{}/infer", b'{"inputs": []}', 400, "not valid"),
        ("/v2/models/{}/infer", {"name": "other"}, 400, "the input is other"),
        ("/v2/models/{}/infer", {"datatype": "INT8"}, 400, "INT8"),
        ("/v2/models/{}/infer", {"shape": [1, 3, 16]}, 400, "of shape"),
        ("/v2/models/{}/infer", {"shape": [0, 3, 16, 16]}, 400, "0 images"),
        ("/v2/models/{}/infer", {"shape": [999, 3, 16, 16]}, 400, "999 images"),
        ("/v2/models/{}/infer", {"data": [1, 2]}, 400, "2 numbers"),
        ("/v2/models/{}/infer", {"data": ["a"] * 768}, 400, "no numbers"),
        ("/v2/models/{}/infer", {"data": ["1.5"] * 768}, 400, "no numbers"),
        ("/v2/models/{}/infer", {"data": [True] * 768}, 400, "no numbers"),
        ("/v2/models/{}/infer", {"data": [10**400] * 768}, 400, "no numbers"),
        ("/v2/models/{}/infer", {"data": [[1, 2], [3]]}, 400, "ragged"),
        ("/v2/models/{}/infer", {"data": [1e39] * 768}, 400, "finite"),
        ("/v2/models/absent/infer", {}, 404, "."),
        ("/v2", b"", 405, "does not take POST"),
        ("/v1/predict?top=many", b"no image", 400, "top: "),
    ],
)
def test_bad_requests_say_what_is_wrong(server, model, path, body, status, problem):
    if isinstance(body, dict):
        whole = {"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [0.0] * 768}
        body = json.dumps({"inputs": [whole | body]}).encode()
    found, _, said = call(server, path.format(model.info().model), body)
    assert found == status, said
    assert re.search(problem, json.loads(said)["error"])


def test_an_output_that_is_not_there_is_named(server, model):
    whole = {"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [0.0] * 768}
    body = json.dumps({"inputs": [whole], "outputs": [{"name": "depth"}]}).encode()
    status, _, said = call(server, f"/v2/models/{model.info().model}/infer", body)
    assert status == 400
    assert "ask for logits" in said.decode()


def test_an_answer_is_not_asked_for_a_thousand_times_at_once(server, model):
    whole = {"name": "images", "shape": [1, 3, 16, 16], "datatype": "FP32", "data": [0.0] * 768}
    body = json.dumps({"inputs": [whole], "outputs": [{"name": "logits"}] * 1000}).encode()
    status, _, said = call(server, f"/v2/models/{model.info().model}/infer", body)
    assert status == 400
    assert "outputs" in said.decode()


def test_an_image_that_pillow_would_not_open_for_its_size_is_refused_as_too_large(server):
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    status, _, said = call(server, "/v1/predict", bomb + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    assert status == 413
    assert "too large" in said.decode()


def test_a_client_that_stalls_does_not_keep_the_service_from_ending_and_one_that_goes_is_no_error(
    serving, pack, tmp_path
):
    begun = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    with serving(pack, tmp_path) as (address, process):
        host, port = address.removeprefix("http://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port)), timeout=10) as gone:
                gone.sendall(begun)
        with socket.create_connection((host, int(port)), timeout=30) as stalled:
            stalled.sendall(begun)
            until(lambda: b'status="499"} 3' in call(address, "/metrics")[2])
            process.send_signal(signal.SIGTERM)
            process.asked_to_end = True
            assert b" 503 " in stalled.recv(4096)
            outcome = finish(process)
    assert "Traceback" not in outcome.err


def test_too_many_pixels_are_refused_before_they_are_decoded(server, tmp_path):
    status, _, said = call(server, "/v1/predict", png(photo(size=(101, 100)), tmp_path))
    assert status == 413
    assert "10100 pixels" in said.decode()


def test_a_body_that_lies_about_its_length_is_cut(server):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with suppress(OSError):  # the server may close the connection while more is sent
            for _ in range(64):
                connection.sendall(chunk)
        assert b" 413 " in connection.recv(4096)


def test_metrics_count(server, tmp_path):
    call(server, "/v1/predict", png(photo(), tmp_path))
    status, headers, body = call(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    parser = pytest.importorskip("prometheus_client.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(body.decode())}
    assert any(each.labels["status"] == "200" for each in families["edgevit_requests"].samples)
    assert families["edgevit_model_info"].samples[0].labels["variant"] == "float32"


def test_more_than_it_can_do_is_refused_honestly_and_a_signal_finishes_what_was_accepted(
    serving, pack, model, tmp_path
):
    content = [png(photo(seed, (400, 400)), tmp_path) for seed in range(4)]
    expected = [model.predict(each)[0].label for each in content]
    statuses, wrong, gone = [], [], []
    stop = threading.Event()

    def hammer(number):
        while not stop.is_set():
            try:
                status, headers, body = call(address, "/v1/predict", content[number % 4])
            except (OSError, http.client.HTTPException) as error:
                gone.append(error)  # it does not listen any more
                return
            statuses.append(status)
            if status == 200 and json.loads(body)["predictions"][0]["label"] != expected[number % 4]:
                wrong.append(number)
            if status == 503 and headers["Retry-After"] != "1":
                wrong.append(number)

    with serving(pack, tmp_path, "--queue", "2") as (address, process), ThreadPoolExecutor(12) as pool:
        running = [pool.submit(hammer, number) for number in range(12)]
        while len(statuses) < 200:
            assert process.poll() is None
            stop.wait(0.05)
        process.send_signal(signal.SIGTERM)
        process.asked_to_end = True
        for each in running:
            each.result(60)
        stop.set()
    assert not wrong
    assert set(statuses) == {200, 503}
    # What was accepted has been answered: a connection ends only before anything of a request was read.
    ended = ("refused", "reset", "closed", "Broken pipe")
    assert all(any(word in str(error) for word in ended) for error in gone), gone


def test_a_port_that_is_taken_is_named(forked_serve, pack, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = forked_serve("serve", pack, "--port", taken.getsockname()[1], scratch=tmp_path)
        outcome = finish(process)
    assert outcome.code == 3
    assert "cannot listen on" in outcome.err


def test_a_name_that_is_no_path_is_refused(edgevit, pack):
    refused = edgevit("serve", pack, "--name", "../a b")
    assert refused.code == 2
    assert "--name" in refused.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_that_asks_it_to_end_does(serving, pack, tmp_path, number):
    with serving(pack, tmp_path) as (_, process):
        process.send_signal(number)
        process.asked_to_end = True
