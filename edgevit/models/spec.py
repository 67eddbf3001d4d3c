"""What a Vision Transformer is, without its weights."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgevit.errors import SpecError

Pooling = Literal["class", "mean"]
PositionEmbedding = Literal["learned", "sincos"]

#: Specs come from files that may be hostile: no size in one may keep the machine busy or fill its memory.
_LARGEST = 1 << 20


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The architecture of a ViT; everything that the weights do not say by themselves.

    Sizes are in pixels (``image_size``, ``patch_size``), features (``width``) or counts.

    Raises:
        SpecError: if the sizes contradict each other; the message names the fix.

    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    width: int
    depth: int
    heads: int
    classes: int
    channels: int = 3
    mlp_ratio: float = 4.0
    pooling: Pooling = "class"
    position_embedding: PositionEmbedding = "learned"
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "classes", "channels"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}", remedy=f"give {name} a value of at least 1")
            if getattr(self, name) > _LARGEST:
                raise SpecError(f"{name} is {getattr(self, name)}", remedy=f"give {name} a value of at most {_LARGEST}")
        for side, size, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if patch < 1 or size < patch or size % patch:
                fit = f"{max(patch, size // patch * patch)}" if patch >= 1 else "a multiple of the patch size"
                raise SpecError(
                    f"image {side} {size} is not divisible by the patch {side} {patch}",
                    remedy=f"use image {side} {fit}, or a patch {side} that divides {size}",
                )
        if self.width % self.heads:
            fits = [heads for heads in range(1, self.width + 1) if self.width % heads == 0]
            nearest = min(fits, key=lambda heads: abs(heads - self.heads))
            raise SpecError(
                f"width {self.width} is not divisible by {self.heads} heads",
                remedy=f"use {nearest} heads, or width {round(self.width / self.heads) * self.heads or self.heads}",
            )
        if self.position_embedding == "sincos" and self.width % 4:
            raise SpecError(
                f"2-D sine-cosine positions need a width divisible by 4, not {self.width}",
                remedy=f"use width {self.width // 4 * 4 + 4}, or position_embedding='learned'",
            )
        if not 0 < self.mlp_ratio <= _LARGEST or self.mlp_width < 1:
            raise SpecError(f"mlp_ratio is {self.mlp_ratio}", remedy="give mlp_ratio a value above 0, usually 4")
        if not 0 < self.norm_epsilon < 1:
            raise SpecError(
                f"norm_epsilon is {self.norm_epsilon}", remedy="give norm_epsilon a small positive value, usually 1e-6"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def tokens(self) -> int:
        """Number of tokens in the encoder: the patches and the class token."""
        return self.grid[0] * self.grid[1] + 1

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Features inside the MLP."""
        return int(self.width * self.mlp_ratio)


def _imagenet(width: int, depth: int, heads: int) -> ModelSpec:
    return ModelSpec(image_size=(224, 224), patch_size=(16, 16), width=width, depth=depth, heads=heads, classes=1000)


#: Architectures by name: a micro model for 28x28 grey images, and the sizes of Steiner et al. 2021 (Ti, S) and
#: Dosovitskiy et al. 2021 (B, L) at 16/224.
PRESETS: dict[str, ModelSpec] = {
    "vit-micro": ModelSpec(
        image_size=(28, 28),
        patch_size=(4, 4),
        width=128,
        depth=6,
        heads=4,
        classes=10,
        channels=1,
        # Fixed positions say where a patch is from the first step on, which short trainings gain most from.
        position_embedding="sincos",
    ),
    "vit-tiny": _imagenet(192, 12, 3),
    "vit-small": _imagenet(384, 12, 6),
    "vit-base": _imagenet(768, 12, 12),
    "vit-large": _imagenet(1024, 24, 16),
}

#: Trained models that ship with EdgeViT: name -> what it is. Here and not beside their loading, which needs torch.
BUILTIN = {"fashion-micro": "ViT-micro (patch 4, width 128, depth 6) for Fashion-MNIST, 28x28 grey images, 10 classes"}


def preset(name: str) -> ModelSpec:
    """Return the architecture called ``name``.

    Raises:
        SpecError: if there is none of that name.

    """
    try:
        return PRESETS[name]
    except KeyError:
        raise SpecError(f"there is no preset '{name}'", remedy=f"use one of {', '.join(PRESETS)}") from None
