"""What a checkpoint's folder says of it: config.json, (pre)processor_config.json, open_clip_config.json.

Only the fields that EdgeViT uses; all others are passed over, all may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from edgevit.errors import CheckpointError
from edgevit.json import JSONError, read

Sides = int | tuple[int, int]  # one number, or height and width
ProcessorSize = (
    int | tuple[int, int] | dict[str, int | None]
)  # of an image processor: one number, two, or edges by name
PixelLevels = float | tuple[float, ...]  # one number for all channels, or one for each
T = TypeVar("T")


class TimmCfg(msgspec.Struct, frozen=True):
    """timm's ``pretrained_cfg``: the data that the weights were trained on."""

    input_size: tuple[int, int, int] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    mean: PixelLevels | None = None
    std: PixelLevels | None = None
    crop_border_pixels: int | None = None
    num_classes: int | None = None


class Config(msgspec.Struct, frozen=True):
    """config.json of transformers, or of timm."""

    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_act: str | None = None
    layer_norm_eps: float | None = None
    image_size: Sides | None = None
    patch_size: Sides | None = None
    num_channels: int | None = None
    id2label: dict[str, str] | None = None
    label2id: dict[str, int | str] | None = None
    num_labels: int | None = None
    vision_config: Config | None = None
    architecture: str | None = None
    architectures: tuple[str, ...] | None = None
    num_classes: int | None = None
    global_pool: str | None = None
    pretrained_cfg: TimmCfg | None = None
    model_args: dict[str, Any] | None = None
    model_type: str | None = None
    rope_theta: float | None = None
    use_mean_pooling: bool | None = None
    problem_type: str | None = None
    label_names: tuple[str, ...] | None = None
    label_descriptions: dict[str, str] | tuple[str, ...] | None = None

    @property
    def vision(self) -> Config:
        """The part on the image tower, in a config of two towers."""
        return self.vision_config or self


class Processor(msgspec.Struct, frozen=True):
    """preprocessor_config.json of transformers, and the part ``image_processor`` of its processor_config.json."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    size: ProcessorSize | None = None
    crop_size: ProcessorSize | None = None
    default_to_square: bool | None = None
    crop_pct: float | None = None
    resample: int | str | None = None
    image_mean: PixelLevels | None = None
    image_std: PixelLevels | None = None
    # Steps: null is no, as transformers has it; what is not there is as the class has it.
    do_resize: bool | UnsetType | None = UNSET
    do_center_crop: bool | UnsetType | None = UNSET
    do_normalize: bool | UnsetType | None = UNSET
    do_rescale: bool | UnsetType | None = UNSET
    do_pad: bool | UnsetType | None = UNSET
    rescale_factor: float | None = None
    pretrained_cfg: TimmCfg | None = None
    pad_size: ProcessorSize | None = None
    size_divisor: Any = None
    # What is not done, and refused where it is asked for.
    do_flip_channel_order: Any = None
    do_thumbnail: Any = None
    do_align_long_axis: Any = None
    do_crop_margin: Any = None
    do_image_splitting: Any = None
    do_pan_and_scan: Any = None
    keep_aspect_ratio: Any = None
    rescale_offset: Any = None
    crop_to_patches: Any = None
    ensure_multiple_of: Any = None


class Processing(msgspec.Struct, frozen=True):
    """processor_config.json of transformers 5, which holds the image processor's file."""

    image_processor: Processor | None = None


class OpenClipVision(msgspec.Struct, frozen=True):
    """The image tower's part of open_clip_config.json; ``timm_*`` where the tower is one of timm's."""

    image_size: Sides | None = None
    patch_size: Sides | None = None
    width: int | None = None
    layers: int | tuple[int, ...] | None = None
    pool_type: str | None = None
    timm_model_name: str | None = None
    timm_pool: str | None = None


class OpenClipModel(msgspec.Struct, frozen=True):
    """The model's part of open_clip_config.json."""

    quick_gelu: bool = False
    embed_dim: int | None = None
    vision_cfg: OpenClipVision = OpenClipVision()
    text_cfg: dict[str, Any] = {}


class OpenClipPreprocess(msgspec.Struct, frozen=True):
    """The preprocessing's part of open_clip_config.json."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None


class OpenClip(msgspec.Struct, frozen=True):
    """open_clip_config.json."""

    model_cfg: OpenClipModel = OpenClipModel()
    preprocess_cfg: OpenClipPreprocess = OpenClipPreprocess()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configs:
    """What lay beside a model's weights, or its graph; ``said`` is all of config.json, known and not."""

    config: Config = field(default_factory=Config)
    said: Mapping[str, Any] = field(default_factory=dict)
    processor: Processor | None = None
    open_clip: OpenClip | None = None


CONFIG_NAMES = ("config.json", "processor_config.json", "preprocessor_config.json", "open_clip_config.json")


def read_configs(folder: Path) -> Configs:
    """Return what the configs in ``folder`` say, as far as there are any.

    Raises:
        CheckpointError: if one is too large, not JSON, or its values are of other kinds.
    """
    return Configs(
        config=read_json(folder / "config.json", Config) or Config(),
        said=read_json(folder / "config.json", dict[str, Any]) or {},
        processor=_processor(folder),
        open_clip=read_json(folder / "open_clip_config.json", OpenClip),
    )


def _processor(folder: Path) -> Processor | None:
    nested = read_json(folder / "processor_config.json", Processing)  # transformers 5 looks there first
    if nested is not None and nested.image_processor is not None:
        return nested.image_processor
    return read_json(folder / "preprocessor_config.json", Processor)


def read_preprocessing(path: Path) -> Configs:
    """Return what one file says of how images are prepared, whatever its name.

    It may be a preprocessor_config.json, a processor_config.json, a config.json or
    a ``pretrained_cfg`` of timm's, or an open_clip_config.json.

    Raises:
        CheckpointError: if it is missing, cannot be read, or is none of these.
    """
    keys = read_json(path, dict[str, msgspec.Raw])
    if keys is None:
        raise CheckpointError(f"there is no file {path}", remedy="check the path that --preprocess gives")
    if "image_processor" in keys:
        nested = read_json(path, Processing)
        return Configs(processor=nested.image_processor if nested is not None else None)
    if "pretrained_cfg" in keys:
        return Configs(config=read_json(path, Config) or Config())
    if "preprocess_cfg" in keys:
        return Configs(open_clip=read_json(path, OpenClip))
    if {"mean", "std"} <= keys.keys():
        return Configs(config=Config(pretrained_cfg=read_json(path, TimmCfg)))
    if not keys.keys().isdisjoint(Processor.__struct_fields__):
        return Configs(processor=read_json(path, Processor))
    raise CheckpointError(
        f"{path} says nothing of how images are prepared",
        remedy="give a preprocessor_config.json, timm's config.json or open_clip_config.json, or --mean and --std",
    )


def read_json(path: Path, kind: type[T]) -> T | None:
    """Return what the JSON file at ``path`` holds, None if there is none.

    Raises:
        CheckpointError: if it is too large, not JSON, or its values are of other kinds.
    """
    if not path.is_file():
        return None
    try:
        return read(path, kind)
    except JSONError as error:
        raise CheckpointError(
            f"{path} cannot be used: {error}", remedy="download it again, or delete it to let the model alone decide"
        ) from error


def sides(value: Sides | None) -> tuple[int, int] | None:
    """Return height and width of what may be given as one number."""
    return (value, value) if isinstance(value, int) else value
