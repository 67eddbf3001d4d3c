"""A training recipe as TOML: what ``edgevit train --recipe`` reads, and what a RUN keeps so that it can be given again.

A file says as much as it likes. What it leaves out is as the task has it: random weights, fine-tuning or a probe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edgevit import toml
from edgevit.data.preprocess import Interpolation
from edgevit.errors import InputError
from edgevit.toml import FieldError
from edgevit.training.recipe import (
    FINE_TUNING,
    FROM_SCRATCH,
    LINEAR_PROBE,
    RECOVERY,
    RECOVERY_OF_ALL,
    Mode,
    TrainRecipe,
)

TorchDevice = Literal["auto", "cpu", "cuda"]
_ChannelLevels = float | Annotated[tuple[float, ...], Meta(min_length=1, max_length=3)]
_NotEmpty = Annotated[str, Meta(min_length=1)]  # as a path, a text without a letter would be the current folder
_MergeCount = Annotated[int, Meta(ge=0, le=1 << 20)]
_PixelCount = Annotated[int, Meta(ge=1, le=99_999)]
# No tuple[_PixelCount, _PixelCount]: beside an integer with limits, msgspec 0.22 reads its length from the wrong place.
_ImageSides = _PixelCount | Annotated[tuple[_PixelCount, ...], Meta(min_length=2, max_length=2)]

_REMEDY = "edgevit train --print-recipe shows how it is written"


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How images are prepared, where files beside the checkpoint do not say it, or not rightly."""

    preprocess: _NotEmpty | None = None
    mean: _ChannelLevels | None = None
    std: _ChannelLevels | None = None
    resize: _PixelCount | Literal["squash"] | None = None
    crop: Annotated[float, Meta(gt=0, le=1)] | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        if self.resize is not None and self.crop is not None:
            raise FieldError("crop", "resize and crop both say what is cut out: leave out one of them")


class RunSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says of a run beside its ``TrainRecipe``: what it begins with, its images, and the machine."""

    data: _NotEmpty | None = None
    root: _NotEmpty | None = None
    strict: bool = False
    source: _NotEmpty | None = msgspec.field(name="from", default=None)
    model: _NotEmpty | None = None
    teacher: _NotEmpty | None = None
    token_budget: float | None = None
    token_schedule: tuple[_MergeCount, ...] | None = None
    image_size: _ImageSides | None = None
    heads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    raw_weights: bool = False
    workers: Annotated[int, Meta(ge=0, le=256)] | None = None
    device: TorchDevice = "auto"
    images: ImageSettings = ImageSettings()

    @property
    def merges(self) -> bool:
        """Whether a model is to learn to do with fewer tokens."""
        return self.token_budget is not None or self.token_schedule is not None


#: A whole file: of a recipe's keys those that it has.
_RecipeFile = msgspec.defstruct(
    "_RecipeFile",
    [(each.name, each.type | UnsetType, UNSET) for each in msgspec.structs.fields(TrainRecipe)],
    bases=(RunSettings,),
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Key(NamedTuple):
    """A key of the file: what it is, and how it may be written, where a run has none."""

    name: str
    what: str
    example: str = ""


_GROUPS: dict[str, tuple[Key, ...]] = {
    "What to train": (
        Key("from", "the checkpoint to fine-tune, as in edgevit export", '"vit.safetensors"'),
        Key("model", "or the architecture to train from random weights (edgevit models)", '"vit-micro"'),
        Key("mode", "full trains all weights, norms LayerNorms and biases, probe the head alone"),
        Key("image_size", "another resolution for the checkpoint: a side, or [height, width]", "384"),
        Key("heads", "attention heads of a checkpoint without a config", "6"),
        Key("raw_weights", "take the weights of the last step, where a file has averaged ones"),
    ),
    "Images": (
        Key("data", "a folder, a CSV file, or a built-in name", '"photos"'),
        Key("root", "the folder that paths in a CSV start from", '"."'),
        Key("strict", "stop at the first image that cannot be read"),
        Key("sampling", "shuffled, or balanced: classes come up equally often"),
        Key("validation_share", "held out of the training images, without a validation folder"),
    ),
    "Schedule": (
        Key("epochs", "passes over the images; with minutes, only the unit of warmup_epochs"),
        Key("minutes", "of training in all, instead of epochs; 0: as many epochs as are said"),
        Key("batch_size", "images per step, over all processes"),
        Key("accumulate", "parts that a step is cut into, to save memory"),
        Key("learning_rate", "at its peak"),
        Key("layer_decay", "factor of the rate for each layer down"),
        Key("warmup_epochs", "epochs until the peak is reached"),
        Key("patience", "epochs without a better validation until it ends; 0: no validation"),
    ),
    "Regularisation": (
        Key("weight_decay", "of the weight matrices"),
        Key("label_smoothing", "share of the target that is spread over all classes"),
        Key("clip_norm", "largest norm of the gradient"),
        Key("ema_decay", "of the averaged weights, per step"),
        Key("stochastic_depth", "probability that the last layer is skipped"),
    ),
    "Augmentation": (
        Key("crop", "RandomResizedCrop: smallest area, as a share of the image"),
        Key("randaugment", "random operations on each image"),
        Key("magnitude", "their strength, 0 to 10"),
        Key("shift", "largest random shift in pixels"),
        Key("flip", "probability of a mirrored image"),
        Key("erase", "probability of an erased rectangle"),
        Key("mixup", "alpha of mixup; 0 turns it off"),
        Key("cutmix", "alpha of CutMix; 0 turns it off"),
    ),
    "Teacher": (
        Key("teacher", "a checkpoint to learn from, too; with token_budget self", '"large.safetensors"'),
        Key("teacher_weight", "its share in the loss"),
        Key("teacher_temperature", "softmax temperature of its targets"),
    ),
    "Fewer tokens": (
        Key("token_budget", "share of the multiply-adds that merging tokens leaves", "0.7"),
        Key("token_schedule", "or how many tokens each block merges", "[0, 0, 0, 16, 16, 16, 16, 0]"),
    ),
    "Machine": (
        Key("autocast", "type of the matrix products; auto measures which is faster"),
        Key("seed", "of weights, order and augmentation"),
        Key("device", "auto, cpu or cuda"),
        Key("workers", "processes that read images; one per core, up to 8, if it is left out", "4"),
    ),
}
_IMAGES = (
    Key("preprocess", "a preprocessor_config.json, processor_config.json, or timm's config.json", '"config.json"'),
    Key("mean", "of pixels in 0..1: one number, or one for each channel", "[0.485, 0.456, 0.406]"),
    Key("std", "their standard deviation", "[0.229, 0.224, 0.225]"),
    Key("resize", 'short edge before the crop, in pixels, or "squash"', "256"),
    Key("crop", "or the crop as a fraction of the resized edge (timm's crop_pct)", "0.875"),
    Key("interpolation", "bicubic, bilinear, nearest, lanczos, ...", '"bicubic"'),
)


def task(source: str | None, mode: Mode | None = None, *, recovery: bool = False) -> TrainRecipe:
    """Return what holds where nothing is said: for random weights, for fine-tuning ``source``, or for a probe of it.

    ``recovery`` has ``source`` learn to do with fewer tokens.

    Raises:
        InputError: if a probe has no source, or is to do with fewer tokens.
    """
    if recovery:
        if mode == "probe":
            raise InputError(
                "a head alone cannot make up for tokens that are merged before it", remedy="use --mode norms or full"
            )
        return RECOVERY_OF_ALL if mode == "full" else RECOVERY
    if source is None:
        if mode == "probe":
            raise InputError("a probe needs a trained backbone", remedy="name a checkpoint with --from")
        return FROM_SCRATCH
    return LINEAR_PROBE if mode == "probe" else FINE_TUNING


def read_recipe(path: Path) -> tuple[RunSettings, dict[str, Any]]:
    """Return what the file at ``path`` says: of the run, and of the fields of ``TrainRecipe``.

    Raises:
        InputError: if it cannot be read, or something in it is not understood; the message names the line and the key.
    """
    found = toml.read_file("training recipe", path, _RecipeFile, remedy=_REMEDY)
    said = {name: getattr(found, name) for name in TrainRecipe.__struct_fields__}
    settings = {name: getattr(found, name) for name in RunSettings.__struct_fields__}
    return RunSettings(**settings), {name: value for name, value in said.items() if value is not UNSET}


def written(settings: RunSettings, recipe: TrainRecipe) -> str:
    """Return the file that says all of it, with a comment for each key."""
    given = {**msgspec.to_builtins(settings), **msgspec.to_builtins(recipe)}
    images = given.pop("images")
    lines = [
        "# For edgevit train --recipe FILE. Options override it; keys that are left out have defaults.",
        "",
    ]
    for title, keys in _GROUPS.items():
        lines += [f"# {title}", *_lines(keys, given), ""]
    lines += ["# How images are prepared, where files beside the checkpoint do not say it", "[images]"]
    return "\n".join([*lines, *_lines(_IMAGES, images), ""])


def _lines(keys: tuple[Key, ...], given: dict[str, Any]) -> Iterator[str]:
    for key in keys:
        value = given[key.name]
        line = f"# {key.name} = {key.example}" if value is None else f"{key.name} = {_toml(value)}"
        yield f"{line}  # {key.what}"


def _toml(value: Any) -> str:  # noqa: ANN401 - whatever a key may be
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_letter, value))}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return "inf" if value == math.inf else repr(value)


def _letter(letter: str) -> str:
    """Return a letter of a TOML string; of a path that is no UTF-8, what cannot be written is replaced."""
    if letter in '"\\':
        return f"\\{letter}"
    if "\ud800" <= letter <= "\udfff":
        return "\N{REPLACEMENT CHARACTER}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


class KeyPlace(NamedTuple):
    """Where a setting is written: the key, an example, and the table that it is in, if it is in one."""

    key: str
    example: str
    table: str | None = None


def places() -> dict[str, KeyPlace]:
    """Return where each setting is written that is no option of the command, by the option that it was or would be."""
    defaults = {**msgspec.to_builtins(RunSettings()), **msgspec.to_builtins(FINE_TUNING)}
    images = {key.name.replace("_", "-"): KeyPlace(key.name, key.example, "images") for key in _IMAGES}
    images["center-crop"] = images.pop("crop")
    return images | {
        key.name.replace("_", "-"): KeyPlace(key.name, key.example or _toml(defaults[key.name]))
        for keys in _GROUPS.values()
        for key in keys
    }
