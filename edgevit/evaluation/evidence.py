"""What a sample shows of a limit: that it is kept, that it is not, or neither, and how much would show it.

A verdict on the point estimate alone is a coin toss where the sample is small. Here a limit is kept if the one-sided
95 % confidence limit lies within it, missed if that of the other side lies beyond it, and "not shown" in between. So of
variants that lose exactly as much as is allowed, at most one in twenty passes: a test of non-inferiority.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from edgevit.bundle.manifest import LimitOutcome
from edgevit.evaluation.bootstrap import ImageFigure, Sums, bca_interval
from edgevit.numerals import exactly

#: The normal distribution's quantile of the one-sided level of 95 %.
_Z = 1.6448536269514722
#: More images than this are not asked for: the difference is on the limit, for all that can be shown.
_MOST_IMAGES = 10_000_000
#: Of fewer images a bootstrap shows nothing: it knows only the values that it has seen.
LEAST_IMAGES = 30
#: Float32 is sure of an image if its two largest probabilities are so far apart; nearer ones are coin tosses.
SURE_MARGIN = 0.1


class Evidence(NamedTuple):
    """What is shown of one limit, and why, in a line; ``needed`` images or seconds would show it, None if unknown."""

    word: LimitOutcome
    reason: str
    needed: float | None = None


def drop_evidence(lost: int, gained: int, images: int, max_drop: float, *, what: str = "top-1") -> Evidence:
    """Return what ``images`` show of a loss of top-1, or of ``what``, of at most ``max_drop`` percentage points.

    ``lost`` of them only float32 has right, ``gained`` only the variant. The test is Tango's score test of a difference
    of paired proportions (Tango 1998, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design"), which keeps its level for few images, too.

    Raises:
        ValueError: if the counts are not those of so many images.

    """
    if min(lost, gained) < 0 or lost + gained > images or images < 1:
        raise ValueError(f"{lost} and {gained} of {images} images are no counts")
    low, high = drop_interval(lost, gained, images)
    said = (
        f"{what} changed by {_points((gained - lost) / images)} points, {_points(-high)} to {_points(-low)} (one-sided "
        f"95 % limits); a loss of {exactly(max_drop)} is allowed"
    )

    def decided(count: int) -> bool:
        share = count / images
        return not _tango(lost * share, gained * share, count, max_drop / 100) ** 2 < _Z * _Z

    return _at_most(said, (low, high), max_drop / 100) or _not_shown(said, decided, images)


def drop_interval(lost: float, gained: float, images: float, *, confidence: float = 0.90) -> tuple[float, float]:
    """Return the interval of the loss of top-1, in -1..1, by Tango's score test.

    That of 90 % has the two one-sided limits of 95 %.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low = _root(lambda drop: _tango(lost, gained, images, drop) - z, -1.0, 1.0)
    high = _root(lambda drop: _tango(lost, gained, images, drop) + z, -1.0, 1.0)
    return low, high


def flips_evidence(flips: int, sure: int, images: int, max_drop: float) -> Evidence:
    """Return what images without labels show of a loss of at most ``max_drop`` points, by those float32 is ``sure`` of.

    Top-1 falls by no more than the share of images whose answer ``flips``. Where float32's two best answers are near
    one another either may be right, and a flip shows nothing. The limits are Wilson's, one-sided.
    """
    if not sure:
        return Evidence("not shown", f"float32 is sure of none of {images} images: give images of what it was made for")
    low, high = _one_sided(flips, sure)
    said = (
        f"no labels; of {sure} images (of {images}) that float32 is sure of, {flips} flip: {100 * low:.2f} to "
        f"{100 * high:.2f} % (one-sided 95 % limits); {exactly(max_drop)} are allowed"
    )

    def decided(count: int) -> bool:
        return _at_most(said, _one_sided(flips / sure * count, count), max_drop / 100) is not None

    return _at_most(said, (low, high), max_drop / 100) or _not_shown(said, decided, sure, each=images / sure)


def figure_evidence(
    found: ImageFigure, what: str, *, least: float | None = None, most: float | None = None, worst: float = 0.0
) -> Evidence:
    """Return what images show of a figure that is to be at ``least``, or at ``most``, so much.

    The limits are those of ``bootstrap.bca_interval``. Where all images are alike, a bootstrap takes all others to be
    so, too. Then a figure that is to be at ``least`` so much has the lower limit that it has if a share of all images
    is at ``worst`` which as many as these fail to show once in twenty times (Clopper and Pearson 1934).

    Raises:
        ValueError: if neither is given, or there are no images.

    """
    limit = least if least is not None else most
    if limit is None:
        raise ValueError("there is no limit to show anything of")
    images = len(found.parts)
    low, high = bca_interval(found)
    alike = low == high and least is not None
    if alike:
        unseen = 1 - 0.05 ** (1 / images)
        low -= unseen * (low - worst)
    wanted = f"at least {exactly(limit)} is wanted" if least is not None else f"{exactly(limit)} is allowed"
    said = f"{what} {found.value:.5g}, {low:.5g} to {high:.5g} (one-sided 95 % limits); {wanted}"
    if alike and low < limit < found.value:
        needed = math.ceil(math.log(0.05) / math.log((limit - worst) / (found.value - worst)))
        needed = max(needed, LEAST_IMAGES)
        return Evidence("not shown", f"{said}: about {needed} images like these would show it", needed)
    if images < LEAST_IMAGES:
        return Evidence("not shown", f"{said}: {images} images are too few, {LEAST_IMAGES} might do", LEAST_IMAGES)
    shown = (_at_most if least is None else _at_least)(said, (low, high), limit)
    if shown is not None:
        return shown
    distance = abs(found.value - limit)
    needed = math.ceil(images * ((high - low) / 2 / distance) ** 2) if distance else _MOST_IMAGES
    if needed >= _MOST_IMAGES:
        return Evidence("not shown", f"{said}: it is on the limit")
    needed = max(needed, images + 1)
    return Evidence("not shown", f"{said}: about {needed} images like these would show it", needed)


def mean_of(values: Sums) -> ImageFigure:
    """Return the mean of ``values`` (N,), one for each image, as what limits are found of."""
    return ImageFigure(np.stack([values, np.ones_like(values)], axis=1), ratio)


def ratio(sums: Sums) -> Sums:
    """Return the first of two sums (R, 2) over the second; 1 where that is nothing: all of nothing is right."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.ones(len(sums)), where=sums[:, 1] > 0)


def speed_evidence(speedup: float, interval: tuple[float, float], least: float, seconds: float) -> Evidence:
    """Return what a measurement of so many ``seconds`` shows of a speed-up over float32 of at least ``least``.

    ``interval`` is the 95 % interval of the median ratio; its width falls with the root of the time.
    """
    low, high = interval
    said = f"{speedup:.2f}x float32's speed ({low:.2f} to {high:.2f}), at least {exactly(least)} wanted"
    if (shown := _at_least(said, interval, least)) is not None:
        return shown
    return _not_shown_in(said, abs(speedup - least), high - low, seconds)


def energy_evidence(mj: float, interval: tuple[float, float], most: float, seconds: float) -> Evidence:
    """Return what a measurement of so many ``seconds`` shows of at most ``most`` mJ for an inference, above idle.

    ``interval`` is its 95 % interval, which narrows as that of a speed-up does.
    """
    low, high = interval
    said = f"{mj:.4g} mJ above idle ({low:.4g} to {high:.4g}), {exactly(most)} allowed"
    return _at_most(said, interval, most) or _not_shown_in(said, abs(mj - most), high - low, seconds)


def _not_shown_in(said: str, distance: float, width: float, seconds: float) -> Evidence:
    """Return that so many ``seconds`` show nothing, with those that would: widths fall with the root of the time."""
    needed = seconds * (width / 2 / distance) ** 2 if distance else math.inf
    if needed > 3600 or needed <= seconds:
        return Evidence("not shown", f"{said}: it is on the limit")
    return Evidence("not shown", f"{said}: --duration {math.ceil(needed)} would show it", needed)


def _at_most(said: str, interval: tuple[float, float], most: float) -> Evidence | None:
    """Return what an interval shows of a figure that is to be at most ``most``; None if it holds the limit."""
    low, high = interval
    return Evidence("passed", said) if high <= most else Evidence("failed", said) if low > most else None


def _at_least(said: str, interval: tuple[float, float], least: float) -> Evidence | None:
    """Return what an interval shows of a figure that is to be at least ``least``; None if it holds the limit."""
    low, high = interval
    return Evidence("passed", said) if low >= least else Evidence("failed", said) if high < least else None


def _not_shown(said: str, decided: Callable[[int], bool], images: int, *, each: float = 1.0) -> Evidence:
    """Return that nothing is shown, with the number of images that would do if they were like those that were seen.

    ``each`` is how many images must be given for one that counts.
    """
    high = images
    while high < _MOST_IMAGES and not decided(high):
        high *= 2
    if not decided(high):
        return Evidence("not shown", f"{said}: the loss is on the limit, for all that images can show")
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    needed = math.ceil(high * each)
    return Evidence("not shown", f"{said}: about {needed} images like these would show it", needed)


def _tango(lost: float, gained: float, images: float, drop: float) -> float:
    """Return the score statistic of a loss of ``drop`` in -1..1: how many standard errors more was seen."""
    half = -lost - gained + (2 * images - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, half * half - 8 * images * constant))
    share = max(0.0, (root - half) / (4 * images))  # of images that only the variant has right, if ``drop`` holds
    variance = images * (2 * share + drop * (1 - drop))
    difference = lost - gained - images * drop
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _one_sided(successes: float, trials: float) -> tuple[float, float]:
    """Return Wilson's two one-sided 95 % limits of a rate."""
    rate, spread = successes / trials, _Z * _Z / trials
    half = _Z / trials * math.sqrt(trials * rate * (1 - rate) + _Z * _Z / 4) / (1 + spread)
    centre = (rate + spread / 2) / (1 + spread)
    return (max(0.0, centre - half) if successes else 0.0), (min(1.0, centre + half) if successes < trials else 1.0)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where ``function``, which falls from ``low`` to ``high``, is zero."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
