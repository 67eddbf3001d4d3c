"""The interface of a family's adapter, and the tools that adapters share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.config import Config, Configs, sides
from edgevit.models.defaults import Defaults
from edgevit.models.positions import HUGGING_FACE, TIMM, Resampling
from edgevit.models.rotary import Rotary
from edgevit.models.spec import Activation, Pooling
from edgevit.models.timm_args import AS_A_MODULE
from edgevit.models.transformers_args import check_keys

#: The default of each class below (transformers' ViT, DeiT, DINOv2, and the image towers of CLIP and SigLIP).
_DEFAULT_HEADS = 12


@dataclass(frozen=True, slots=True)
class Raw(Configs):
    """Tensors as they were read, and what lay beside them; ``name`` is the source as the user gave it.

    In the file, ``prefix`` stands before the names of ``weights``; ``beside`` are the tensors without it.
    """

    name: str
    weights: Mapping[str, Tensor]
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    prefix: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Converted:
    """Tensors under timm's names, and what their shapes do not say; None where the shapes or defaults decide.

    ``patch`` is (channels, height, width) of a patch, where the projection is stored as a matrix. ``pooling`` is
    what a config names. ``resampling`` is how the family's library has positions at another size. ``assumed_heads``
    are a library's default; ``gate_known`` says that ``activation`` is that of a gated MLP's gate. ``image_size`` may
    be said by nothing but a library's default, where a model has no learned positions: ``notes`` say so, and what else
    was assumed or left out.
    """

    weights: dict[str, Tensor]
    heads: int | None = None
    head_width: int = 64
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    image_size: tuple[int, int] | None = None
    patch: tuple[int, int, int] | None = None
    pooling: Pooling | None = None
    resampling: Resampling = TIMM
    assumed_heads: int | None = None
    gate_known: bool = False
    rotary: Rotary | None = None
    final_norm: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints with one way to name their tensors; ``marks`` are patterns of names that each of them has."""

    name: str
    marks: tuple[str, ...]
    convert: Callable[[Raw], Converted]
    defaults: Defaults

    def recognises(self, names: Sequence[str]) -> float:
        """Return which share of this family's marks is among ``names``; 1 means that it is of this family."""
        found = [any(re.fullmatch(mark, name) for name in names) for mark in self.marks]
        return sum(found) / len(found)


def rename(
    weights: Mapping[str, Tensor], rules: Mapping[str, str], unused: str = r"(?!)"
) -> tuple[dict[str, Tensor], int]:
    """Return the tensors under new names, and how many were left out because their names match ``unused``.

    ``rules`` map patterns of whole names to templates; a name that none matches stays, for the check of the whole
    model to report. So does one whose new name is taken already.
    """
    renamed: dict[str, Tensor] = {}
    dropped = 0
    for name, tensor in weights.items():
        if re.fullmatch(unused, name):
            dropped += 1
            continue
        new = next((match.expand(to) for rule, to in rules.items() if (match := re.fullmatch(rule, name))), name)
        renamed[name if new in renamed else new] = tensor
    return renamed, dropped


def unused_tensors_note(count: int, what: str) -> tuple[str, ...]:
    """Return the note on tensors that the image model does not need."""
    return (f"left out {count} tensor{'s' * (count > 1)} that the output does not depend on: {what}",) if count else ()


def from_hugging_face(
    raw: Raw,
    rules: Mapping[str, str],
    *,
    unused: str,
    of: str,
    activation: Activation,
    norm_epsilon: float,
    heads: int = _DEFAULT_HEADS,
    uses: Collection[str] = (),
) -> Converted:
    """Rename a transformers model's tensors as ``rename`` does; heads, sizes, epsilon and activation are config.json's.

    ``of`` says what the ``unused`` tensors are; ``activation``, ``norm_epsilon`` and ``heads`` stand in where the
    config has none; ``uses`` are keys that only some families implement.

    Raises:
        CheckpointError: if config.json names a model or an activation that EdgeViT does not have.
    """
    config = raw.config.vision
    check_hugging_face(raw.config, raw.name)
    known = _activation(config, activation)
    if known is None:
        raise CheckpointError(
            f"{raw.name} has the activation '{config.hidden_act}'",
            remedy=f"use a model with one of {', '.join(ACTIVATIONS)}",
        )
    weights, dropped = rename(raw.weights, rules, unused=unused)
    check_keys(raw.said, weights, raw.name, uses)
    said, epsilon = config.num_attention_heads, config.layer_norm_eps
    if said is None and _is_described(raw.config):
        said = heads
    if epsilon is None:
        epsilon = _EPSILONS.get(config.model_type or "", norm_epsilon)
    assumed: tuple[str, ...] = ()
    if not _is_described(raw.config) and (config.hidden_act is None or config.layer_norm_eps is None):
        assumed = (f"assumed {known} and an epsilon of {epsilon}: config.json would settle this",)
    return Converted(
        weights,
        heads=said,
        norm_epsilon=epsilon,
        activation=known,
        image_size=sides(config.image_size),
        resampling=HUGGING_FACE,
        notes=(*unused_tensors_note(dropped, of), *assumed),
    )


def _activation(config: Config, default: Activation) -> Activation | None:
    """Return the activation that a transformers config names; None if EdgeViT does not have it."""
    if config.hidden_act is None:
        return default
    return ACTIVATIONS.get(config.hidden_act)


def check_hugging_face(config: Config, source: str) -> None:
    """Refuse what a transformers config says and EdgeViT does not implement.

    Raises:
        CheckpointError: if it names another kind of model.
    """
    kind = config.vision.model_type or config.model_type
    if kind is not None and kind not in _MODEL_TYPES:
        raise CheckpointError(
            f"config.json of {source} has the model_type '{kind}', which EdgeViT does not implement",
            remedy=f"export it as its library builds it, in Python: {AS_A_MODULE}; or use a model of one of "
            f"{', '.join(sorted(_MODEL_TYPES))}",
        )


def _is_described(config: Config) -> bool:
    """Return whether a transformers config is there, which leaves out what is its class's default."""
    return config.model_type is not None or config.vision_config is not None


#: Defaults that differ from those of the other models of a family.
_EPSILONS = {"vit_msn": 1e-6}
#: Activations by the names that transformers' configs have.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_MODEL_TYPES = frozenset({
    "vit", "vit_msn", "deit", "dinov2", "dinov2_with_registers", "clip", "clip_vision_model", "siglip",
    "siglip_vision_model", "metaclip_2", "metaclip_2_vision_model", "chinese_clip", "chinese_clip_vision_model",
    "altclip", "altclip_vision_model", "vision-encoder-decoder", "vision-text-dual-encoder", "dinov3_vit", "beit",
    "data2vec-vision", "ijepa", "vit_mae",
})  # fmt: skip
