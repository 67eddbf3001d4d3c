"""A worker that misbehaves ends in one clear reason, in time, and leaves no process behind."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgevit.evaluation.messages import BenchmarkJob, TimedBlock
from edgevit.evaluation.worker_process import WorkerProcess, WorkerStopped

pytestmark = pytest.mark.usefixtures("all_cores")

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


def job(worker, behaviour, **settings):
    return BenchmarkJob(
        backend="fake",
        model=f"/nowhere/{behaviour}.onnx",
        settings=settings,
        threads=2,
        shape=(1, 1, 4, 4),
        seed=0,
        warmup=5,
        spawned_ns=worker.spawned_ns,
    )


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_block_gives_one_time_per_inference(tmp_path):
    with WorkerProcess(tmp_path, command=FAKE) as worker:
        opened = worker.open(job(worker, "steady", ms="2"), timeout_s=60)
        assert len(opened.warmup_ns) == 5
        assert opened.cold_start_ms > 0
        timings = worker.measure(TimedBlock(warmup=1, inferences=7), timeout_s=60)
        assert len(timings.inference_ns) == 7
        assert sorted(set(timings.inference_ns)) == [1_800_000, 2_000_000, 2_400_000]
    assert gone(worker.pid)


def test_what_a_library_prints_does_not_get_into_the_answers(tmp_path):
    with WorkerProcess(tmp_path, command=FAKE) as worker:
        worker.open(job(worker, "chatters"), timeout_s=60)
        assert len(worker.measure(TimedBlock(warmup=0, inferences=2), timeout_s=60).inference_ns) == 2


def test_memory_is_the_workers_own_and_not_its_parents(tmp_path):
    from edgevit.system import peak_rss_mb

    ballast = np.ones(300 << 17)  # 300 MiB, resident
    assert peak_rss_mb() > 300
    with WorkerProcess(tmp_path, command=FAKE) as worker:
        worker.open(job(worker, "steady"), timeout_s=60)
        rss_mb = worker.measure(TimedBlock(warmup=0, inferences=1), timeout_s=60).rss_mb
    assert 5 < rss_mb < 250
    assert ballast.sum() > 0


def test_the_input_has_the_size_and_the_threads_that_were_asked_for(tmp_path):
    with (
        WorkerProcess(tmp_path, command=FAKE) as worker,
        pytest.raises(WorkerStopped, match=r"code 1: \(1, 1, 4, 4\) float32 2$"),
    ):
        worker.open(job(worker, "tells"), timeout_s=60)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("killed", "signal 9"),
        ("missing", "fake is not installed: pip install fake"),
    ],
)
def test_one_that_cannot_open_says_why(tmp_path, behaviour, reason):
    with WorkerProcess(tmp_path, command=FAKE) as worker, pytest.raises(WorkerStopped, match=reason):
        worker.open(job(worker, behaviour), timeout_s=60)
    assert gone(worker.pid)


def test_one_that_dies_is_quoted(tmp_path):
    with WorkerProcess(tmp_path, command=FAKE) as worker:
        worker.open(job(worker, "dies"), timeout_s=60)
        with pytest.raises(WorkerStopped, match="code 3: illegal instruction, says the library"):
            worker.measure(TimedBlock(warmup=0, inferences=100), timeout_s=60)
        with pytest.raises(WorkerStopped, match="code 3"):
            worker.measure(TimedBlock(warmup=0, inferences=1), timeout_s=60)


def test_one_that_hangs_is_not_waited_for(tmp_path):
    with WorkerProcess(tmp_path, command=FAKE) as worker:
        with pytest.raises(WorkerStopped, match="did not answer within 1 s"):
            worker.open(job(worker, "hangs"), timeout_s=1)
        assert not gone(worker.pid)
    assert gone(worker.pid)


def test_leaving_by_ctrl_c_ends_the_process(tmp_path):
    with pytest.raises(KeyboardInterrupt), WorkerProcess(tmp_path, command=FAKE) as worker:
        raise KeyboardInterrupt
    assert gone(worker.pid)


@pytest.mark.parametrize("line", ["not json", '{"type":"Opened"}', '{"type":"Other"}'])
def test_an_answer_that_is_none_is_no_crash(tmp_path, line):
    command = (sys.executable, "-c", f"input(); print({line!r})")
    with (
        WorkerProcess(tmp_path, command=command) as worker,
        pytest.raises(WorkerStopped, match="cannot be read"),
    ):
        worker.open(job(worker, "steady"), timeout_s=60)
