"""What goes between ``edgevit pack`` and the process that converts, and the files that both know."""

from __future__ import annotations

import msgspec

from edgevit.mobile import HandedPrecision, MobileFormat

#: Names in the folder that the worker works in: the graph, images that answers are wanted for, those to calibrate with,
#: and the answers (images, numbers) of each precision.
MODEL, IMAGES, CALIBRATION, ANSWERS = "model.onnx", "images.npy", "calibration.npy", "answers-{}.npy"


class ConversionJob(msgspec.Struct, frozen=True, tag=True):
    """Convert to ``format``, and quantize with so many images; with none it stays in float32."""

    format: MobileFormat
    calibration: int = 0


class ConvertedModel(msgspec.Struct, frozen=True):
    """A model that was written: in which precision, and the file or folder that an app opens, in the worker's."""

    precision: HandedPrecision
    model: str


class ConversionMade(msgspec.Struct, frozen=True, tag=True):
    """What was written, and with which versions of which packages."""

    models: tuple[ConvertedModel, ...]
    packages: dict[str, str]


class ConversionRefused(msgspec.Struct, frozen=True, tag=True):
    """Why nothing was: the graph, or for want of a package that is ``missing``."""

    message: str
    remedy: str
    missing: bool = False
