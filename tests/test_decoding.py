"""Several threads may read their first file at once."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("all_cores")

FIRST_USE = """
import sys, threading
from edgevit import json
from edgevit.bundle.manifest import Manifest
from edgevit.recipes import load_recipe

sys.setswitchinterval(1e-5)
together = threading.Barrier(8)

def decode():
    together.wait()
    load_recipe("default")
    try:
        json.decode(b"{}", Manifest)
    except json.JSONError:
        pass

threads = [threading.Thread(target=decode) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_the_first_use_of_a_type_by_several_threads():
    for _ in range(3):  # without the lock, not every one ends with a segmentation fault
        subprocess.run([sys.executable, "-c", FIRST_USE], check=True, timeout=60)


FORKED = """
import os, threading
from edgevit import json
from edgevit.bundle.manifest import Manifest
from edgevit.decoding import LOCK

def decode():
    try:
        json.decode(b"{}", Manifest)
    except json.JSONError:
        pass

def hold():
    with LOCK:
        held.set()
        done.wait(1)

held, done = threading.Event(), threading.Event()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
if child := os.fork():  # the other thread has the lock when this is called
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
else:
    decode()
    os._exit(0)
"""


def test_a_process_that_is_forked_meanwhile():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=20)
