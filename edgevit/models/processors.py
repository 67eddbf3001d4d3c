"""transformers' image processors: each class's defaults, and the keys that are not supported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgevit.data.preprocess import Interpolation
from edgevit.errors import DataError
from edgevit.models.config import Processor
from edgevit.models.defaults import HALF, IMAGENET, OPENAI

#: Pillow's numbers, which transformers stores.
PILLOW: dict[int, Interpolation] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming",
}  # fmt: skip

SAY_IT = "say it yourself: --mean, --std, --interpolation, and --resize EDGE or squash"
_UNDONE = (
    "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_crop_margin", "do_image_splitting",
    "do_pan_and_scan", "keep_aspect_ratio", "rescale_offset", "crop_to_patches",
)  # fmt: skip
PaddingGoal = Literal["to a size", "to a square"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class ProcessorClass:
    """What an image processor does where its file does not say otherwise.

    ``square`` tells that one number for ``size`` stands for both edges, not for the short one. ``padding`` is what
    do_pad does: to ``pad_size``, below and at the right, in the end; or to a square around it, in the beginning; None
    if the class does not heed it. ``pads`` is do_pad where the file does not say it.
    """

    size: Mapping[str, int]
    statistics: Statistics = HALF
    resample: int = 3
    crop: int | None = None
    center_crop: bool = False
    square: bool = True
    crop_pct: float | None = None
    padding: PaddingGoal | None = "to a size"
    pads: bool = False


_SQUARE = {"height": 224, "width": 224}
_SHORT = {"shortest_edge": 224}

#: The classes that resize, crop and normalise as all do; tests compare them with transformers'.
CLASSES: dict[str, ProcessorClass] = {
    "BeitImageProcessor": ProcessorClass(_SQUARE, crop=224, padding=None),
    "BitImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "BlipImageProcessor": ProcessorClass({"height": 384, "width": 384}, OPENAI),
    "CLIPImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "ChineseCLIPImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "ConvNextImageProcessor": ProcessorClass({"shortest_edge": 384}, square=False, crop_pct=224 / 256, padding=None),
    "DINOv3ViTImageProcessor": ProcessorClass(_SQUARE, IMAGENET, resample=2, padding=None),
    "DeiTImageProcessor": ProcessorClass({"height": 256, "width": 256}, crop=224, center_crop=True),
    "LlavaImageProcessor": ProcessorClass(
        _SHORT, OPENAI, crop=224, center_crop=True, square=False, padding="to a square"
    ),
    "OwlViTImageProcessor": ProcessorClass({"height": 768, "width": 768}, OPENAI, crop=768),
    "PvtImageProcessor": ProcessorClass(_SQUARE, IMAGENET),
    "SamImageProcessor": ProcessorClass({"longest_edge": 1024}, IMAGENET, resample=2, pads=True),
    "SiglipImageProcessor": ProcessorClass(_SQUARE, square=False),
    "ViTImageProcessor": ProcessorClass(_SQUARE, resample=2),
}


def class_name(processor: Processor) -> str | None:
    """Return the name of the class that wrote the file, without what says how it computes; None if it has none."""
    name = processor.image_processor_type or processor.feature_extractor_type
    if name is None:
        return None
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name.endswith("FeatureExtractor"):
        name = name.removesuffix("FeatureExtractor") + "ImageProcessor"
    return name


def class_of(processor: Processor) -> ProcessorClass | None:
    """Return what is known of the class that wrote the file; None if the file names none.

    Raises:
        DataError: if the class prepares images in a way of its own.
    """
    name = class_name(processor)
    if name is not None and name not in CLASSES:
        raise DataError(
            f"image_processor_type is {name}, which EdgeViT does not know (it knows {', '.join(sorted(CLASSES))})",
            remedy=SAY_IT,
        )
    return CLASSES[name] if name is not None else None


def check_processor_keys(processor: Processor) -> None:
    """See to it that the file asks for nothing that is not done.

    Raises:
        DataError: if it does.
    """
    for key in _UNDONE:
        value = getattr(processor, key)
        if value:
            raise DataError(f"{key} is {value} in the image processor's file, which EdgeViT does not do", remedy=SAY_IT)
    if processor.ensure_multiple_of not in (None, 1):
        raise DataError(
            f"ensure_multiple_of is {processor.ensure_multiple_of}, which EdgeViT does not do", remedy=SAY_IT
        )


def filter_of(resample: int | str) -> Interpolation:
    """Return the filter that ``resample`` names, in Pillow's numbers or in words.

    Raises:
        DataError: if it names none.
    """
    for code, name in PILLOW.items():
        if resample in (code, name):
            return name
    raise DataError(
        f"resample is {resample}, and Pillow's filters are 0 to 5 ({', '.join(PILLOW.values())})",
        remedy="say it yourself: --interpolation bicubic, or another",
    )
