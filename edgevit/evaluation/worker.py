"""One candidate of a benchmark, alone in its process: ``python -m edgevit.evaluation.worker``.

Messages are lines of JSON. The first on standard input is a ``BenchmarkJob``; each further one is a ``TimedBlock`` to
measure, until the input ends. The answers on standard output are ``Opened``, then one ``Timings`` per block, or
``Failed``. Whatever else the backend prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends import get_backend
from edgevit.backends.base import Session
from edgevit.errors import EdgeViTError
from edgevit.evaluation.messages import BenchmarkJob, Failed, Opened, TimedBlock, Timings
from edgevit.json import decode
from edgevit.system import peak_rss_mb


def _infer_ns(session: Session, images: NDArray[np.float32], times: int) -> list[int]:
    durations = []
    for _ in range(times):
        start = time.perf_counter_ns()
        session.infer(images)
        durations.append(time.perf_counter_ns() - start)
    return durations


def serve(job: BenchmarkJob, blocks: Iterator[TimedBlock]) -> Iterator[Opened | Timings]:
    """Open the job's model, then measure block after block."""
    backend = get_backend(job.backend)
    started = time.monotonic_ns()
    images = np.random.default_rng(job.seed).standard_normal(job.shape, dtype=np.float32)
    input_ns = time.monotonic_ns() - started
    with backend.open(Path(job.model), threads=job.threads, settings=job.settings) as session:
        session.infer(images)
        # Making up an input is no part of starting.
        cold_start_ns = time.monotonic_ns() - job.spawned_ns - input_ns
        yield Opened(cold_start_ms=cold_start_ns / 1e6, warmup_ns=_infer_ns(session, images, job.warmup))
        for block in blocks:
            _infer_ns(session, images, block.warmup)
            yield Timings(inference_ns=_infer_ns(session, images, block.inferences), rss_mb=peak_rss_mb())


def _claim_stdout() -> BinaryIO:
    """Keep standard output for answers; what anything else writes there, native code included, goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def main() -> int:
    """Serve the job on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
    encode = msgspec.json.Encoder().encode
    lines = iter(sys.stdin.buffer.readline, b"")
    with _claim_stdout() as answers:
        job = decode(next(lines), BenchmarkJob)
        blocks = (decode(line, TimedBlock) for line in lines)
        try:
            for answer in serve(job, blocks):
                answers.write(encode(answer) + b"\n")
                answers.flush()
        except EdgeViTError as error:
            answers.write(encode(Failed(message=f"{error.message}: {error.remedy}")) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
