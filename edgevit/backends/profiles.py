"""Read how long operators take from what engines count while they run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgevit.json import read

RUNS = 11  # that are looked at
WARMUP = 3

_LARGEST = 256 << 20  # bytes of a profile
_RUN = "model_run"
_KERNEL = "_kernel_time"

#: Milliseconds of one run by kind of operator.
Times = dict[str, float]


def onnxruntime_times(profile: Path) -> Times:
    """Return the milliseconds by kind of operator of the typical run after ``WARMUP``.

    ``profile`` is the file of ``end_profiling``: events with a start and a duration in microseconds.

    Raises:
        JSONError: if it cannot be read.

    """
    events = read(profile, list[dict[str, Any]], most_bytes=_LARGEST)
    ends = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == _RUN)
    runs: list[defaultdict[str, float]] = [defaultdict(float) for _ in ends]
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
            run = next((run for run, (start, end) in zip(runs, ends, strict=True) if start <= event["ts"] <= end), None)
            if run is not None:
                run[str(event["args"]["op_name"])] += event["dur"] / 1000
    return _typical(runs[WARMUP:])


def openvino_times(runs: Iterable[Iterable[Any]]) -> Times:
    """Return the same of ``runs``, what ``get_profiling_info`` gave of each."""
    found = []
    for run in runs:
        times: defaultdict[str, float] = defaultdict(float)
        for node in run:
            times[str(node.node_type)] += node.real_time.total_seconds() * 1000
        found.append(times)
    return _typical(found)


def _typical(runs: Sequence[Times]) -> Times:
    """Return the run whose time is the median, without what takes none: others disturb one that is slow."""
    if not runs:
        return {}
    run = sorted(runs, key=lambda each: sum(each.values()))[len(runs) // 2]
    return {kind: time for kind, time in run.items() if time > 0}
