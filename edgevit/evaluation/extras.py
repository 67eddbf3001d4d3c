"""What is measured of each candidate by itself once all are timed: answers from end to end, and a sweep of loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from edgevit.bundle.measured import EndToEnd, LoadPoint, Sweep
from edgevit.data.preprocess import Preprocess
from edgevit.evaluation import sweep
from edgevit.evaluation.messages import EndToEndBlock, StreamsBlock
from edgevit.evaluation.rounds import Turn
from edgevit.evaluation.worker_process import WorkerStopped
from edgevit.progress import Progress
from edgevit.statistics import percentiles
from edgevit.system import usable_cores

#: A camera's picture: width, height, and the quality of the JPEG.
_PICTURE, _QUALITY = (640, 480), 90
_LEAST_S, _MOST_S = 0.1, 2.0
#: Shares of the duration that answers from end to end, and one load of a sweep, take.
_END_TO_END_SHARE, _LOAD_SHARE = 0.1, 0.05
_TIMEOUT_S, _PATIENCE = 60.0, 20


class Picture(NamedTuple):
    """A JPEG file, what it is in words, and how it is prepared."""

    content: bytes
    words: str
    preprocess: Preprocess


@dataclass(slots=True)
class Extras:
    """What was measured of a candidate so far."""

    end_to_end: EndToEnd | None = None
    sweep: Sweep | None = None


def picture_of(image: Image.Image, preprocess: Preprocess) -> Picture:
    """Return ``image`` as a camera's JPEG: of the size of one, and in its usual quality."""
    width, height = _PICTURE
    stream = BytesIO()
    image.convert("RGB").resize(_PICTURE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=_QUALITY)
    words = f"JPEG of {width}x{height}, quality {_QUALITY}, of the bundle's first golden image"
    return Picture(stream.getvalue(), words, preprocess)


def measure_end_to_end(turn: Turn, picture: Picture, duration_s: float) -> EndToEnd:
    """Return how long answers to ``picture`` take; raises WorkerStopped if the worker cannot give them."""
    seconds = min(_MOST_S, max(_LEAST_S, _END_TO_END_SHARE * duration_s))
    block = EndToEndBlock(picture=picture.content, preprocess=picture.preprocess, seconds=seconds)
    timings = turn.worker.run_end_to_end(block, timeout_s=_TIMEOUT_S + _PATIENCE * turn.typical_ns / 1e9 + seconds)
    parts = (timings.decode_ns, timings.prepare_ns, timings.model_ns)
    whole = [sum(each) / 1e6 for each in zip(*parts, strict=True)]
    p50, p90, p99 = percentiles(whole, (50, 90, 99))
    decode_ms, prepare_ms, model_ms = (percentiles([each / 1e6 for each in part], (50,))[0] for part in parts)
    return EndToEnd(
        image=picture.words,
        images=len(whole),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        decode_ms=decode_ms,
        prepare_ms=prepare_ms,
        model_ms=model_ms,
    )


def measure_sweep(
    turn: Turn, duration_s: float, threads: int, disturbed: Callable[[], Callable[[], list[str]]], progress: Progress
) -> Sweep:
    """Return the throughput over batch and streams; what the worker stops at ends the sweep, and is said.

    ``disturbed`` begins to watch the machine, and returns what says in the end what disturbed it.
    """
    seconds = min(1.0, max(_LEAST_S, _LOAD_SHARE * duration_s))
    largest = None if turn.record.start is None else turn.record.start.largest_batch
    wanted = sweep.loads(usable_cores(), largest)
    points: list[LoadPoint] = []
    reasons = disturbed()
    ended: list[str] = []
    for batch, streams in progress.track(wanted, total=len(wanted), label=f"Throughput of {turn.record.name}"):
        expected_s = seconds + 2 * batch * streams * turn.typical_ns / 1e9
        try:
            block = StreamsBlock(batch=batch, streams=streams, seconds=seconds)
            timings = turn.worker.run_streams(block, timeout_s=_TIMEOUT_S + _PATIENCE * expected_s)
        except WorkerStopped as stopped:
            ended = [f"it ended at {streams} x {batch} images: {stopped}"]
            turn.worker.close()
            break
        points.append(sweep.point(batch, streams, timings))
    return sweep.sweep_of(points, threads=threads, invalid=[*ended, *reasons()])
