"""Tensors as bytes behind the JSON, as Triton's client sends them unless it is told otherwise."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_host import call, photo

from edgevit.errors import DataError
from edgevit.server.protocol import read_request

pytest.importorskip("fastapi", reason="needs the extra serve")

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("<f4")
HEADER = "Inference-Header-Content-Length"


def written(images=IMAGES, size=None, outputs=None, **request):
    """Return the JSON of a request whose tensor stands behind it."""
    size = images.nbytes if size is None else size
    tensor = {
        "name": "images",
        "shape": list(images.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": size},
    }
    return json.dumps({"inputs": [tensor], **request} | ({} if outputs is None else {"outputs": outputs})).encode()


def binary_of(headers, body):
    """Return the JSON of a response, and the tensors behind it."""
    length = int(headers[HEADER])
    said, place, found = json.loads(body[:length]), length, {}
    for each in said["outputs"]:
        size = each["parameters"]["binary_data_size"]
        found[each["name"]] = np.frombuffer(body[place : place + size], "<f4").reshape(each["shape"])
        place += size
    assert place == len(body)
    return said, found


def test_tritons_client_as_it_is_by_default(server, model):
    client = pytest.importorskip("tritonclient.http")
    name = model.info().model
    images = model.prepare([photo(seed) for seed in range(3)])
    with client.InferenceServerClient(server.removeprefix("http://")) as triton:
        assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
        given_ = client.InferInput("images", list(images.shape), "FP32")
        given_.set_data_from_numpy(images)
        for outputs in (None, [client.InferRequestedOutput("logits")]):
            found = triton.infer(name, [given_], outputs=outputs, request_id="7")
            np.testing.assert_allclose(found.as_numpy("logits"), model.infer(images), atol=1e-5)
            assert found.get_response()["id"] == "7"
            assert "data" not in found.get_response()["outputs"][0]
        mixed = triton.infer(name, [given_], outputs=[client.InferRequestedOutput("logits", binary_data=False)])
        assert "data" in mixed.get_response()["outputs"][0]
        given_.set_data_from_numpy(images, binary_data=False)
        other = triton.infer(name, [given_], outputs=[client.InferRequestedOutput("logits", binary_data=True)])
        np.testing.assert_allclose(other.as_numpy("logits"), model.infer(images), atol=1e-5)
        with pytest.raises(client.InferenceServerException, match="classification is not done here"):
            triton.infer(name, [given_], outputs=[client.InferRequestedOutput("logits", class_count=2)])


def test_bytes_are_the_numbers_and_the_header_says_where_they_begin(server, model):
    path = f"/v2/models/{model.info().model}/infer"
    head = written(outputs=[{"name": "logits", "parameters": {"binary_data": True}}], id="x")
    status, headers, body = call(server, path, head + IMAGES.tobytes(), {HEADER.lower(): str(len(head))})
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    said, found = binary_of(headers, body)
    assert said["id"] == "x"
    np.testing.assert_allclose(found["logits"], model.infer(IMAGES), atol=1e-5)


def nan():
    images = IMAGES.copy()
    images[1, 2, 15, 15] = np.nan
    return images.tobytes()


BYTES, SIZE = IMAGES.tobytes(), IMAGES.nbytes


@pytest.mark.parametrize(
    ("head", "behind", "length", "problem"),
    [
        (written(), BYTES, "-1", "is '-1'"),
        (written(), BYTES, "+5", "is '\\+5'"),
        (written(), BYTES, "1e3", "is '1e3'"),
        (written(), BYTES, "", "is ''"),
        (written(), BYTES, "9" * 400, "is '999"),
        (written(), BYTES, str(1 << 14), "and the body has"),
        (written(), BYTES, "10", "not valid"),
        (written(), BYTES, str(len(written()) + 1), "not valid|bytes stand behind"),
        (written(), BYTES, str(len(written()) - 1), "not valid"),
        (written(), BYTES, "0", "not valid"),
        (written(), BYTES[:-1], None, "bytes stand behind"),
        (written(), BYTES + b"x", None, "bytes stand behind"),
        (written(), b"", None, "0 bytes stand behind"),
        (written(), nan(), None, "finite"),
        (written(size=-4), BYTES, None, "not valid"),
        (written(size=1 << 63), BYTES, None, "not valid"),
        (written(size=SIZE - 4), BYTES, None, f"binary_data_size is {SIZE - 4}"),
        (written(size=SIZE + 4), BYTES + bytes(4), None, f"binary_data_size is {SIZE + 4}"),
        (written(size=SIZE / 3), BYTES, None, "not valid"),
        (written(size="6144"), BYTES, None, "not valid"),
        (written(size=True), BYTES, None, "not valid"),
        (written(outputs=[{"name": "logits", "parameters": {"binary_data": 1}}]), BYTES, None, "not valid"),
        (written(outputs=[{"name": "logits", "parameters": {"classification": 3}}]), BYTES, None, "classification"),
        (
            written(outputs=[{"name": "logits", "parameters": {"shared_memory_region": "r"}}]),
            BYTES,
            None,
            "shared memory",
        ),
        (written().replace(b'"parameters"', b'"data": [1], "parameters"'), BYTES, None, "either data or"),
        (written().replace(b'"parameters"', b'"other"'), BYTES, None, "either data or"),
        (
            written().replace(b'{"binary_data_size": 6144}', b'{}, "data": [0]').replace(b"[2, 3", b"[1, 3"),
            b"more",
            None,
            "4 bytes stand behind the JSON, of no tensor",
        ),
    ],
)
def test_lies_about_sizes_are_named(server, model, head, behind, length, problem):
    headers = {HEADER: str(len(head)) if length is None else length}
    status, _, body = call(server, f"/v2/models/{model.info().model}/infer", head + behind, headers)
    assert status == 400, body
    assert re.search(problem, json.loads(body)["error"]), body


def test_bytes_without_the_header_and_two_headers_are_named(server, model):
    path = f"/v2/models/{model.info().model}/infer"
    status, _, body = call(server, path, written())
    assert (status, json.loads(body)["error"].count(HEADER)) == (400, 1)
    import http.client

    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", path)
    for value in (len(written()), len(written()) + len(BYTES), len(written())):
        connection.putheader(HEADER, str(value))
    connection.putheader("Content-Length", str(len(written() + BYTES)))
    connection.endheaders(written() + BYTES)
    response = connection.getresponse()
    assert response.status == 400
    assert HEADER in response.read().decode()
    connection.close()


def test_a_body_that_is_compressed_is_refused(server, model):
    path = f"/v2/models/{model.info().model}/infer"
    status, _, body = call(server, path, b"x", {"Content-Encoding": "gzip"})
    assert (status, "gzip" in json.loads(body)["error"]) == (415, True)


@given(
    length=st.one_of(st.integers(-10, 20_000).map(str), st.text(max_size=8)),
    size=st.integers(-5, 1 << 66),
    cut=st.integers(0, 6200),
    count=st.integers(0, 1 << 31),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_sizes_are_it_is_right_or_refused(model, length, size, cut, count):
    head = written(size=size).replace(b"[2, 3", f"[{count}, 3".encode())
    body = head + BYTES[:cut]
    for given_ in (length, str(len(head)), None):
        try:
            _, images = read_request(body, model, most_images=32, json_bytes=given_)
        except DataError:
            continue
        assert given_ == str(len(head))
        assert size == cut == images.nbytes
        assert images.tobytes() == BYTES[:cut]
