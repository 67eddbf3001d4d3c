"""How figures are written for people, the same on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgevit.bundle.manifest import Accuracy
from edgevit.data.names import can_be_shown
from edgevit.numerals import floored, within

_DASH = "\N{EN DASH}"
NOTHING = _DASH
_SPACE = "\N{NO-BREAK SPACE}"
_TIMES = "\N{MULTIPLICATION SIGN}"
_MINUS = "\N{MINUS SIGN}"


def percent(rate: float | None, images: int = 10_000) -> str:
    """Write a rate in 0..1, to no more digits than a count of ``images`` can tell apart; 0 and 100 are none and all."""
    if rate is None:
        return NOTHING
    return f"{_rate(rate, images)}{_SPACE}%"


def percent_interval(interval: Sequence[float] | None, images: int = 10_000) -> str:
    """Write an interval of rates, such as ``90.9-92.0``, without the sign that stands with the rate."""
    if interval is None:
        return NOTHING
    low, high = (_rate(rate, images) for rate in interval)
    return f"{low}{_DASH}{high}"


def _rate(rate: float, images: int) -> str:
    return within(min(100.0, max(0.0, 100 * rate)), (0, 100), _digits(images))


def points(change: float | None, images: int = 10_000) -> str:
    """Write a change of a rate in percentage points, with its sign."""
    if change is None:
        return NOTHING
    number = f"{abs(100 * change):.{_digits(images)}f}"
    sign = "" if float(number) == 0 else _MINUS if change < 0 else "+"
    return f"{sign}{number}"


def points_interval(interval: Sequence[float] | None, images: int = 10_000) -> str:
    """Write the interval of a change in percentage points, such as ``-0.42 to +0.11``."""
    if interval is None:
        return NOTHING
    low, high = (points(each, images) for each in interval)
    return f"{low} to {high}"


def milliseconds(value: float | None) -> str:
    """Write a time in milliseconds, to three digits."""
    return NOTHING if value is None else f"{three_digits(value)}{_SPACE}ms"


def three_digits(value: float) -> str:
    """Write a positive number to three significant digits, and never in powers of ten."""
    for decimals, limit in ((3, 0.9995), (2, 9.995), (1, 99.95)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:,.0f}"


def signed_digits(value: float | None) -> str:
    """Write a number that may be negative to three significant digits."""
    if value is None:
        return NOTHING
    return f"{_MINUS}{three_digits(-value)}" if value < 0 else three_digits(value)


def part(value: float | None, whole: float) -> str:
    """Write which part of ``whole`` a value is as CSS wants a length, from 0 to 100 %."""
    share = 0.0 if value is None or not whole else value / whole
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def weighted(bins: Sequence[Mapping[str, float]], key: str) -> float:
    """Return the mean of a figure of ``bins``, each as often as it has answers."""
    return sum(each["count"] * each[key] for each in bins) / max(1, sum(each["count"] for each in bins))


def speed_up(value: float | None) -> str:
    """Write a speed-up."""
    return NOTHING if value is None else f"{value:.2f}{_TIMES}"


def ratio_interval(interval: Sequence[float] | None) -> str:
    """Write the interval of a speed-up."""
    return NOTHING if interval is None else f"{interval[0]:.2f}{_DASH}{interval[1]:.2f}"


def megabytes(size: int) -> str:
    """Write a size in bytes as millions of them."""
    return f"{three_digits(size / 1e6)}{_SPACE}MB"


def mebibytes(value: float | None) -> str:
    """Write an amount of memory, given in MiB."""
    return NOTHING if value is None else f"{value:,.0f}{_SPACE}MiB"


def p_value(value: float | None) -> str:
    """Write a p-value with its relation, such as ``p = 0.23``."""
    if value is None:
        return NOTHING
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def nats(value: float | None) -> str:
    """Write a Kullback-Leibler divergence."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"


def decibels(value: float | None) -> str:
    """Write a signal to noise ratio."""
    return NOTHING if value is None else f"{value:.1f}{_SPACE}dB"


def decisions(accuracy: Accuracy) -> str:
    """Write which share of decisions are float32's, and how far the logits are from its.

    Where float32 decides all alike, the share would be 100 % of nothing, and is left out.
    """
    found = accuracy.decisions
    alike = found is not None and found.yes in (0, 1)
    share = "all alike" if alike else percent(accuracy.agreement, accuracy.images)
    return share if accuracy.sqnr_db is None else f"{share} ({decibels(accuracy.sqnr_db)})"


def cosine(value: float | None) -> str:
    """Write a cosine similarity, never rounded up."""
    return NOTHING if value is None else floored(value)


def printable(text: str, limit: int = 200) -> str:
    """Return ``text`` for one line: without what could fool a reader, as no name of a class has, and not too long."""
    line = "".join(letter if can_be_shown(letter) else " " for letter in text)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _digits(images: int) -> int:
    return 1 if images <= 2000 else 2
