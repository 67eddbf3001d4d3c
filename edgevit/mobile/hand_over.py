"""``edgevit.json``: what an app must know of a model that was handed over, and how it was checked."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgevit.brief import printed
from edgevit.bundle.manifest import File
from edgevit.data.preprocess import Preprocess
from edgevit.mobile import HandedPrecision, MobileFormat, Rewrite
from edgevit.models.licenses import License
from edgevit.models.outputs import Output
from edgevit.models.spec import OutputActivation

SIDECAR = "edgevit.json"
SCHEMA_VERSION = 1


class AnswerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a converted model answers, executed here, beside float32's answers in the bundle.

    ``tolerance`` says in words what passes on the ``golden_images``; ``difference`` is the largest of a number,
    ``cosine`` and ``agreement`` are as ``edgevit verify`` has them. The others are on ``images`` of the data set that
    were not calibrated with, as far as there were such: the share with float32's class, and the SQNR of all numbers.
    """

    tolerance: str
    golden_images: int
    difference: float | None
    cosine: float | None
    agreement: float | None
    images: int = 0
    images_agreement: float | None = None
    images_sqnr_db: float | None = None


class HandedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model: the file or folder that an app opens, all its files, and its check; None if nothing here runs it."""

    precision: HandedPrecision
    model: str
    files: tuple[File, ...]
    check: AnswerCheck | None

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What the model takes: one image, prepared as ``preprocess`` says, channels first."""

    shape: tuple[int, ...]
    preprocess: Preprocess
    dtype: Literal["float32"] = "float32"
    layout: Literal["NCHW"] = "NCHW"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The images that ranges come from."""

    data: str
    images: int
    sha256: str


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``rewrites`` are changes to the graph before it was converted, which leave its answers as they are."""

    schema_version: int = SCHEMA_VERSION
    format: MobileFormat
    name: str
    edgevit: str
    tools: dict[str, str]
    weights_sha256: str
    float32_sha256: str
    license: License | None
    rewrites: tuple[Rewrite, ...]
    calibration: Calibration | None
    input: Input
    labels: tuple[str, ...]
    activation: OutputActivation
    outputs: tuple[Output, ...]
    models: tuple[HandedModel, ...]

    __repr__ = printed
