"""The gate: whether a variant may replace float32."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from edgevit.bundle.manifest import INTEGER_PRECISIONS, Precision
from edgevit.errors import InputError
from edgevit.numerals import ROUNDING, exactly, floored, within

#: Percentage points of top-1 that a variant may lose, unless the user says otherwise.
MAX_DROP = 0.5
#: Mean cosine similarity with float32's features that an embedding model's variant must reach, likewise.
MIN_COSINE = 0.99
#: dB of logits over their distance from float32's, where decisions show nothing: noise is a tenth of the way to the
#: threshold, which is at a logit of 0.
MIN_DISTANCE_DB = 20.0


class GateVerdict(NamedTuple):
    """Whether the gate lets a variant through, and why, in one line."""

    passed: bool
    reason: str


def top1_verdict(
    *, delta_top1: float | None, agreement: float, finite: bool, max_drop: float = MAX_DROP, images: int | None = None
) -> GateVerdict:
    """Return the verdict on a variant by its change of top-1, or without labels by its agreement with float32.

    ``delta_top1`` and ``agreement`` are rates in 0..1, ``max_drop`` percentage points; ``finite`` says whether all
    logits were finite numbers. Where one of the labelled ``images`` is more than may be lost, the reason says so. Top-1
    cannot fall by more than the share of images on which the two disagree, whatever the labels are. So without labels,
    the only verdict that holds for certain is to ask that this share is at most ``max_drop``: strict, and the reason
    says what labels or which limit would help.
    """
    if not finite:
        return GateVerdict(passed=False, reason="some logits are not finite numbers")
    if delta_top1 is not None:
        points = 100 * delta_top1
        change = f"top-1 {_change(points, max_drop)}"
        passed = points >= -max_drop - ROUNDING
        said = f"{change}, {exactly(max_drop)} allowed" if points < 0 else change
        return GateVerdict(passed, said if passed else said + _too_few(images, max_drop))
    disagreement = 100 * (1 - agreement)
    bound = f"no labels; {_lost(disagreement, max_drop)} % of answers differ, so top-1 fell by that many points at most"
    if disagreement <= max_drop + ROUNDING:
        return GateVerdict(passed=True, reason=f"{bound}, {exactly(max_drop)} allowed")
    return GateVerdict(
        passed=False, reason=f"{bound}, {exactly(max_drop)} allowed: give labelled images, or a larger --max-drop"
    )


def images_needed(images: int | None, max_drop: float | None) -> int | None:
    """Return on how many images one is no more than may be lost, ``max_drop`` in points; None if ``images`` will do."""
    if not images or not max_drop or 100 / images <= max_drop:
        return None
    return math.ceil(100 / max_drop)


def _too_few(images: int | None, max_drop: float) -> str:
    """Say so where one image more or less decides."""
    needed = images_needed(images, max_drop)
    if not images or needed is None:
        return ""
    return f": one of {images} images is {100 / images:.2f} points; validate on {needed} or more"


def decisions_verdict(
    *,
    delta: float | None,
    lost: float,
    alike: bool,
    distance_db: float,
    finite: bool,
    max_drop: float = MAX_DROP,
    delta_f1: float | None = None,
) -> GateVerdict:
    """Return the verdict on a variant whose logits decide one by one.

    ``delta`` is the change of the share of images decided rightly, and where an image may have several labels
    ``delta_f1`` that of the F1 of the yes decisions: the worse of both decides. Of many labels hardly an image is
    right in all, so that their share shows little. ``delta`` is None without labels; then ``lost`` decides, the
    share of float32's decisions that are lost: of images, or where an image may have several labels, 1 - F1 of the yes
    decisions, since most of all decisions are no. Both are in 0..1, ``max_drop`` in percentage points. Where float32
    decides all ``alike``, that shows nothing of a variant: its logits must then be ``MIN_DISTANCE_DB`` from float32's.
    """
    if not finite:
        return GateVerdict(passed=False, reason="some logits are not finite numbers")
    if delta is None:
        points, said = -100 * lost, f"no labels; {_lost(100 * lost, max_drop)} % of float32's decisions are lost"
        passed, most = points >= -max_drop - ROUNDING, ": give a larger --max-drop"
    else:
        points, said, most = 100 * delta, f"decided rightly {_change(100 * delta, max_drop)}", ""
        if delta_f1 is not None and delta_f1 < delta:
            points, said = 100 * delta_f1, f"F1 of the labels {_change(100 * delta_f1, max_drop)}"
        passed = points >= -max_drop - ROUNDING
    said += f", {exactly(max_drop)} allowed" if points < 0 else ""
    if not passed or not alike:
        return GateVerdict(passed, said if passed else said + most)
    near = distance_db >= MIN_DISTANCE_DB
    distance = "equal float32's" if math.isinf(distance_db) and near else f"are {distance_db:.1f} dB from float32's"
    wanted = "" if near else f", {MIN_DISTANCE_DB:g} wanted: give images of both kinds"
    return GateVerdict(
        near, f"float32 decides all of these images alike, which shows little; logits {distance}{wanted}"
    )


def embedding_verdict(*, cosine: float, finite: bool, min_cosine: float = MIN_COSINE) -> GateVerdict:
    """Return the verdict on an embedding model's variant by its features' mean ``cosine`` with float32's, in -1..1.

    ``finite`` says whether all features were finite numbers. Who uses the features decides how near they must be, and
    needs no labels for it: this is why the cosine decides, and not what a nearest neighbour is called.
    """
    if not finite:
        return GateVerdict(passed=False, reason="some features are not finite numbers")
    passed = cosine >= min_cosine - ROUNDING
    said = f"mean cosine {floored(cosine, min_cosine)} with float32"
    return GateVerdict(passed, said if passed else f"{said}, at least {exactly(min_cosine)} wanted")


def limit_option(classes: int) -> str:
    """Return what to type for the usual limit on a model of ``classes``; 0: an embedding model, or other outputs."""
    return f"--max-drop {MAX_DROP:g}" if classes else f"--min-cosine {MIN_COSINE:g}"


def check_limits(*, classes: int, max_drop: float | None, min_cosine: float | None, dense: bool = False) -> None:
    """Check that the user has given no limit that means nothing for a model of ``classes``; 0: an embedding model.

    On the outputs of a ``dense`` model others may decide: see ``output_limits``.

    Raises:
        InputError: if it is the other kind of model's.
    """
    if dense:
        return
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


def check_integer_share(least: float | None, precisions: Collection[Precision]) -> None:
    """Check that one of ``precisions`` has integers, if they are to be ``least`` of the multiply-adds.

    Raises:
        InputError: if none has.
    """
    if least is not None and not set(precisions) & set(INTEGER_PRECISIONS):
        several = len(precisions) > 1
        raise InputError(
            f"{' and '.join(precisions)} {'multiply' if several else 'multiplies'} in floating point: "
            f"{'they have' if several else 'it has'} no share of integers to reach",
            remedy=f"leave --min-integer-share out, or use --precision {' or '.join(INTEGER_PRECISIONS)}",
        )


def _change(points: float, max_drop: float) -> str:
    if points == 0:
        return "did not change"
    return f"fell {_lost(-points, max_drop)} points" if points < 0 else f"rose {points:.2f} points"


def _lost(points: float, max_drop: float) -> str:
    """Write how much is lost: what is more than is allowed does not look as if it were not."""
    return within(points, [max_drop] if points > max_drop + ROUNDING else [], 2)
