"""Throughput over batch and streams, and its knee: from where on more load hardly brings more of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from edgevit.bundle.measured import LoadPoint, Sweep
from edgevit.evaluation.messages import StreamTimings
from edgevit.statistics import percentiles

#: Twice the load is worth it where it brings this share of throughput more.
MIN_GAIN = 0.10
#: Images of a batch that are tried at the most.
LARGEST_BATCH = 32


def loads(cores: int, largest_batch: int | None) -> list[tuple[int, int]]:
    """Return the loads to try, batch and streams: powers of two up to what the variant takes and the cores, and those.

    The smallest load comes first, so that what does not fit into the memory ends the sweep after all that does.
    """
    batches = _doubled(min(LARGEST_BATCH, largest_batch or LARGEST_BATCH))
    pairs = [(batch, streams) for batch in batches for streams in _doubled(cores)]
    return sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[0]))


def point(batch: int, streams: int, timings: StreamTimings) -> LoadPoint:
    """Return what was measured under one load."""
    milliseconds = [each / 1e6 for each in timings.inference_ns]
    p50, p99 = percentiles(milliseconds, (50, 99))
    # By the mean time of a batch, not by how many ended in a span: a stream that ends later than others idles nowhere.
    throughput = 1000 * batch * streams / fmean(milliseconds)
    return LoadPoint(batch=batch, streams=streams, throughput_ips=throughput, p50_ms=p50, p99_ms=p99)


def sweep_of(points: Sequence[LoadPoint], *, threads: int, invalid: Sequence[str] = ()) -> Sweep:
    """Return the sweep of ``points`` with its knee."""
    return Sweep(
        streams_are="threads",
        threads=threads,
        min_gain=MIN_GAIN,
        points=tuple(points),
        knee=knee(points),
        valid=not invalid,
        invalid_reason="; ".join(invalid)[:1024] or None,
    )


def knee(points: Sequence[LoadPoint]) -> LoadPoint | None:
    """Return the smallest load from which on each doubling of it gains less than ``MIN_GAIN`` of throughput.

    A load is how many images are on their way at once, batch times streams; of points with the same one the fastest
    counts. None where the largest load that has a double still gains.
    """
    best: dict[int, LoadPoint] = {}
    for each in points:
        load = each.batch * each.streams
        if load not in best or each.throughput_ips > best[load].throughput_ips:
            best[load] = each
    found = None
    for load in sorted((load for load in best if 2 * load in best), reverse=True):
        if best[2 * load].throughput_ips >= (1 + MIN_GAIN) * best[load].throughput_ips:
            break
        found = best[load]
    return found


def _doubled(most: int) -> list[int]:
    """Return 1, 2, 4, ... and ``most``."""
    return sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power <= most)})
