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
    """Compare a variant's ``logits`` (images, classes) for the golden images with float32's.

    With ``classes`` 0 they are an embedding model's features, of which the largest means nothing; with ``independent``
    logits each is a decision of its own. Of a model with ``outputs`` a row has all of them, and each is compared.

    Raises:
        VerificationError: if they differ by more than the precision explains.

    """
    if logits.shape != expected.shape:
        raise _failure(f"logits have shape {logits.shape} instead of {expected.shape}")
    if not np.isfinite(logits).all():
        raise _failure("logits are not finite numbers")
    if outputs:
        _verify_outputs(logits, expected, outputs, precision)
        return
    if precision == "float32":
        # Within the tolerance, top-1 can only differ where float32 itself is undecided.
        difference = float(np.abs(logits - expected).max())
        if not difference <= FLOAT32_TOLERANCE:
            raise _failure(f"logits differ by {difference:.2g}, more than {FLOAT32_TOLERANCE:g}")
        return
    bound = BOUNDS[precision]
    cosine = _cosine(logits, expected, centred=classes > 0 and not independent)
    if not cosine >= bound.cosine:
        raise _failure(f"logits have a cosine of {cosine:.3f} with float32's, less than {bound.cosine:g}")
    share = agreement(expected, logits, independent=independent)
    if classes and share < bound.agreement:
        whose = "float32's" if independent else "float32's class"
        raise _failure(f"only {share:.0%} of {'the decisions are' if independent else 'them get'} {whose}")


def _verify_outputs(
    rows: NDArray[np.float32], expected: NDArray[np.float32], outputs: Sequence[Output], precision: Precision
) -> None:
    pairs = zip(parts(outputs, rows), parts(outputs, expected), strict=True)
    for (output, found), (_, wanted) in pairs:
        largest, difference = float(np.abs(wanted).max()), float(np.abs(found - wanted).max())
        if precision == "float32":
            if not difference <= FLOAT32_TOLERANCE * max(1.0, largest):
                raise _failure(f"{output.name} differs by {difference:.2g}, where {largest:.2g} is its largest number")
            continue
        bound = BOUNDS[precision]
        flat = [part.reshape(len(part), -1) for part in (found, wanted)]
        cosine = _cosine(flat[0], flat[1], centred=False)
        if not cosine >= bound.cosine and float(np.abs(found - wanted).mean()) > _NEXT_TO_NOTHING:
            raise _failure(f"{output.name} has a cosine of {cosine:.3f} with float32's, less than {bound.cosine:g}")


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32], *, centred: bool) -> float:
    """Return the cosine between all values; ``centred`` takes off the mean of a row, which softmax does not see."""
    flat = [(rows - rows.mean(axis=1, keepdims=True) * centred).astype(np.float64).ravel() for rows in (one, other)]
    norms = float(np.linalg.norm(flat[0]) * np.linalg.norm(flat[1]))
    return float(flat[0] @ flat[1]) / norms if norms > 0 else float(np.array_equal(*flat))


def _failure(reason: str) -> VerificationError:
    return VerificationError(
        f"the model answers to the golden images otherwise than when it was exported: {reason}",
        remedy="load the variant 'float32', or quantize and build again for this machine",
    )
