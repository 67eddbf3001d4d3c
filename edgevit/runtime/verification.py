"""Checks, on the device, that a loaded variant still answers as the float32 model did where it was exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Precision
from edgevit.errors import VerificationError
from edgevit.models.outputs import Output, parts
from edgevit.statistics import agreement

Check = Literal["golden", "files"]
"""What is checked when a bundle is loaded: the files and the answers to the golden images, or the files alone."""

#: Largest difference of a logit between float32 on two machines: they add up in different orders.
FLOAT32_TOLERANCE = 1e-3
#: Mean distance of an output's numbers that says nothing, whatever the angle: a map of probabilities that are near 0.
_NEXT_TO_NOTHING = 1e-3


class GoldenFigures(NamedTuple):
    """How a variant answers to the golden images, against float32 where it was exported.

    ``difference`` is the largest of a number; ``cosine`` between all of them and ``agreement`` of decisions are None
    for float32, where only the difference counts, and agreement where there are no classes. Those of a model with
    several outputs are of the worst one. ``problem`` says what is too far off; None if nothing is. ``tolerance`` is
    what is allowed, in words.
    """

    difference: float | None
    cosine: float | None
    agreement: float | None
    tolerance: str
    problem: str | None


class Bound(NamedTuple):
    """What a variant of lower precision must reach on the golden images.

    Loose, because they are few: this finds damage, such as kernels that overflow on another processor; how accurate a
    variant is, ``edgevit validate`` measures. Static INT8 with 10 dB of signal to noise has a cosine of 0.95.
    """

    cosine: float
    agreement: float


BOUNDS: dict[Precision, Bound] = {
    "fp16": Bound(0.99, 0.5),
    "fp8": Bound(0.9, 0.5),
    "int8": Bound(0.9, 0.5),
    "int8-dynamic": Bound(0.9, 0.5),
    "int8-weights": Bound(0.9, 0.5),
    "int4-weights": Bound(0.8, 0.25),
}


def verify_golden(
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    precision: Precision,
    classes: int,
    independent: bool = False,
    outputs: Sequence[Output] = (),
) -> None:
    """Compare a variant's ``logits`` (images, classes) for the golden images with float32's; see ``golden_figures``.

    Raises:
        VerificationError: if they differ by more than the precision explains.

    """
    found = golden_figures(
        logits, expected, precision=precision, classes=classes, independent=independent, outputs=outputs
    )
    if found.problem is not None:
        raise differs(found.problem)


def differs(problem: str) -> VerificationError:
    """Return the error that says what ``problem`` a variant's answers to the golden images have."""
    return VerificationError(
        f"the model answers to the golden images otherwise than when it was exported: {problem}",
        remedy="load the variant 'float32', or quantize and build again for this machine",
    )


def golden_figures(
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    precision: Precision,
    classes: int,
    independent: bool = False,
    outputs: Sequence[Output] = (),
) -> GoldenFigures:
    """Compare a variant's ``logits`` (images, classes) for the golden images with float32's.

    With ``classes`` 0 they are an embedding model's features, of which the largest means nothing; with ``independent``
    logits each is a decision of its own. Of a model with ``outputs`` a row has all of them, and each is compared.
    """
    tolerance = tolerance_of(precision, classes=classes, independent=independent, outputs=bool(outputs))
    if logits.shape != expected.shape:
        problem = f"logits have shape {logits.shape} instead of {expected.shape}"
        return GoldenFigures(None, None, None, tolerance, problem)
    if not np.isfinite(logits).all():
        return GoldenFigures(None, None, None, tolerance, "logits are not finite numbers")
    if outputs:
        return _figures_of_outputs(logits, expected, outputs, precision, tolerance)
    difference = float(np.abs(logits - expected).max())
    if precision == "float32":
        # Within the tolerance, top-1 can only differ where float32 itself is undecided.
        problem = f"logits differ by {difference:.2g}, more than {FLOAT32_TOLERANCE:g}"
        return GoldenFigures(difference, None, None, tolerance, None if difference <= FLOAT32_TOLERANCE else problem)
    bound = BOUNDS[precision]
    cosine = _cosine(logits, expected, centred=classes > 0 and not independent)
    share = agreement(expected, logits, independent=independent) if classes else None
    found = GoldenFigures(difference, cosine, share, tolerance, None)
    if not cosine >= bound.cosine:
        return found._replace(
            problem=f"logits have a cosine of {cosine:.3f} with float32's, less than {bound.cosine:g}"
        )
    if share is not None and share < bound.agreement:
        whose = "float32's" if independent else "float32's class"
        return found._replace(
            problem=f"only {share:.0%} of {'the decisions are' if independent else 'them get'} {whose}"
        )
    return found


def tolerance_of(precision: Precision, *, classes: int, independent: bool, outputs: bool) -> str:
    """Return in words what a variant's answers to the golden images may be off."""
    if precision == "float32":
        largest = ", or of an output's largest number" if outputs else ""
        return f"a difference of at most {FLOAT32_TOLERANCE:g}{largest}"
    bound = BOUNDS[precision]
    decided = "of the decisions" if independent else "of the images get float32's class"
    share = f", and at least {bound.agreement:.0%} {decided}" if classes else ""
    return f"a cosine of at least {bound.cosine:g}{share}"


def _figures_of_outputs(
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    outputs: Sequence[Output],
    precision: Precision,
    tolerance: str,
) -> GoldenFigures:
    differences, cosines, problems = [], [], []
    for (output, found), (_, wanted) in zip(parts(outputs, logits), parts(outputs, expected), strict=True):
        largest, difference = float(np.abs(wanted).max()), float(np.abs(found - wanted).max())
        differences.append(difference)
        if precision == "float32":
            if not difference <= FLOAT32_TOLERANCE * max(1.0, largest):
                problems.append(f"{output.name} differs by {difference:.2g}, where {largest:.2g} is its largest number")
            continue
        bound = BOUNDS[precision]
        flat = [part.reshape(len(part), -1) for part in (found, wanted)]
        cosines.append(_cosine(flat[0], flat[1], centred=False))
        if not cosines[-1] >= bound.cosine and float(np.abs(found - wanted).mean()) > _NEXT_TO_NOTHING:
            problems.append(
                f"{output.name} has a cosine of {cosines[-1]:.3f} with float32's, less than {bound.cosine:g}"
            )
    problem = problems[0] if problems else None
    return GoldenFigures(max(differences), min(cosines, default=None), None, tolerance, problem)


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32], *, centred: bool) -> float:
    """Return the cosine between all values; ``centred`` takes off the mean of a row, which softmax does not see."""
    flat = [(rows - rows.mean(axis=1, keepdims=True) * centred).astype(np.float64).ravel() for rows in (one, other)]
    norms = float(np.linalg.norm(flat[0]) * np.linalg.norm(flat[1]))
    return float(flat[0] @ flat[1]) / norms if norms > 0 else float(np.array_equal(*flat))
