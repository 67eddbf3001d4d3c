"""How to calibrate: recipes in ``calibration/recipes/``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit import resources

#: How a range is read off the values that a tensor took: all of it, or the mean of those of groups of images.
Observer = Literal["minmax", "average-minmax"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is calibrated.

    ``samples`` images are drawn with ``seed``; ``observer`` is how a range is read off the values that a tensor took
    on them. ``split`` channels, the widest of what follows a GELU, are multiplied by themselves; 0 leaves all together.
    Where ``max_drop`` (points of top-1) or, for images without labels, ``max_kl`` (nats), or for embedding models
    ``min_cosine`` is given, layers go back to float until INT8 keeps it on images that are held out.
    ``why`` says where these choices come from.
    """

    description: str
    samples: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    observer: Observer
    seed: Annotated[int, msgspec.Meta(ge=0)]
    split: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    max_drop: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    max_kl: Annotated[float, msgspec.Meta(ge=0)] | None = None
    min_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    why: str


def _place() -> Path:
    return resources.folder("calibration") / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with EdgeViT."""
    return resources.names(_place())


def load_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``, or the one in the TOML file whose path ``name`` is.

    Raises:
        InputError: if there is none, or it is not valid; the message names the file and the field.

    """
    return resources.read("recipe", _place(), name, Recipe)
