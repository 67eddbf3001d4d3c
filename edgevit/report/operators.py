"""What the time of a variant goes to, in words."""

from __future__ import annotations

from edgevit.bundle.manifest import Latency

_SHOWN = 4


def time_in(latency: Latency | None) -> str | None:
    """Return the operators that take most of the time, with their shares of it; None where the engine tells of none."""
    if latency is None or not latency.operators:
        return None
    whole = sum(each.ms for each in latency.operators)
    first = latency.operators[:_SHOWN]
    if not whole:
        return None
    words = [f"{each.operator} {each.ms / whole:.0%}".replace("%", " %") for each in first]
    rest = 1 - sum(each.ms for each in first) / whole
    return ", ".join([*words, *([f"others {rest:.0%}".replace("%", " %")] if rest >= 0.005 else [])])
