"""Turns an image processor's sizes and steps into the part of an image that the model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgevit.data.preprocess import Fit, Pad, Rounding
from edgevit.errors import DataError
from edgevit.models.config import ProcessorSize
from edgevit.models.processors import SAY_IT, PaddingGoal

_WARPED_FROM = 384  # ConvNeXT squashes images of this edge and more, and cuts the centre out of smaller ones


@dataclass(frozen=True, slots=True)
class Geometry:
    """The part of a ``Preprocess`` that says which pixels the model sees."""

    size: tuple[int, int]
    resize: int | None
    fit: Fit = "short"
    box: tuple[int, int] | None = None
    fill: tuple[int, ...] | None = None
    rounding: Rounding = "nearest"
    longest: int | None = None
    pad: Pad = "around"
    crop: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """What an image processor does to an image, in its order: resize, cut the centre out, pad.

    ``crop`` and ``size`` are None where it does not do that; ``pad_size`` is None if the image keeps its size, or if it
    is padded to a square first. ``crop_pct`` is ConvNeXT's.
    """

    size: Mapping[str, int] | None
    crop: tuple[int, int] | None
    padding: PaddingGoal | None = None
    pad_size: tuple[int, int] | None = None
    crop_pct: float | None = None

    def in_words(self) -> str:
        """Return the steps as the file says them."""
        said = [
            "do_resize is false" if self.size is None else f"size is {dict(self.size)}",
            "do_center_crop is false" if self.crop is None else f"crop_size is {self.crop}",
        ]
        if self.padding == "to a size":
            said.append("do_pad is true without a pad_size")
        return f"{', '.join(said[:-1])} and {said[-1]}"


def geometry_of(steps: Steps) -> Geometry:
    """Return which pixels the model sees, of what an image processor says.

    Raises:
        DataError: if images come out with different sizes, or in a way that is not done.
    """
    if steps.crop_pct is not None and steps.size is not None:
        return _of_convnext(steps.size, steps.crop_pct, crops=steps.crop is not None)
    resized = _resized(steps.size)
    out = steps.crop or _same_for_all(resized, steps)
    if steps.pad_size is not None and steps.pad_size != out:
        return _padded(resized, steps.crop, out, steps.pad_size)
    if out is None:
        raise DataError(
            f"{steps.in_words()}: its images come out with different sizes, not square, and the model takes one size",
            remedy=SAY_IT,
        )
    pad: Pad = "square" if steps.padding == "to a square" else "around"
    if steps.size is not None and (steps.crop is None or (resized.box == out and resized.fit == "squash")):
        return Geometry(out, None, pad=pad)
    if resized.fit == "cover" and resized.longest is None and resized.box is not None and resized.box[0] >= max(out):
        return Geometry(out, resized.box[0], rounding="down", pad=pad)
    return replace(resized, size=out, pad=pad)


def entries(size: ProcessorSize, *, square: bool) -> dict[str, int]:
    """Return a size as transformers writes it today, of any way in which it has been written."""
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    if isinstance(size, tuple):
        return {"height": size[0], "width": size[1]}
    return {name: number for name, number in size.items() if number is not None}


def edges_of(size: ProcessorSize, key: str) -> tuple[int, int]:
    """Return height and width of what ``key`` says, which must be a size in which all images come out.

    Raises:
        DataError: if it does not say both.
    """
    edges = entries(size, square=True)
    if not {"height", "width"} <= edges.keys():
        raise DataError(f"{key} is {edges}, without a height and a width", remedy=SAY_IT)
    return edges["height"], edges["width"]


def _resized(size: Mapping[str, int] | None) -> Geometry:
    """Return how an image is resized; ``size`` (0, 0) of it stands for what is not known yet."""
    usual = Geometry((0, 0), None, rounding="down")
    if size is None:
        return replace(usual, fit="none")
    match dict(size):
        case {"height": height, "width": width}:
            return replace(usual, fit="squash", box=(height, width))
        case {"shortest_edge": edge, **others} if not others:
            return replace(usual, fit="cover", box=(edge, edge))
        case {"shortest_edge": edge, "longest_edge": longest, **others} if not others:
            return replace(usual, fit="cover", box=(edge, edge), longest=longest)
        case {"longest_edge": edge, **others} if not others:
            return replace(usual, fit="contain", box=(edge, edge), rounding="half up")
        case {"max_height": height, "max_width": width, **others} if not others:
            return replace(usual, fit="contain", box=(height, width))
    raise DataError(f"size is {dict(size)}, which EdgeViT does not do", remedy=SAY_IT)


def _same_for_all(resized: Geometry, steps: Steps) -> tuple[int, int] | None:
    """Return the size that every image has once it is resized, None if it depends on the image."""
    if resized.fit == "squash" or resized.box is None:
        return resized.box
    if steps.padding != "to a square":
        return None
    edge = min(*resized.box, resized.longest or resized.box[0])
    return edge, edge


def _padded(
    resized: Geometry, crop: tuple[int, int] | None, out: tuple[int, int] | None, pad_size: tuple[int, int]
) -> Geometry:
    if out is not None and (out[0] > pad_size[0] or out[1] > pad_size[1]):
        raise DataError(
            f"pad_size is {pad_size[0]}x{pad_size[1]} (height x width), less than the {out[0]}x{out[1]} of the images",
            remedy=f"correct it, or {SAY_IT}",
        )
    return replace(resized, size=pad_size, crop=crop, pad="after")


def _of_convnext(size: Mapping[str, int], crop_pct: float, *, crops: bool) -> Geometry:
    if size.keys() != {"shortest_edge"} or crops:
        raise DataError(
            f"size is {dict(size)} and do_center_crop is {str(crops).lower()}, where ConvNextImageProcessor takes a "
            "shortest_edge alone",
            remedy=SAY_IT,
        )
    edge = size["shortest_edge"]
    if edge >= _WARPED_FROM:
        return Geometry((edge, edge), None)
    if not 0 < crop_pct <= 1:
        raise DataError(f"crop_pct is {crop_pct}", remedy="correct it: it is above 0, and at most 1")
    return Geometry((edge, edge), int(edge / crop_pct), rounding="down")
