"""A benchmark worker whose backends are made up; the name of the model file says what it does.

Run as a process of its own by test_latency.py and test_worker_process.py. An inference takes what the settings say on
a clock that nothing else moves, so that what the tests find is no matter of how busy the machine is.
"""

import os
import sys
import time

import edgevit.backends
from edgevit.errors import MissingDependencyError

#: What inferences take of what is usual, in turn.
JITTER = (1.0, 0.9, 1.2)


class Clock:
    """Counts nanoseconds; only inferences move it."""

    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns


CLOCK = Clock()


class FakeSession:
    def __init__(self, behaviour, settings, threads):
        self.behaviour = behaviour
        self.ns = [round(float(settings.get("ms", "1")) * share * 1e6) for share in JITTER]
        self.threads = threads
        self.calls = 0
        self.largest_batch = int(settings["batch"]) if "batch" in settings else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def infer(self, images):
        self.calls += 1
        if self.behaviour == "dies" and self.calls > 15:
            os.write(2, b"illegal instruction, says the library\n")
            os._exit(3)
        if self.behaviour == "hangs" and self.calls > 3:
            time.sleep(3600)
        if self.behaviour == "full" and len(images) > 2:
            os.write(2, b"out of memory, says the library\n")
            os._exit(4)
        if self.behaviour == "chatters":
            sys.stdout.write("a line on standard output\n")
            sys.stdout.flush()
            os.write(1, b"{}\n")
        if self.behaviour == "tells":
            os.write(2, f"{images.shape} {images.dtype} {self.threads}\n".encode())
            os._exit(1)
        CLOCK.ns += self.ns[self.calls % len(JITTER)]
        return images.reshape(len(images), -1)[:, :2]


class FakeBackend:
    def open(self, model, *, threads, settings, batch=1):
        behaviour = model.stem
        if behaviour == "killed":
            os.kill(os.getpid(), 9)
        if behaviour == "missing":
            raise MissingDependencyError("fake is not installed", remedy="pip install fake")
        return FakeSession(behaviour, settings, threads)


edgevit.backends.get_backend = lambda name: FakeBackend()

time.perf_counter_ns = CLOCK

if __name__ == "__main__":
    from edgevit.evaluation.worker import main

    sys.exit(main())
