"""What lies behind a variant's accuracy: which classes, which images, and which step on the way to the engine.

It is kept beside the manifest, which has the figures alone: ``accuracy/VARIANT.json`` in a bundle, and the thumbnails
of images whose answer changed. All of it is bounded, whatever the data set.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from edgevit.brief import printed
from edgevit.bundle.scalars import Change, Count, FolderName, Rate, RelativePath, Sha256
from edgevit.evaluation.calibration_error import CalibrationError
from edgevit.json_file import JSONFile

#: The folder of a bundle that has them, and where the thumbnails lie in it.
FOLDER, THUMBNAILS = "accuracy", "thumbnails"

_NAMED = 3
MOST_CLASSES = 100
MOST_SHIFTS = 20
MOST_FLIPS = 24
#: A name of a class or an image is cut to this.
MOST_LETTERS = 200

_ShortName = Annotated[str, msgspec.Meta(max_length=MOST_LETTERS)]
_Decibels = Annotated[float, msgspec.Meta(ge=-1e4, le=1e4)]


class ClassChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class that a variant answers otherwise for: of ``images``, how many float32 and the variant have right.

    ``lost`` only float32 has right, ``gained`` only the variant. ``interval`` is of the change of the share that is
    right, in -1..1: Tango's two one-sided 95 % limits. ``p`` is McNemar's, and ``changed`` says whether it is small
    enough among all classes that have images enough to tell (Holm 1979), at 5 %.
    """

    label: _ShortName
    images: Count
    float32: Count
    variant: Count
    lost: Count
    gained: Count
    interval: tuple[Change, Change]
    p: Rate
    changed: bool


class ConfusionShift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mistake that grew: images of ``label`` that are taken for ``answer``, by float32 and by the variant."""

    label: _ShortName
    answer: _ShortName
    float32: Count
    variant: Count


class FlippedImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that float32 and a variant answer otherwise; ``label`` is the right answer, None where none is known.

    A margin says how sure each is: how far its two largest probabilities are apart. ``thumbnail`` is a file in
    ``THUMBNAILS``; None where none was kept.
    """

    image: _ShortName
    label: _ShortName | None
    float32: _ShortName
    variant: _ShortName
    float32_margin: Rate
    variant_margin: Rate
    thumbnail: RelativePath | None = None


class OutputDistance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far one model's outputs are from another's, on the same images.

    ``sqnr_db`` is of the worst output, None where there is no difference; ``kl`` in nats and the share of images with
    the same answer, ``agreement``, are None where there are no classes. ``finite`` says whether all numbers are.
    """

    finite: bool
    sqnr_db: _Decibels | None
    kl: float | None
    agreement: Rate | None


class EngineSteps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Float32, a variant's own ONNX in onnxruntime, and the engine that runs it, on the same few ``images``.

    ``onnx`` says in words what stands for the variant's ONNX; ``missing`` why nothing does, and then the other figures
    of it are None, or why nothing is judged by it.
    ``least_db`` is how far the engine must be from its ONNX; ``wrong`` says why it is not what it was built from, None
    if it is.
    """

    images: Count
    onnx: _ShortName | None = None
    missing: Annotated[str, msgspec.Meta(max_length=600)] | None = None
    onnx_to_float32: OutputDistance | None = None
    engine_to_onnx: OutputDistance | None = None
    engine_to_float32: OutputDistance
    least_db: _Decibels | None = None
    wrong: Annotated[str, msgspec.Meta(max_length=600)] | None = None


class AccuracyDetails(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``edgevit validate`` saw of a variant, whose first file had the SHA-256 ``file_sha256``.

    ``classes_measured`` have images, ``classes_judged`` of them enough to be called changed. ``flips_total`` images
    have another answer than float32's, ``flips`` are those of them that float32 is surest of. ``labelled`` says whether
    the right answers were known; where they were not, ``shifts`` are from float32's answers.
    """

    what: ClassVar[str] = "details of an accuracy"
    schema: ClassVar[int] = 1
    remedy: ClassVar[str] = "validate again: edgevit validate BUNDLE --data IMAGES"

    schema_version: int = schema
    variant: FolderName
    file_sha256: Sha256
    data_sha256: Sha256
    images: Count
    labelled: bool
    classes: Annotated[tuple[ClassChange, ...], msgspec.Meta(max_length=MOST_CLASSES)] = ()
    classes_measured: Count = 0
    classes_judged: Count = 0
    shifts: Annotated[tuple[ConfusionShift, ...], msgspec.Meta(max_length=MOST_SHIFTS)] = ()
    flips: Annotated[tuple[FlippedImage, ...], msgspec.Meta(max_length=MOST_FLIPS)] = ()
    flips_total: Count = 0
    calibration: CalibrationError | None = None
    float32_calibration: CalibrationError | None = None
    steps: EngineSteps | None = None

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return the short of it, as ``edgevit validate --json`` prints it beside the figures."""
        own, float32 = self.calibration, self.float32_calibration
        to_onnx = None if self.steps is None else self.steps.engine_to_onnx
        return {
            "flips": self.flips_total,
            "classes_changed": [each.label for each in self.classes if each.changed],
            "calibration_error": None if own is None else own.ece,
            "float32_calibration_error": None if float32 is None else float32.ece,
            "engine_to_onnx_db": None if to_onnx is None else to_onnx.sqnr_db,
            "engine_wrong": None if self.steps is None else self.steps.wrong,
        }

    def say(self) -> str | None:
        """Say in a line what changed; None where nothing did."""
        if not self.flips_total:
            return None
        said = f"{self.flips_total} of {self.images:,} answers changed"
        if not self.labelled:
            return said
        changed = [each.label for each in self.classes if each.changed]
        if not changed:
            return f"{said}, no class beyond chance" if self.classes_judged else said
        named = ", ".join(changed[:_NAMED]) + (f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else "")
        return f"{said}; beyond chance: {named}"
