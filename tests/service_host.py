"""Starts ``edgevit serve`` on loopback, and asks it."""

import http.client
import re
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from tiny import finish, start


@contextmanager
def serving(bundle, scratch, *options, start=start):
    """Yield the address of a server and its process, which ``start`` begins and which is ended afterwards."""
    process = start("serve", bundle, "--port", "0", "--threads", "1", *options, scratch=scratch)
    process.asked_to_end = False
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"serving \S+ at (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("".join(lines))
        yield found[1], process
    finally:
        if process.poll() is None and not process.asked_to_end:
            process.send_signal(signal.SIGTERM)
        outcome = finish(process)
    assert outcome.code == 0, outcome
    assert "what was accepted has been answered" in outcome.out


def call(address, path, body=None, headers=None):
    """Return the status, the headers and the body of a response."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def until(true, seconds=30):
    """Wait until it is ``true``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def photo(seed=0, size=(20, 18)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(pixels, folder):
    Image.fromarray(pixels).save(folder / "photo.png")
    return (folder / "photo.png").read_bytes()
