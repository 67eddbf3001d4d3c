"""What an adapter gives, and the tools that adapters share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.config import Config, Configs, sides
from edgevit.models.defaults import Defaults
from edgevit.models.spec import Activation


@dataclass(frozen=True, slots=True)
class Raw(Configs):
    """Tensors as they were read, and what lay beside them; ``name`` is the source as the user gave it."""

    name: str
    weights: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Converted:
    """Tensors under timm's names, and what their shapes do not say; None where the shapes or defaults decide.

    ``patch`` is (channels, height, width) of a patch, where the projection is stored as a matrix. ``mean_pooling`` is
    for models that have a class token and do not pool by it. ``notes`` say what was assumed or left out.
    """

    weights: dict[str, Tensor]
    heads: int | None = None
    head_width: int = 64
    norm_epsilon: float = 1e-6
    activation: Activation = "gelu"
    image_size: tuple[int, int] | None = None
    patch: tuple[int, int, int] | None = None
    mean_pooling: bool = False
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


def left_out(count: int, what: str) -> tuple[str, ...]:
    """Return the note on tensors that the image model does not need."""
    return (f"left out {count} tensors of {what}, which play no part in the output",) if count else ()


def from_hugging_face(
    raw: Raw, rules: Mapping[str, str], *, unused: str, of: str, activation: Activation, norm_epsilon: float
) -> Converted:
    """Rename a transformers model's tensors as ``rename`` does; heads, sizes, epsilon and activation are config.json's.

    ``of`` says what the ``unused`` tensors are; ``activation`` and ``norm_epsilon`` stand in where the config has none.

    Raises:
        CheckpointError: if config.json names an activation that EdgeViT does not have.
    """
    config = raw.config.vision
    known = _activation(config, activation)
    if known is None:
        raise CheckpointError(f"{raw.name} has the activation '{config.hidden_act}'", remedy="use a model with GELU")
    weights, dropped = rename(raw.weights, rules, unused=unused)
    return Converted(
        weights,
        heads=config.num_attention_heads,
        norm_epsilon=config.layer_norm_eps or norm_epsilon,
        activation=known,
        image_size=sides(config.image_size),
        notes=left_out(dropped, of),
    )


def _activation(config: Config, default: Activation) -> Activation | None:
    """Return the activation that a transformers config names; None if EdgeViT does not have it."""
    if config.hidden_act is None:
        return default
    known: dict[str, Activation] = {
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "quick_gelu": "quick_gelu",
    }
    return known.get(config.hidden_act)
