"""What was measured beside the times, in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgevit.bundle.manifest import Latency
from edgevit.bundle.measured import EndToEnd, Energy, LoadPoint, MachineState, Sweep
from edgevit.report.formats import printable, three_digits


def measured_beside(latencies: Mapping[str, Latency]) -> Iterator[str]:
    """Yield a line for each figure of ``latencies`` that the table has no column for."""
    for name, latency in latencies.items():
        found = [
            *_start(latency),
            *([] if latency.end_to_end is None else [_end_to_end(latency.end_to_end)]),
            *([] if latency.energy is None else [_energy(latency.energy)]),
            *([] if latency.sweep is None else [_sweep(latency.sweep)]),
        ]
        if found:
            yield f"{name}: {'; '.join(found)}"
    machine = next((each.machine for each in latencies.values() if each.machine is not None), None)
    if machine is not None and (said := _machine(machine)):
        yield f"machine: {said}"
    reasons = dict.fromkeys(each.energy_reason for each in latencies.values() if each.energy_reason)
    yield from (f"no energy: {printable(reason, 400)}" for reason in reasons if reason)


def _start(found: Latency) -> Iterator[str]:
    if found.load_ms is not None and found.first_ms is not None:
        yield f"loads in {three_digits(found.load_ms)} ms, first inference {three_digits(found.first_ms)} ms"
    if found.rss_mb is not None:
        yield f"{found.rss_mb:.0f} MiB of memory at most"


def _machine(found: MachineState) -> str:
    """Say what the machine did, as far as it tells it."""
    said = []
    if found.clock_mhz is not None:
        least, _, most = found.clock_mhz
        said.append(f"{least:.0f} to {most:.0f} MHz" if least < most else f"{most:.0f} MHz")
    if found.temperature_c is not None:
        start, hottest = found.temperature_c
        said.append(f"{start:.0f} °C, at most {hottest:.0f}")
    said += [printable(each) for each in (found.governor, found.power_mode) if each]
    if found.on_battery:
        said.append("on battery")
    if found.other_load is not None:
        said.append(f"others took {100 * found.other_load:.0f} % of the cores' time")
    said += [printable(each) for each in found.throttle_reasons]
    if found.dropped:
        said.append(f"{found.dropped} of {found.rounds} rounds were disturbed and do not count")
    return ", ".join(said)


def _end_to_end(found: EndToEnd) -> str:
    decode, prepare, model = map(three_digits, (found.decode_ms, found.prepare_ms, found.model_ms))
    return f"end to end {three_digits(found.p50_ms)} ms (decode {decode}, prepare {prepare}, model {model})"


def _energy(found: Energy) -> str:
    low, high = found.mj_ci95
    idle = f"above {found.idle_w:.3g} W of idle power"
    return f"{found.mj:.4g} mJ ({low:.4g} to {high:.4g}) {idle}, for {printable(found.covers)}"


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
