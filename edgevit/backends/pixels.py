"""Models that take uint8 pixels (B, H, W, C), and normalise them themselves: what all engines share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, GraphError
from edgevit.json import JSONError, decode

#: What the setting INPUT may be: preprocessed images, as everywhere in EdgeViT, or pixels.
IMAGES: Final = "float32-nchw"
PIXELS: Final = "uint8-nhwc"
INPUTS: Final = (IMAGES, PIXELS)

_BUILD_AGAIN = "build this variant again"


def read_note(text: str | None, name: str, kind: Any) -> Any:  # noqa: ANN401 - whatever ``kind`` is
    """Return what an exported file says of its ``name``, as ``graph.torch_export`` wrote it; None without a text.

    Raises:
        GraphError: if that cannot be understood, or contradicts itself.

    """
    if text is None:
        return None
    try:
        return decode(text, kind)
    except JSONError as error:
        raise GraphError(
            f"the model's own note on its {name} cannot be understood: {error}", remedy="export the model again"
        ) from error


def to_be_normalised(text: str | None, model: Path) -> Preprocess:
    """Return how the file ``model``, whose note on its preprocessing is ``text``, would normalise pixels itself.

    Raises:
        GraphError: if it does not say so.

    """
    preprocess: Preprocess | None = read_note(text, "preprocess", Preprocess)
    if preprocess is None:
        raise GraphError(
            f"{model} does not say how its images are normalised, so that it could do it itself",
            remedy=f"export the model again, or leave INPUT {IMAGES}",
        )
    return preprocess


def normalised_by(text: str | None, model: Path) -> Preprocess:
    """Return how the file ``model``, which takes pixels, normalises them; ``text`` is its note on that.

    Raises:
        BundleError: if it does not say so.

    """
    try:
        preprocess: Preprocess | None = read_note(text, "preprocess", Preprocess)
    except GraphError as error:
        raise BundleError(f"{model}: {error.message}", remedy=_BUILD_AGAIN) from error
    if preprocess is None:
        raise BundleError(f"{model} does not say how it normalises its pixels", remedy=_BUILD_AGAIN)
    return preprocess


def shape_of_images(taken: Sequence[int | None], preprocess: Preprocess | None, model: Path) -> list[int | None]:
    """Return the shape (B, C, H, W) of the images that go into the file ``model``; None is any size.

    ``taken`` is the shape that it takes, which is (B, H, W, C) where it normalises them by ``preprocess`` itself.

    Raises:
        BundleError: if that contradicts the preprocessing.

    """
    if preprocess is None:
        return list(taken)
    wanted = (*preprocess.size, preprocess.channels)
    if len(taken) != 1 + len(wanted) or any(
        size not in (None, known) for size, known in zip(taken[1:], wanted, strict=True)
    ):
        raise BundleError(f"{model} takes pixels {tuple(taken)}, and says {wanted} of them", remedy=_BUILD_AGAIN)
    return [taken[0], preprocess.channels, *preprocess.size]


def as_taken(images: NDArray[np.float32], preprocess: Preprocess | None) -> NDArray[Any]:
    """Return what a model takes for ``images`` (B, C, H, W): the pixels that they were made of by ``preprocess``."""
    return np.ascontiguousarray(images) if preprocess is None else preprocess.pixels(images)
