"""One model between threads, closed while others use it, and in processes that were forked."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny import finish

from edgevit.backends.pool import Pool
from edgevit.data.shapes import load_shapes
from edgevit.errors import InputError
from edgevit.runtime import load

pytestmark = pytest.mark.usefixtures("all_cores")

VARIANTS = ("int8-onnxruntime", "int8-openvino", "float32-openvino")
THREADS = 8
BATCHES = (1, 3, 1, 2, 5, 1)


@pytest.fixture(scope="module")
def photos():
    shapes = load_shapes("test", "size=40,count=24")
    return [shapes.image(index) for index in range(24)]


@pytest.mark.parametrize("hint", ["LATENCY", "THROUGHPUT"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_eight_threads_with_batches_of_all_sizes_get_what_one_gets(tiny_quantized, photos, variant, hint):
    settings = {"PERFORMANCE_HINT": hint} if "openvino" in variant else {}
    with load(tiny_quantized, variant=variant, threads=2, settings=settings) as model:
        inputs = model.prepare(photos)
        pieces = [
            inputs[start : start + size]
            for start in range(len(inputs) - max(BATCHES))
            for size in BATCHES[start % len(BATCHES) :][:1]
        ]
        alone = [model.infer(piece) for piece in pieces]

        def ask(thread: int) -> int:
            order = np.random.default_rng(thread).permutation(len(pieces) * 4) % len(pieces)
            return sum(int(np.array_equal(model.infer(pieces[index]), alone[index])) for index in order)

        with ThreadPoolExecutor(THREADS) as pool:
            equal = list(pool.map(ask, range(THREADS)))
    assert equal == [len(pieces) * 4] * THREADS


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_each_thread_gets_the_predictions_of_its_own_images(tiny_quantized, photos, variant):
    with load(tiny_quantized, variant=variant, threads=1) as model:
        alone = [model.predict(photo) for photo in photos]
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(model.predict, photos * 5)) == alone * 5
            both = pool.map(model.predict_batch, [photos[:3], photos[4:5]] * 10)
            assert [len(answers) for answers in both] == [3, 1] * 10


def test_embeddings_are_safe_too(tiny_embedding, photos):
    with load(tiny_embedding, variant="int8-openvino", threads=1) as model:
        alone = [model.embed(photo) for photo in photos]
        with ThreadPoolExecutor(THREADS) as pool:
            for features, expected in zip(pool.map(model.embed, photos * 3), alone * 3, strict=True):
                np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_closing_finishes_what_was_begun_and_refuses_the_rest(tiny_quantized, photos, variant):
    model = load(tiny_quantized, variant=variant, threads=1)
    inputs = model.prepare(photos[:2])
    expected = model.infer(inputs)
    answered = threading.Event()
    wrong = []

    def ask() -> str:
        try:
            while True:
                if not np.array_equal(model.infer(inputs), expected):
                    wrong.append(1)
                answered.set()
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        ends = [pool.submit(ask) for _ in range(THREADS)]
        assert answered.wait(30)
        model.close()
        assert {end.result(30) for end in ends} == {"the model has been closed"}
    assert not wrong
    model.close()


@pytest.fixture
def run(forked, tmp_path):
    """Return a function that runs a script in a process of its own that has the engines loaded, but no model."""

    def do(script: str, *arguments: object) -> None:
        (tmp_path / "script.py").write_text(script)
        done = finish(forked(*arguments, what=tmp_path / "script.py", scratch=tmp_path / "scratch"))
        assert done.code == 0, done.err

    return do


CLOSED_ELSEWHERE = """
import os, signal, sys, threading
from edgevit.runtime import load
signalled = []
signal.signal(signal.SIGUSR1, lambda *_: signalled.append(True))
model = load(sys.argv[1], variant=sys.argv[2], threads=1)
model.predict(sys.argv[1] + "/golden/00.png")
closing = threading.Thread(target=model.close)
closing.start()
closing.join()
del model
os.kill(os.getpid(), signal.SIGUSR1)
assert signalled
"""


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_a_signal_is_handled_after_another_thread_has_closed_the_model(run, tiny_quantized, variant):
    """OpenVINO's plugin takes the stack for signals away from the thread that made it."""
    run(CLOSED_ELSEWHERE, tiny_quantized, variant)


