"""How a candidate started: opening its file, the first inference, and warming up."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from edgevit.bundle.measured import WarmUp
from edgevit.evaluation.messages import Opened
from edgevit.evaluation.steady import METHOD


class Start(NamedTuple):
    """Milliseconds of the whole start, of opening the file and of the first inference; the warm-up, and a usual time.

    ``typical_ns`` is the median of the warm-up's second half, in nanoseconds; ``largest_batch`` is as in ``Opened``.
    """

    cold_start_ms: float
    load_ms: float
    first_ms: float
    warm_up: WarmUp
    typical_ns: float
    largest_batch: int | None


def start_of(opened: Opened) -> Start:
    """Return how the worker that has ``opened`` its model started."""
    times = opened.warmup_ns
    warm_up = WarmUp(inferences=len(times), seconds=sum(times) / 1e9, steady=opened.steady, method=METHOD)
    typical_ns = median(times[len(times) // 2 :])
    return Start(
        opened.cold_start_ms, opened.load_ms, opened.first_ms, warm_up, max(1.0, typical_ns), opened.largest_batch
    )
