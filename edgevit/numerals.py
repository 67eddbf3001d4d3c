"""How figures are written that are held against a bound: rounding must not carry them across it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal

_MOST_DECIMALS = 12
#: What a figure may miss a limit by, as rounding did it.
ROUNDING = 1e-9


def per_cent(share: float) -> str:
    """Return a share in 0..1 in whole per cent, cut, such as ``79 %``: 100 is all, and what misses a gate stays below.

    Where nothing is left of a share that is not 0, it has one digit more that counts.
    """
    exact = 100 * Decimal(repr(float(share)))
    cut = exact.quantize(Decimal(1), ROUND_FLOOR)
    return f"{cut} %" if cut or not share else f"{_digits(float(exact), 1)} %"


def exactly(value: float) -> str:
    """Return a limit with all of its digits, such as ``0.5`` or ``0.99999999``."""
    return repr(float(value)).removesuffix(".0")


def within(value: float, bounds: Sequence[float], decimals: int) -> str:
    """Return ``value`` rounded to ``decimals``, or to as many more as show on which side of the ``bounds`` it lies."""
    for places in range(decimals, _MOST_DECIMALS):
        text = f"{value:.{places}f}"
        if all(_side(float(text), bound) == _side(value, bound) for bound in bounds):
            return text
    return exactly(value)


def floored(value: float, least: float | None = None, decimals: int = 4) -> str:
    """Return ``value``, never rounded up, to ``decimals`` digits, or as many as ``least`` has, which is wanted."""
    if least is not None:
        places = Decimal(repr(float(least))).as_tuple().exponent
        decimals = max(decimals, min(_MOST_DECIMALS, -places if isinstance(places, int) else 0))
    if not math.isfinite(value):
        return str(value)
    cut = Decimal(repr(float(value) + ROUNDING)).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR)
    return f"{cut:f}"


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)


def _digits(value: float, digits: int) -> str:
    """Return a positive number below 1 with that many digits that count, never in powers of ten."""
    return f"{value:.{digits - 1 - math.floor(math.log10(value))}f}"
