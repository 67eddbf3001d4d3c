"""What a Vision Transformer is, without its weights."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from edgevit.errors import SpecError
from edgevit.models.outputs import MOST_NUMBERS
from edgevit.models.outputs import OutputActivation as OutputActivation

Pooling = Literal["class", "mean", "max", "mean/max", "class+mean", "class+register", "attention"]
PositionEmbedding = Literal["learned", "sincos", "none"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu", "sigmoid"]

#: Specs come from files that may be hostile: no size in one may keep the machine busy or fill its memory.
_LARGEST = 1 << 20


class RotaryPositions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How queries and keys of patches are turned by where the patch lies (Su et al. 2021, in two dimensions).

    An angle is a patch's row times one frequency and its column times another. Both are patches' ``numbers``, or their
    ``centres`` in -1..1 (DINOv3). Numbers have ``offset`` added, and are scaled to the grid ``reference``, where there
    is one (EVA-02). ``own``: each block and head has frequencies of its own (RoPE-ViT's mixed).
    """

    coordinates: Literal["numbers", "centres"]
    reference: tuple[int, int] | None = None
    offset: float = 0.0
    own: bool = False

    def __post_init__(self) -> None:
        sizes = self.reference or (1, 1)
        if not all(1 <= size <= _LARGEST for size in sizes) or not abs(self.offset) <= _LARGEST:
            raise SpecError(
                f"rotary positions have the reference {self.reference} and the offset {self.offset}",
                remedy=f"give sizes of 1 to {_LARGEST}, and an offset of at most that",
            )


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The architecture of a ViT; everything that the weights do not say by themselves.

    Sizes are in pixels (``image_size``, ``patch_size``), features (``width``, ``attention_width``, ``pre_logits``,
    ``projection``) or counts. What most ViTs do without, with the models that have it:

    - ``register_tokens``: tokens beside the class token that stand for no patch (DINOv2; DeiT's distillation token).
    - ``pre_norm``: a LayerNorm before the first block (CLIP). ``patch_norm``: one before and one after the patches are
      projected (vit-pytorch).
    - ``attention_width``: features of all heads together, where that is not ``width`` (vit-pytorch).
    - ``gated_mlp``: a SwiGLU (DINOv2's giant), or another gate that ``activation`` names; ``mlp_ratio`` then counts the
      features after the gate.
    - ``rotary``: queries and keys are turned by their positions (DINOv3, EVA-02). ``relative_positions``: each head
      adds a number to its scores that depends on how far apart two patches lie (BEiT).
    - ``query_key_norm``: a LayerNorm on each head's queries and keys; ``attention_norm`` one on what attention gives,
      in front of its projection; ``mlp_norm`` one inside the MLP (EVA-02).
    - ``norm_after_pooling``: the last LayerNorm works on the pooled vector (timm's ``fc_norm``).
    - ``final_norm`` False: nothing is normalised behind the last block.
    - ``pre_logits``: features of a tanh layer before the head (the original ViT).
    - ``classes`` 0: an embedding model. Its output is the pooled vector, or its ``projection`` (CLIP), and has length 1
      with ``l2_normalize``. With that and classes, a classifier reads it: logits are cosines, scaled (zero-shot).

    Pooling is by the class token, the mean or maximum of the patch tokens or half of either, an attention of one query
    over them (SigLIP), or two vectors side by side: class token and mean (DINOv2), class token and first register
    (distilled DeiT).

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
    class_token: bool = True
    register_tokens: int = 0
    pre_norm: bool = False
    patch_norm: bool = False
    attention_width: int | None = None
    activation: Activation = "gelu"
    gated_mlp: bool = False
    rotary: RotaryPositions | None = None
    relative_positions: bool = False
    query_key_norm: bool = False
    attention_norm: bool = False
    mlp_norm: bool = False
    norm_after_pooling: bool = False
    final_norm: bool = True
    pre_logits: int = 0
    projection: int = 0
    l2_normalize: bool = False

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_patches()
        self._check_heads()
        self._check_output()

    def _check_counts(self) -> None:
        least = dict.fromkeys(("width", "depth", "heads", "channels"), 1)
        least |= dict.fromkeys(("classes", "register_tokens", "pre_logits", "projection"), 0)
        for name, bound in least.items():
            value = getattr(self, name)
            if not bound <= value <= _LARGEST:
                limit = f"at least {bound}" if value < bound else f"at most {_LARGEST}"
                raise SpecError(f"{name} is {value}", remedy=f"give {name} a value of {limit}")
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

    def _check_patches(self) -> None:
        for side, size, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if patch < 1 or size < patch or size % patch:
                fit = f"{max(patch, size // patch * patch)}" if patch >= 1 else "a multiple of the patch size"
                raise SpecError(
                    f"image {side} {size} is not divisible by the patch {side} {patch}",
                    remedy=f"use image {side} {fit}, or a patch {side} that divides {size}",
                )

    def _check_heads(self) -> None:
        width = self.width if self.attention_width is None else self.attention_width
        if not 1 <= width <= _LARGEST:
            raise SpecError(
                f"attention_width is {width}", remedy=f"give it a value of 1 to {_LARGEST}, or leave it out"
            )
        if width % self.heads:
            fits = [heads for heads in range(1, width + 1) if width % heads == 0]
            nearest = min(fits, key=lambda heads: abs(heads - self.heads))
            raise SpecError(
                f"width {width} is not divisible by {self.heads} heads",
                remedy=f"use {nearest} heads, or width {round(width / self.heads) * self.heads or self.heads}",
            )
        if self.rotary is not None and self.head_width % 4:
            raise SpecError(
                f"rotary positions need heads of a multiple of 4 features, not {self.head_width}",
                remedy="give the number of heads that the model was trained with: --heads",
            )

    def _check_output(self) -> None:
        if self.pooling.startswith("class") and not self.class_token:
            raise SpecError("a model without a class token cannot pool by it", remedy="use pooling='mean'")
        if self.pooling == "class+register" and not self.register_tokens:
            raise SpecError("there is no register token to pool by", remedy="use register_tokens=1 or pooling='class'")
        if self.classes and self.projection and not self.l2_normalize:
            raise SpecError(
                f"a classifier of {self.classes} classes projects what it reads to length 1 alone",
                remedy="use classes=0 for an embedding model, l2_normalize=True for cosines, else projection=0",
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def tokens(self) -> int:
        """Number of tokens in the encoder: the patches and those before them."""
        return self.grid[0] * self.grid[1] + self.prefix_tokens

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches: the class token and the registers."""
        return int(self.class_token) + self.register_tokens

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return (self.attention_width or self.width) // self.heads

    @property
    def mlp_width(self) -> int:
        """Features inside the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def pooled_width(self) -> int:
        """Features of the pooled vector."""
        return 2 * self.width if "+" in self.pooling else self.width

    @property
    def outputs(self) -> int:
        """Values that the model gives for an image: logits, or the features of an embedding."""
        return self.classes or self.projection or self.pre_logits or self.pooled_width


class GraphSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a model that came as a third-party ONNX file: its images and its answers, no architecture.

    ``outputs`` are values for an image: ``classes`` logits, or an embedding's features, where ``classes`` is 0.
    ``producer`` says what wrote the file.

    Raises:
        SpecError: if a size is out of range, or there is not one output for each class.

    """

    image_size: tuple[int, int]
    channels: int
    classes: int
    outputs: int
    producer: Annotated[str, msgspec.Meta(max_length=128)] = ""

    def __post_init__(self) -> None:
        least = {"image height": self.image_size[0], "image width": self.image_size[1], "outputs": self.outputs}
        for name, value in least.items():
            most = MOST_NUMBERS if name == "outputs" and not self.classes else _LARGEST
            if not 1 <= value <= most:
                raise SpecError(f"{name} is {value}", remedy=f"give a model whose {name} is 1 to {most}")
        if self.channels not in (1, 3):
            raise SpecError(
                f"the model takes images of {self.channels} channels", remedy="give one for grey (1) or RGB images (3)"
            )
        if self.classes not in (0, self.outputs):
            raise SpecError(f"{self.outputs} outputs are not {self.classes} logits", remedy="give one output per class")


#: What a bundle may know of its model.
AnySpec: TypeAlias = ModelSpec | GraphSpec


def label_counts(classes: int) -> tuple[int, ...]:
    """Return how many labels a model of ``classes`` logits may have: one each, or of a single logit no and yes."""
    return (1, 2) if classes == 1 else (classes,)


def outcomes(labels: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Return what a model of ``classes`` logits can say of an image; of a single logit that is no and yes."""
    if classes != 1 or len(labels) == 2:
        return labels
    (label,) = labels
    return ("0", "1") if label in {"", "0", "1"} else (f"not {label}", label)


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
