"""What was measured beside the times, in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgevit.bundle.manifest import Latency
from edgevit.bundle.measured import EndToEnd, Energy, LoadPoint, Sweep
from edgevit.report.formats import printable


def measured_beside(latencies: Mapping[str, Latency]) -> Iterator[str]:
    """Yield a line for each figure of ``latencies`` that the table has no column for."""
    for name, latency in latencies.items():
        found = [
            *([] if latency.end_to_end is None else [_end_to_end(latency.end_to_end)]),
            *([] if latency.energy is None else [_energy(latency.energy)]),
            *([] if latency.sweep is None else [_sweep(latency.sweep)]),
        ]
        if found:
            yield f"{name}: {'; '.join(found)}"
    reasons = dict.fromkeys(each.energy_reason for each in latencies.values() if each.energy_reason)
    yield from (f"no energy: {printable(reason, 400)}" for reason in reasons if reason)


def _end_to_end(found: EndToEnd) -> str:
    parts = f"decode {found.decode_ms:.3g}, prepare {found.prepare_ms:.3g}, model {found.model_ms:.3g}"
    return f"end to end {found.p50_ms:.3g} ms ({parts})"


def _energy(found: Energy) -> str:
    low, high = found.mj_ci95
    idle = f"{found.idle_w:.3g} W idle subtracted"
    return f"{found.mj:.4g} mJ ({low:.4g} to {high:.4g}) of the {printable(found.covers)}, {idle}"


def _sweep(found: Sweep) -> str:
    best = max(found.points, key=lambda each: each.throughput_ips, default=None)
    if best is None:
        return f"no throughput: {printable(found.invalid_reason or '')}"
    most = f"at most {best.throughput_ips:.4g} images/s {_load(best)}"
    knee = found.knee
    where = "no knee"
    if knee is not None:
        where = f"knee at {knee.throughput_ips:.4g} images/s {_load(knee)}"
    doubt = f", in doubt: {printable(found.invalid_reason)}" if found.invalid_reason else ""
    return f"{most}, {where}{doubt}"


def _load(found: LoadPoint) -> str:
    return f"(batch {found.batch}, {found.streams} stream{'s' * (found.streams != 1)})"
