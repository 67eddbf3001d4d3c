"""What a model gives for an image where that is not one row of logits or features: several outputs, named and typed.

An engine's answer is one row of numbers for each image all the same: that of all outputs, flattened, one after the
other. Here is which of the row belongs to what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

#: What an output is, by which it is measured:
#:
#: - ``logits``: classes on the last axis; ``embedding``: one vector for an image.
#: - ``tokens``: one vector for each patch (N, D); ``features``: the same as a map (D, H, W).
#: - ``depth``: one number for each pixel; ``segmentation``: classes (C, H, W), or one that is yes or no.
#: - ``boxes``: (Q, 4), centre and size; ``corners``: (Q, 4), two corners; ``scores``: logits (Q, C) of such boxes.
#: - ``any``: numbers that mean anything else.
OutputKind = Literal[
    "logits", "embedding", "tokens", "features", "depth", "segmentation", "boxes", "corners", "scores", "any"
]
#: What makes probabilities of logits: of all together, of which one is true, or of each by itself.
OutputActivation = Literal["softmax", "sigmoid"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)
#: One vector for each of several places.
TOKEN_KINDS: tuple[OutputKind, ...] = ("tokens", "features")
BOX_KINDS: tuple[OutputKind, ...] = ("boxes", "corners")

#: Numbers for one image, of all outputs: a manifest may be hostile.
MOST_NUMBERS = 1 << 26
_MOST_AXES = 8
_LABELS_SHOWN = 3
LONGEST_NAME = 200

_OutputName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_./:\[\]-]+\Z", max_length=LONGEST_NAME)]
_OriginalName = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
_AxisSize = Annotated[int, msgspec.Meta(ge=1, le=MOST_NUMBERS)]
_Dim = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]+\Z", max_length=32)]


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One output of a model: what it is called in the graph, what it is, and its ``shape`` for one image.

    ``dims`` name the axes of ``shape``. ``block`` is the block of a ViT that it comes from, counted from 0, where it is
    not the last; ``normalized`` says whether the model's last LayerNorm was applied to tokens or features, None where
    that is not known. One row of logits may have ``labels``, one for each, of a single one those of no and yes;
    ``activation`` makes probabilities of them, for a single one it is the sigmoid. ``original_name`` is what the file
    that the model came as calls it, where that is no plain name.
    """

    name: _OutputName
    kind: OutputKind
    shape: Annotated[tuple[_AxisSize, ...], msgspec.Meta(min_length=1, max_length=_MOST_AXES)]
    dims: tuple[_Dim, ...]
    dtype: Literal["float32"] = "float32"
    block: int | None = None
    normalized: bool | None = None
    labels: tuple[str, ...] = ()
    activation: OutputActivation = "softmax"
    original_name: _OriginalName | None = None

    def __post_init__(self) -> None:
        if len(self.dims) != len(self.shape):
            raise ValueError(f"the output {self.name} has {len(self.shape)} axes and {len(self.dims)} names for them")
        if self.labels and (not self.is_row_of_logits or len(self.labels) != max(2, self.size)):
            raise ValueError(f"the output {self.name} has {len(self.labels)} labels and is {self.kind} {self.shape}")
        if self.original_name is not None and not self.original_name.isprintable():
            raise ValueError(f"the original name of the output {self.name} cannot be printed")

    @property
    def is_row_of_logits(self) -> bool:
        """Whether it says of an image what is on it: one logit for each class."""
        return self.kind == "logits" and len(self.shape) == 1

    @property
    def independent(self) -> bool:
        """Whether each of its logits is a decision of its own."""
        return self.size == 1 or self.activation == "sigmoid"

    @property
    def size(self) -> int:
        """How many numbers it has for one image."""
        return prod(self.shape)

    def in_words(self) -> str:
        """Return its name, kind and shape, such as ``tokens: tokens (patches 256, width 384)``."""
        axes = ", ".join(f"{dim} {size}" for dim, size in zip(self.dims, self.shape, strict=True))
        norm = {None: "", True: ", after the last norm", False: ", before the last norm"}[self.normalized]
        more = ", ..." if len(self.labels) > _LABELS_SHOWN else ""
        labels = f", labels {', '.join(self.labels[:_LABELS_SHOWN])}{more}" if self.labels else ""
        original = "" if self.original_name is None else f", in the file given '{self.original_name}'"
        return f"{self.name}: {self.kind} ({axes}){norm}{labels}{original}"


_DIMS: dict[OutputKind, tuple[str, ...]] = {
    "logits": ("classes",),
    "embedding": ("width",),
    "tokens": ("patches", "width"),
    "features": ("width", "rows", "columns"),
    "segmentation": ("classes", "height", "width"),
    "boxes": ("queries", "box"),
    "corners": ("queries", "box"),
    "scores": ("queries", "classes"),
}


def dims_of(kind: OutputKind, shape: Sequence[int]) -> tuple[str, ...]:
    """Return names for the axes of an output of ``kind``; of what is not known, ``axis1`` and so on."""
    if kind == "depth":
        return ("depth", "height", "width")[3 - len(shape) :] if len(shape) in (2, 3) else _unknown(shape)
    known = _DIMS.get(kind, ())
    if kind == "logits" and len(shape) > 1:
        return (*_unknown(shape[:-1]), "classes")
    return known if len(known) == len(shape) else _unknown(shape)


def _unknown(shape: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"axis{place}" for place in range(1, len(shape) + 1))


def width_of(outputs: Sequence[Output]) -> int:
    """Return how many numbers all of them have for one image."""
    return sum(output.size for output in outputs)


def parts(outputs: Sequence[Output], rows: NDArray[np.float32]) -> Iterator[tuple[Output, NDArray[np.float32]]]:
    """Yield each output with its part (B, *shape) of ``rows`` (B, width), without a copy."""
    start = 0
    for output in outputs:
        part = rows[:, start : start + output.size]
        start += output.size
        yield output, part.reshape(len(rows), *output.shape)


def labelled(outputs: Sequence[Output]) -> Output | None:
    """Return the one of ``outputs`` that says of an image what is on it, by labels; None if there is none."""
    return next((output for output in outputs if output.labels), None)


def in_words(outputs: Sequence[Output]) -> str:
    """Return the names of ``outputs``, for a message."""
    return ", ".join(output.name for output in outputs)
