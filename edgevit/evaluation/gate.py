"""The verdict on a variant: may it take float32's place?"""

from __future__ import annotations

from typing import NamedTuple

#: Percentage points of top-1 that a variant may lose, unless the user says otherwise.
MAX_DROP = 0.5

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


def _change(points: float) -> str:
    if points == 0:
        return "did not change"
    return f"{'fell' if points < 0 else 'rose'} {abs(points):.2f} points"
