"""Checkpoints under timm's names: its plain ViTs, and DeiT's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import ModelSpec

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_KEYS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight", "head.weight")


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these tensors are named as timm names a ViT's."""
    return all(key in weights for key in _KEYS)


def read(weights: Mapping[str, Tensor], source: str) -> Checkpoint:
    """Return a checkpoint whose architecture is derived from the tensors' shapes.

    Heads have 64 features and images are square, as in all of timm's plain ViTs; preprocessing is DeiT's.

    Raises:
        CheckpointError: if the shapes are not a ViT's.
    """
    spec = _spec(weights, source)
    preprocess = Preprocess(
        size=spec.image_size, resize=round(spec.image_size[0] * 256 / 224), mean=_IMAGENET_MEAN, std=_IMAGENET_STD
    )
    return Checkpoint(
        spec=spec,
        weights=weights,
        preprocess=preprocess,
        labels=tuple(str(index) for index in range(spec.classes)),
        source=source,
        notes=(
            f"assumed {spec.heads} attention heads of 64 features, as in timm's plain ViTs",
            f"assumed DeiT's preprocessing: short edge {preprocess.resize} bicubic, crop {spec.image_size[0]}, "
            "ImageNet mean and std",
            "the file names no classes: labels are class indices",
        ),
    )


def _spec(weights: Mapping[str, Tensor], source: str) -> ModelSpec:
    patches = weights["patch_embed.proj.weight"]  # (D, C, p, p)
    positions = weights["pos_embed"]  # (1, N, D)
    mlp = weights.get("blocks.0.mlp.fc1.weight")  # (D * ratio, D)
    side = round((positions.shape[1] - 1) ** 0.5) if positions.ndim == 3 else 0
    if patches.ndim != 4 or mlp is None or mlp.ndim != 2 or side * side + 1 != positions.shape[1]:
        raise CheckpointError(
            f"{source} names its tensors as timm's ViTs do, but their shapes are not a plain ViT's",
            remedy="use a ViT with a class token and a square grid of patches",
        )
    width, channels, *patch = patches.shape
    return ModelSpec(
        image_size=(side * patch[0], side * patch[1]),
        patch_size=(patch[0], patch[1]),
        width=width,
        depth=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        heads=max(1, width // 64),
        classes=weights["head.weight"].shape[0],
        channels=channels,
        mlp_ratio=mlp.shape[0] / width,
    )
