"""Clients that connect and then do little: each is ended in its time, and the others are answered meanwhile."""

import json
import select
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from service_host import call, photo, png, until
from tiny import finish

from edgevit.runtime import load

pytest.importorskip("fastapi", reason="needs the extra serve")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")

from edgevit.server.app import Limits, Service, make_app  # noqa: E402
from edgevit.server.connections import protocol_with  # noqa: E402

pytestmark = pytest.mark.usefixtures("all_cores")


@contextmanager
def limited(pack, **limits):
    """Yield the address of a server in this process, with such limits, and the server."""
    model = load(pack, variant="float32", threads=1)
    service = Service(model, "vit", limits=Limits(**limits), batch=1, workers=1, decoders=2)
    protocol = protocol_with(service.limits, service.refused_connection)
    config = uvicorn.Config(make_app(service), port=0, log_level="critical", http=protocol, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        service.close()
    assert not thread.is_alive()


def connected(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def rest(connection):
    """Return all that comes until the other side ends the connection."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def test_a_head_that_comes_byte_by_byte_is_ended(pack, tmp_path):
    with limited(pack, header_seconds=0.5) as (address, _), connected(address) as slow:
        stop = threading.Event()

        def drip():
            """Send byte after byte until there is an answer: what comes behind the end would reset the connection."""
            for byte in b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n" + b"X-Slow: 1\r\n" * 1000:
                if stop.wait(0.05) or select.select([slow], [], [], 0)[0]:
                    return
                slow.sendall(bytes([byte]))

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert call(address, "/v1/predict", png(photo(), tmp_path))[0] == 200  # others are answered meanwhile
        dripping.join(30)
        stop.set()
        found = rest(slow)
        assert found.startswith(b"HTTP/1.1 408 ")
        assert "within 0.5 seconds" in json.loads(found.partition(b"\r\n\r\n")[2])["error"]
        assert b'edgevit_requests_total{endpoint="none",status="408"} 1.0' in call(address, "/metrics")[2]


def test_a_connection_that_asks_nothing_is_ended_without_a_word(pack):
    with limited(pack, header_seconds=0.3) as (address, _), connected(address) as silent:
        assert rest(silent) == b""


def test_a_second_request_has_its_own_time(pack):
    ready = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    with limited(pack, header_seconds=0.5) as (address, _), connected(address) as kept:
        for _ in range(3):  # a connection may live longer than one head may take
            kept.sendall(ready)
            found = b""
            while not found.endswith(b"}"):
                found += kept.recv(4096)
            assert found.startswith(b"HTTP/1.1 200")
            time.sleep(0.4)
        kept.sendall(ready + ready[:10])
        found = rest(kept)
        assert found.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408 " in found


def test_a_body_and_an_answer_may_take_longer_than_a_head(pack, tmp_path):
    content = png(photo(), tmp_path)
    with limited(pack, header_seconds=0.3) as (address, _), connected(address) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content))
        time.sleep(0.8)
        slow.sendall(content)
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_ended(pack):
    with limited(pack, body_seconds=0.4) as (address, _), connected(address) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        assert rest(slow).startswith(b"HTTP/1.1 408 ")


def test_more_connections_than_there_may_be_are_told_so(pack):
    with limited(pack, connections=4) as (address, _):
        held = [connected(address) for _ in range(4)]
        with connected(address) as one_more:
            found = rest(one_more)
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in found
        assert json.loads(found.partition(b"\r\n\r\n")[2]) == {"error": "there are too many connections"}
        for each in held:
            each.close()
        until(lambda: call(address, "/v2/health/ready")[0] == 200)


def test_what_is_no_http_is_named_in_json(pack):
    with limited(pack) as (address, _), connected(address) as odd:
        odd.sendall(b"\x16\x03\x01 TLS\r\n\r\n")
        found = rest(odd)
    assert found.startswith(b"HTTP/1.1 400 ")
    assert "this is no HTTP request" in json.loads(found.partition(b"\r\n\r\n")[2])["error"]


def test_a_client_that_reads_nothing_is_ended(tiny_dense, tmp_path):
    """It asks for more than the kernel's buffers hold, and reads none of it."""
    images = np.zeros((32, 3, 16, 16), np.float32)
    with limited(tiny_dense, write_seconds=0.5, body_bytes=1 << 26) as (address, server), connected(address) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "tokens"}] * 64}).encode()
        deaf.sendall(b"POST /v2/models/vit/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.server_state.total_requests > 0 or not server.server_state.connections, 60)
        until(lambda: not server.server_state.connections)


def test_a_client_that_reads_nothing_does_not_keep_the_service_from_ending(tiny_dense):
    images = np.zeros((32, 3, 16, 16), np.float32)
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "tokens"}] * 64}).encode()
    head = b"POST /v2/models/vit/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with limited(tiny_dense, write_seconds=3.0, body_bytes=1 << 26) as (address, server), connected(address) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(head % len(body) + body)
        until(lambda: server.server_state.total_requests == 0 and deaf.recv(1, socket.MSG_PEEK) == b"H")
        # limited() ends the server, and sees that it has ended


def test_two_servers_at_one_port(serving, forked_serve, pack, tmp_path):
    with serving(pack, tmp_path / "one") as (address, _):
        second = forked_serve("serve", pack, "--port", address.rpartition(":")[2], scratch=tmp_path / "two")
        outcome = finish(second)
        assert outcome.code == 3
        message, remedy = outcome.err.splitlines()[-2:]
        assert f"cannot listen on {address.removeprefix('http://')}" in message
        assert "--port" in remedy
        assert "Traceback" not in outcome.err
        assert call(address, "/v2/health/ready")[0] == 200


def test_two_servers_of_one_pack(serving, pack, model, tmp_path):
    content = png(photo(), tmp_path)
    wanted = [each.label for each in model.predict(content)]
    with serving(pack, tmp_path / "one") as (one, _), serving(pack, tmp_path / "two") as (other, _):
        for address in (one, other):
            found = json.loads(call(address, "/v1/predict", content)[2])["predictions"]
            assert [each["label"] for each in found] == wanted
