"""One candidate of a benchmark, alone in its process: ``python -m edgevit.evaluation.worker``.

Messages are lines of JSON. The first on standard input is a ``BenchmarkJob``; each further one is a block to measure,
until the input ends. The answers on standard output are ``Opened``, then one for each block, or ``Failed``. Whatever
else the backend prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends import get_backend
from edgevit.backends.base import Session
from edgevit.data.images import decode_image
from edgevit.errors import EdgeViTError
from edgevit.evaluation.messages import (
    BenchmarkJob,
    BlockRequest,
    EndToEndBlock,
    EndToEndTimings,
    Failed,
    Opened,
    StreamsBlock,
    StreamTimings,
    TimedBlock,
    Timings,
    WorkerReply,
)
from edgevit.evaluation.steady import warm_up
from edgevit.json import decode
from edgevit.system import peak_rss_mb

#: Answers to one picture, the first of which does not count, and of one stream.
_LEAST_ANSWERS, _MOST_ANSWERS = 4, 10_000


def _infer_ns(session: Session, images: NDArray[np.float32], times: int) -> list[int]:
    durations = []
    for _ in range(times):
        start = time.perf_counter_ns()
        session.infer(images)
        durations.append(time.perf_counter_ns() - start)
    return durations


def serve_job(job: BenchmarkJob, blocks: Iterator[BlockRequest]) -> Iterator[WorkerReply]:
    """Open the job's model, then measure block after block."""
    backend = get_backend(job.backend)
    started = time.monotonic_ns()
    images = _input(job, job.shape[0])
    input_ns = time.monotonic_ns() - started
    opening_ns = time.monotonic_ns()
    with backend.open(Path(job.model), threads=job.threads, settings=job.settings, batch=len(images)) as session:
        opened_ns = time.monotonic_ns()
        session.infer(images)
        now_ns = time.monotonic_ns()
        warmed = warm_up(lambda times: _infer_ns(session, images, times), least=job.warmup, limit_s=job.warmup_s)
        yield Opened(
            cold_start_ms=(now_ns - job.spawned_ns - input_ns) / 1e6,  # making up an input is no part of starting
            load_ms=(opened_ns - opening_ns) / 1e6,
            first_ms=(now_ns - opened_ns) / 1e6,
            warmup_ns=warmed.inference_ns,
            steady=warmed.steady,
            largest_batch=session.largest_batch,
        )
        for block in blocks:
            if isinstance(block, StreamsBlock):
                yield _streams(session, _input(job, block.batch), block)
            elif isinstance(block, EndToEndBlock):
                yield _end_to_end(session, block)
            else:
                yield _timed(session, images, block)


def _input(job: BenchmarkJob, batch: int) -> NDArray[np.float32]:
    """Return random-normal images (batch, C, H, W)."""
    return np.random.default_rng(job.seed).standard_normal((batch, *job.shape[1:]), dtype=np.float32)


def _timed(session: Session, images: NDArray[np.float32], block: TimedBlock) -> Timings:
    _infer_ns(session, images, block.warmup)
    started_ns = time.monotonic_ns()
    inference_ns = _infer_ns(session, images, block.inferences)
    ended_ns = time.monotonic_ns()
    return Timings(inference_ns=inference_ns, rss_mb=peak_rss_mb(), started_ns=started_ns, ended_ns=ended_ns)


def _streams(session: Session, images: NDArray[np.float32], block: StreamsBlock) -> StreamTimings:
    """Run the streams of ``block`` until its time is up; each has one inference at least."""
    _infer_ns(session, images, 1)  # with this batch: what an engine prepares for it is no part
    ready = threading.Barrier(block.streams)

    def run() -> list[int]:
        ready.wait()
        began = time.monotonic_ns()
        own: list[int] = []
        while not own or (time.monotonic_ns() - began < block.seconds * 1e9 and len(own) < _MOST_ANSWERS):
            own += _infer_ns(session, images, 1)
        return own

    with ThreadPoolExecutor(block.streams) as pool:
        running = [pool.submit(run) for _ in range(block.streams)]
    return StreamTimings(inference_ns=[each for stream in running for each in stream.result()])


def _end_to_end(session: Session, block: EndToEndBlock) -> EndToEndTimings:
    """Answer to one picture again and again, as the runtime does: it decodes, prepares, and runs the model."""
    parts: list[tuple[int, int, int]] = []
    deadline_ns = time.monotonic_ns() + round(block.seconds * 1e9)
    while len(parts) < _LEAST_ANSWERS or (time.monotonic_ns() < deadline_ns and len(parts) < _MOST_ANSWERS):
        start = time.perf_counter_ns()
        image = decode_image(block.picture)
        decoded = time.perf_counter_ns()
        images = np.stack([block.preprocess(image)])
        prepared = time.perf_counter_ns()
        session.infer(images)
        parts.append((decoded - start, prepared - decoded, time.perf_counter_ns() - prepared))
    decode_ns, prepare_ns, model_ns = (list(each) for each in zip(*parts[1:], strict=True))  # the first warms up
    return EndToEndTimings(decode_ns=decode_ns, prepare_ns=prepare_ns, model_ns=model_ns)


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
        blocks: Iterator[BlockRequest] = (decode(line, BlockRequest) for line in lines)
        try:
            for answer in serve_job(job, blocks):
                answers.write(encode(answer) + b"\n")
                answers.flush()
        except EdgeViTError as error:
            answers.write(encode(Failed(message=f"{error.message}: {error.remedy}")) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
