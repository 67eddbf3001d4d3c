"""The verdict on a variant: may it take float32's place?"""

from __future__ import annotations

import math
from typing import NamedTuple

from edgevit.errors import InputError

#: Percentage points of top-1 that a variant may lose, unless the user says otherwise.
MAX_DROP = 0.5
#: Mean cosine similarity with float32's features that an embedding model's variant must reach, likewise.
MIN_COSINE = 0.99

_ROUNDING = 1e-9


class Verdict(NamedTuple):
    """Whether the gate lets a variant through, and why, in one line."""

    passed: bool
    reason: str


def judge(*, delta_top1: float | None, agreement: float, finite: bool, max_drop: float = MAX_DROP) -> Verdict:
    """Judge a variant by its change of top-1, or without labels by its agreement with float32.

    ``delta_top1`` and ``agreement`` are rates in 0..1, ``max_drop`` percentage points; ``finite`` says whether all
    logits were finite numbers. Top-1 cannot fall by more than the share of images on which the two disagree, whatever
    the labels are. So without labels, the only verdict that holds for certain is to ask that this share is at most
    ``max_drop``: strict, and the reason says what labels or which limit would help.
    """
    if not finite:
        return Verdict(passed=False, reason="some logits are not finite numbers")
    if delta_top1 is not None:
        points = 100 * delta_top1
        change = f"top-1 {_change(points)}"
        passed = points >= -max_drop - _ROUNDING
        return Verdict(passed, f"{change}, {max_drop:.4g} allowed" if points < 0 else change)
    disagreement = 100 * (1 - agreement)
    bound = f"no labels; {disagreement:.2f} % of answers differ, so top-1 fell by that many points at most"
    if disagreement <= max_drop + _ROUNDING:
        return Verdict(passed=True, reason=f"{bound}, {max_drop:.4g} allowed")
    return Verdict(
        passed=False, reason=f"{bound}, {max_drop:.4g} allowed: give labelled images, or a larger --max-drop"
    )


def judge_embedding(*, cosine: float, finite: bool, min_cosine: float = MIN_COSINE) -> Verdict:
    """Judge a variant of an embedding model by its mean ``cosine`` similarity with float32's features, in -1..1.

    ``finite`` says whether all features were finite numbers. Who uses the features decides how near they must be, and
    needs no labels for it: this is why the cosine decides, and not what a nearest neighbour is called.
    """
    if not finite:
        return Verdict(passed=False, reason="some features are not finite numbers")
    passed = cosine >= min_cosine - _ROUNDING
    said = f"mean cosine {floored(cosine)} with float32"
    return Verdict(passed, said if passed else f"{said}, at least {min_cosine:.4g} wanted")


def check_limits(*, classes: int, max_drop: float | None, min_cosine: float | None) -> None:
    """Check that the user has given no limit that means nothing for a model of ``classes``; 0: an embedding model.

    Raises:
        InputError: if it is the other kind of model's.
    """
    if classes and min_cosine is not None:
        raise InputError(
            f"--min-cosine is for embedding models, and this one has {classes} classes",
            remedy=f"say how much top-1 may fall: --max-drop {MAX_DROP:g}",
        )
    if not classes and max_drop is not None:
        raise InputError(
            "--max-drop is for classifiers, and this model gives features: it has no top-1 to lose",
            remedy=f"say how near the features must be to float32's: --min-cosine {MIN_COSINE:g}",
        )


def floored(cosine: float) -> str:
    """Return a cosine with four digits, never rounded up: one that misses a limit must not look as if it met it."""
    return f"{math.floor(cosine * 1e4 + 1e-6) / 1e4:.4f}"


def _change(points: float) -> str:
    if points == 0:
        return "did not change"
    return f"{'fell' if points < 0 else 'rose'} {abs(points):.2f} points"
