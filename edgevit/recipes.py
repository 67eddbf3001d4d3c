"""How to calibrate: recipes in ``calibration/recipes/``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit import resources, toml
from edgevit.toml import FieldError


class Percentile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="percentile"):
    """The range that holds ``percent`` per cent of the values: as much is clipped at either end.

    In a recipe: ``observer = {name = "percentile", percent = 99.9}``.
    """

    percent: Annotated[float, msgspec.Meta(gt=50, le=100)] = 99.99


#: How a range is read off the values that a tensor took; see ``quantization/calibration/range_estimators``.
Observer = Literal["minmax", "average-minmax", "moving-average", "percentile", "entropy", "mse"] | Percentile

#: Or which is best is found out, by what each does to the logits on images that it was not fitted to.
ObserverChoice = Observer | Literal["auto"]


def observer_name(observer: ObserverChoice) -> str:
    """Return what to call ``observer`` in a message."""
    return f"percentile {observer.percent:g}" if isinstance(observer, Percentile) else observer


#: How much of the range of an input's channel goes into the weights (SmoothQuant's alpha), where that costs nothing
#: when the model runs; "off" scales nothing, and "each" is what recipes of 0.2 called 1.
Alpha = Literal["off", "each"] | Annotated[float, msgspec.Meta(ge=0, le=1)]

#: Or which is best for all layers is found out, as with observers.
AlphaChoice = Alpha | Literal["auto"]


class Rewrites(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is rewritten before rounding.

    ``alpha`` scales channels for nothing. The others have a price when the model runs, and are not done if not given:
    ``per_token_scale`` divides each token behind a GELU by its largest value, where activations are unsigned.
    ``channel_equalization`` is the share of channels there that are divided, the widest, where tokens are not.
    The others are shares of the depth, each rounded up to whole blocks. In the first ``residual_layers`` of the blocks,
    the layers that end an attention or an MLP multiply what rounding leaves of their input, too (residual, or two-term,
    quantization). In the last ``residual_token_layers``, those that end an MLP do so for the token alone that the head
    reads; where it is not 0, so do all layers that see no other token. Layers whose tokens are scaled count, but have
    no need of it.
    """

    alpha: AlphaChoice = 1.0
    per_token_scale: bool = False
    channel_equalization: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    residual_layers: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    residual_token_layers: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


#: For models that nothing may slow down.
NO_REWRITES = Rewrites()


class FallbackLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far from float32 INT8 may be before layers go back to float without being asked to.

    ``max_kl`` is KL(float32 || INT8) in nats, of classifiers; ``min_sqnr_db`` the SQNR of features, or of the worst of
    several outputs. They are judged on a few images that were not calibrated with, where there are more than those.
    """

    max_kl: Annotated[float, msgspec.Meta(ge=0, le=1000)] | None = None
    min_sqnr_db: Annotated[float, msgspec.Meta(ge=0, le=200)] | None = None


#: For models that are to be in integers whatever it costs.
NO_FALLBACK = FallbackLimits()


class GateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant must keep in a race (``edgevit race``); None for the gate's own, or for no limit.

    ``max_drop`` is in points of top-1, ``max_kl`` the mean of KL(float32 || variant) in nats, which decides alone where
    no ``max_drop`` is given, ``min_cosine`` the mean of an embedding model's features with float32's. ``min_miou``,
    ``min_delta1``, ``max_abs_rel`` and ``min_box_agreement`` are of masks, depth and boxes, with float32's as truth.
    ``min_speedup`` is over float32; the others are in ms at the 99th percentile, in MB of files and of memory, and in
    mJ of an inference.
    """

    max_drop: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    max_kl: Annotated[float, msgspec.Meta(ge=0, le=1000)] | None = None
    min_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    min_miou: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    min_delta1: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    min_box_agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_abs_rel: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    min_speedup: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    max_p99_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    max_size_mb: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    max_memory_mb: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    max_energy_mj: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None

    def or_else(self, other: GateLimits) -> GateLimits:
        """Return these limits, with those of ``other`` where there are none."""
        own = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(other, **own)


#: For recipes that leave the gate as it is.
NO_GATE = GateLimits()


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is calibrated.

    ``samples`` images are drawn with ``seed``; ``observer`` is how a range is read off the values that a tensor took
    on them, where ``rewrites`` have not changed that; one that clips goes with neither ``channel_equalization`` nor
    ``per_token_scale``.
    Where ``max_drop`` (points of top-1) or, for images without labels, ``max_kl`` (nats), or for embedding models
    ``min_cosine`` is given, layers go back to float until INT8 keeps it on images that are held out.
    ``fallback`` are looser limits, which need no images of their own, for when none of these is given.
    ``min_integer_share`` is the share of the multiply-adds, in 0..1, that INT8 must run in integers to pass.
    ``gate`` is what a variant must keep in a race.
    ``why`` says where these choices come from.
    """

    description: str = ""
    samples: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 128
    observer: ObserverChoice = "minmax"
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    rewrites: Rewrites = NO_REWRITES
    max_drop: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    max_kl: Annotated[float, msgspec.Meta(ge=0, le=1000)] | None = None
    min_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    fallback: FallbackLimits = NO_FALLBACK
    gate: GateLimits = NO_GATE
    min_integer_share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.observer, str) and self.observer == "minmax":
            return
        for name in ("channel_equalization", "per_token_scale"):
            value = getattr(self.rewrites, name, None)
            if isinstance(value, (bool, float)) and value:  # else of a program, and refused where the recipe is used
                raise FieldError(
                    f"rewrites.{name}",
                    f"observer {observer_name(self.observer)} has nothing to read where rewrites.{name} is given",
                    "leave out one of them",
                )


def _place() -> Path:
    return resources.folder("calibration") / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with EdgeViT."""
    return resources.toml_names(_place())


def load_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``, or the one in the TOML file whose path ``name`` is.

    Raises:
        InputError: if there is none, or it is not valid; the message names the file, the line and the key.

    """
    return toml.read_named("recipe", _place(), name, Recipe)


def checked_recipe(recipe: Recipe) -> Recipe:
    """Return ``recipe``, which a program made, if a file could say the same.

    Raises:
        InputError: if not; the message names the field.

    """
    return toml.revalidated("recipe", recipe, Recipe, remedy=f"correct it as in {_place()}")


def recipe_text(name: str) -> str:
    """Return the TOML of the recipe that ``load_recipe`` takes for ``name``.

    Raises:
        InputError: as ``load_recipe`` does.

    """
    load_recipe(name)
    return (Path(name) if name.endswith(".toml") else _place() / f"{name}.toml").read_text(encoding="utf-8")