FORKED = """
import os, sys
from edgevit.errors import InputError
from edgevit.runtime import load
bundle, variant, then = sys.argv[1:]
image = bundle + "/golden/00.png"
model = load(bundle, variant=variant, threads=2)
before = model.predict(image)
if os.fork():
    _, status = os.wait()
    assert model.predict(image) == before
    sys.exit(os.waitstatus_to_exitcode(status))
try:
    model.predict(image)
except InputError as error:
    assert "load()" in error.remedy
else:
    sys.exit(3)
if then == "close":
    model.close()
    del model
elif then == "load" and "openvino" in variant:
    try:
        load(bundle, variant=variant, threads=1)
    except InputError as error:
        assert "spawn" in error.remedy
    else:
        sys.exit(4)
elif then == "load":
    with load(bundle, variant=variant, threads=1) as own:
        assert own.predict(image)[0].label == before[0].label
"""


@pytest.mark.parametrize("then", ["exit", "close", "load"])
@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_a_forked_process_is_told_to_load_for_itself_and_ends(run, tiny_quantized, variant, then):
    run(FORKED, tiny_quantized, variant, then)


def test_a_pool_lends_each_thing_to_one_at_a_time():
    pool = Pool(range(3))
    in_use, most = set(), []
    lock = threading.Lock()

    def work(seed: int) -> None:
        for count in np.random.default_rng(seed).integers(1, 5, 60):
            with pool.borrow(int(count)) as things:
                assert 1 <= len(things) <= count
                with lock:
                    assert in_use.isdisjoint(things)
                    in_use.update(things)
                    most.append(len(in_use))
                with lock:
                    in_use.difference_update(things)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert len(pool) == 3
    assert max(most) <= 3
    with pytest.raises(ZeroDivisionError), pool.borrow():
        1 / 0  # noqa: B018
    with pool.borrow(9) as things:
        assert sorted(things) == [0, 1, 2], "what an error gave back is there again"


class Watched(NamedTuple):
    """A process, the folders that it may write to, and what it sent to the proxy that it was given."""

    process: subprocess.Popen
    folder: Path
    asked: list[bytes]


@pytest.fixture(scope="module", autouse=True)
def watched(tiny_quantized, tmp_path_factory) -> Iterator[Watched]:
    """Start a process that has a model open for six seconds; the tests before the one that needs it go on meanwhile.

    onnxruntime waits a while before it reports. What it is told is set before its import, in each process.
    """
    folder, asked = tmp_path_factory.mktemp("watched"), []
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        way = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {
            **os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": "",
            "HTTPS_PROXY": way, "https_proxy": way, "HTTP_PROXY": way, "http_proxy": way,
        }  # fmt: skip
        environment.pop("ORT_DISABLE_TELEMETRY", None)
        code = (
            "import sys, time; from edgevit.runtime import load; import edgevit.quantization.calibration.calibrate\n"
            "with load(sys.argv[1], variant='int8-onnxruntime') as model: time.sleep(6)"
        )
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(tiny_quantized)],
            env=environment,
            cwd=Path(__file__).parents[2],
        )

        def answer() -> None:
            while process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    connection, _ = proxy.accept()
                    with connection:
                        connection.settimeout(2)
                        asked.append(connection.recv(200))

        proxy.settimeout(0.2)
        answering = threading.Thread(target=answer)
        answering.start()
        yield Watched(process, folder, asked)
        process.kill()
        answering.join()


def test_nothing_is_reported_and_nothing_left_in_the_home(watched):
    """From 1.29 on onnxruntime reports to its maker, and writes a device id, unless it is told not to."""
    assert watched.process.wait(60) == 0
    assert watched.asked == []
    assert [path for folder in ("home", "tmp") for path in (watched.folder / folder).rglob("*")] == []
