"""What the time of a variant goes to, in words."""

from __future__ import annotations

from typing import NamedTuple

from edgevit.bundle.manifest import Latency
from edgevit.numerals import per_cent

_SHOWN = 4
_MOST = 10


class OperatorShare(NamedTuple):
    """A kind of operator, its milliseconds of one run, and the share of all of them, in 0..1."""

    operator: str
    ms: float
    share: float


def operator_shares(latency: Latency | None) -> list[dict[str, float | str]]:
    """Return the ten kinds of operators that take most of the time; what is left is one more. None are known: none."""
    if latency is None or not (whole := sum(each.ms for each in latency.operators)):
        return []
    shown = [OperatorShare(each.operator, each.ms, each.ms / whole) for each in latency.operators[:_MOST]]
    rest = sum(each.ms for each in latency.operators[_MOST:])
    if rest:
        others = len(latency.operators) - _MOST
        shown.append(OperatorShare(f"{others} other{'s' * (others > 1)}", rest, rest / whole))
    return [each._asdict() for each in shown]


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
