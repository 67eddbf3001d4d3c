"""What the time of a variant goes to, in words."""

from __future__ import annotations

from edgevit.bundle.manifest import Latency
from edgevit.numerals import per_cent

_SHOWN = 4


def time_in(latency: Latency | None) -> str | None:
    """Return the operators that take most of the time, with their shares of it; None where the engine tells of none."""
    if latency is None or not latency.operators:
        return None
    whole = sum(each.ms for each in latency.operators)
    first = latency.operators[:_SHOWN]
    if not whole:
        return None
    words = [f"{each.operator} {per_cent(each.ms / whole)}" for each in first]
    rest = sum(each.ms for each in latency.operators[_SHOWN:]) / whole
    return ", ".join([*words, *([f"others {per_cent(rest)}"] if rest >= 0.005 else [])])
