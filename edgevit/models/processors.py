"""transformers' image processors: what each class does where its file is silent, and what it makes of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgevit.data.preprocess import Fit, Interpolation, Rounding
from edgevit.errors import DataError
from edgevit.models.config import Processor, Size
from edgevit.models.defaults import HALF, IMAGENET, OPENAI

#: Pillow's numbers, which transformers stores.
PILLOW: dict[int, Interpolation] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming",
}  # fmt: skip

_SAY_IT = "say it yourself: --mean, --std, --interpolation, and --resize EDGE or squash"
_UNDONE = (
    "do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_crop_margin", "do_image_splitting",
    "do_pan_and_scan", "keep_aspect_ratio", "rescale_offset", "crop_to_patches",
)  # fmt: skip
_WARPED_FROM = 384  # ConvNeXT squashes images of this edge and more, and cuts the centre out of smaller ones

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class ProcessorClass:
    """What an image processor does where its file does not say otherwise.

    ``square`` tells that one number for ``size`` stands for both edges, not for the short one.
    """

    size: Mapping[str, int]
    statistics: Statistics = HALF
    resample: int = 3
    crop: int | None = None
    center_crop: bool = False
    square: bool = True
    crop_pct: float | None = None


_SQUARE = {"height": 224, "width": 224}
_SHORT = {"shortest_edge": 224}

#: The classes that resize, crop and normalise as all do; tests compare them with transformers'.
CLASSES: dict[str, ProcessorClass] = {
    "BeitImageProcessor": ProcessorClass(_SQUARE, crop=224),
    "BitImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "BlipImageProcessor": ProcessorClass({"height": 384, "width": 384}, OPENAI),
    "CLIPImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "ChineseCLIPImageProcessor": ProcessorClass(_SHORT, OPENAI, crop=224, center_crop=True, square=False),
    "ConvNextImageProcessor": ProcessorClass({"shortest_edge": 384}, square=False, crop_pct=224 / 256),
    "DINOv3ViTImageProcessor": ProcessorClass(_SQUARE, IMAGENET, resample=2),
    "DeiTImageProcessor": ProcessorClass({"height": 256, "width": 256}, crop=224, center_crop=True),
    "OwlViTImageProcessor": ProcessorClass({"height": 768, "width": 768}, OPENAI, crop=768),
    "PvtImageProcessor": ProcessorClass(_SQUARE, IMAGENET),
    "SiglipImageProcessor": ProcessorClass(_SQUARE, square=False),
    "ViTImageProcessor": ProcessorClass(_SQUARE, resample=2),
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """The part of a ``Preprocess`` that says which pixels the model sees."""

    size: tuple[int, int]
    resize: int | None
    fit: Fit = "short"
    box: tuple[int, int] | None = None
    fill: tuple[int, ...] | None = None
    rounding: Rounding = "nearest"


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
            remedy=_SAY_IT,
        )
    return CLASSES[name] if name is not None else None


def check_keys(processor: Processor) -> None:
    """See to it that the file asks for nothing that is not done.

    Raises:
        DataError: if it does.
    """
    for key in _UNDONE:
        value = getattr(processor, key)
        if value:
            raise DataError(
                f"{key} is {value} in the image processor's file, which EdgeViT does not do", remedy=_SAY_IT
            )
    if processor.ensure_multiple_of not in (None, 1):
        raise DataError(
            f"ensure_multiple_of is {processor.ensure_multiple_of}, which EdgeViT does not do", remedy=_SAY_IT
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


def geometry_of(
    size: Mapping[str, int],
    crop: tuple[int, int],
    *,
    resizes: bool,
    crops: bool,
    crop_pct: float | None,
) -> Geometry:
    """Return which pixels the model sees, of what an image processor says; ``crop_pct`` is ConvNeXT's.

    Raises:
        DataError: if images come out with different sizes, or in a way that is not done.
    """
    if crop_pct is not None and resizes:
        return _of_convnext(size, crop_pct, crops=crops)
    if not crops and (not resizes or not {"height", "width"} <= size.keys()):
        said = f"size is {dict(size)}" if resizes else "do_resize is false"
        raise DataError(
            f"{said} and do_center_crop is false: its images come out with different sizes, not square, and the model "
            "takes one size",
            remedy=_SAY_IT,
        )
    if not resizes:
        return Geometry(crop, None, "none", rounding="down")
    match dict(size):
        case {"height": height, "width": width}:
            whole = not crops or (height, width) == crop
            return Geometry((height, width), None) if whole else Geometry(
                crop, None, "squash", (height, width), rounding="down")  # fmt: skip
        case {"shortest_edge": edge, **others} if not others:
            fits = edge >= max(crop)
            return Geometry(crop, edge, rounding="down") if fits else Geometry(
                crop, None, "cover", (edge, edge), rounding="down")  # fmt: skip
        case {"max_height": height, "max_width": width, **others} if not others:
            return Geometry(crop, None, "contain", (height, width), rounding="down")
    raise DataError(f"size is {dict(size)}, which EdgeViT does not do", remedy=_SAY_IT)


def entries(size: Size, *, square: bool) -> dict[str, int]:
    """Return a size as transformers writes it today, of any way in which it has been written."""
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    if isinstance(size, tuple):
        return {"height": size[0], "width": size[1]}
    return {name: number for name, number in size.items() if number is not None}


def crop_of(size: Size) -> tuple[int, int]:
    """Return height and width of a crop.

    Raises:
        DataError: if it does not say both.
    """
    edges = entries(size, square=True)
    if not {"height", "width"} <= edges.keys():
        raise DataError(f"crop_size is {edges}, without a height and a width", remedy=_SAY_IT)
    return edges["height"], edges["width"]


def _of_convnext(size: Mapping[str, int], crop_pct: float, *, crops: bool) -> Geometry:
    if size.keys() != {"shortest_edge"} or crops:
        raise DataError(
            f"size is {dict(size)} and do_center_crop is {str(crops).lower()}, where ConvNextImageProcessor takes a "
            "shortest_edge alone",
            remedy=_SAY_IT,
        )
    edge = size["shortest_edge"]
    if edge >= _WARPED_FROM:
        return Geometry((edge, edge), None)
    if not 0 < crop_pct <= 1:
        raise DataError(f"crop_pct is {crop_pct}", remedy="correct it: it is above 0, and at most 1")
    return Geometry((edge, edge), int(edge / crop_pct), rounding="down")
