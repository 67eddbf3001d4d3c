"""The text towers of CLIP and SigLIP, which are run once, at export.

They are made of the image tower's blocks (Radford et al. 2021; Zhai et al. 2023). Shapes in comments as in ``vit.py``,
with V tokens that there are and E features of the embedding.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.errors import CheckpointError, SpecError
from edgevit.models.families.base import Raw, rename
from edgevit.models.spec import ModelSpec
from edgevit.models.text_spec import REMEDY, TextSpec, text_spec_of
from edgevit.models.vit import Block

#: transformers' names to ours.
_HUGGING_FACE = {
    r"text_model\.embeddings\.token_embedding\.weight": "tokens.weight",
    r"text_model\.embeddings\.position_embedding\.weight": "positions",
    r"text_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)": r"blocks.\1.norm\2.\3",
    r"text_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.*)": r"blocks.\1.attn.\2.\3",
    r"text_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    r"text_model\.encoder\.layers\.(\d+)\.mlp\.(.*)": r"blocks.\1.mlp.\2",
    r"text_model\.final_layer_norm\.(.*)": r"norm.\1",
    r"text_projection\.(weight)": r"projection.\1",
    r"text_model\.head\.(weight|bias)": r"projection.\1",
}
_TOP = r"(?:text\.)?"
_LAYER = _TOP + r"transformer\.resblocks\.(\d+)\."
#: OpenAI's and OpenCLIP's names to ours.
_OPEN_CLIP = {
    _TOP + r"token_embedding\.weight": "tokens.weight",
    _TOP + r"positional_embedding": "positions",
    _LAYER + r"ln_([12])\.(.*)": r"blocks.\1.norm\2.\3",
    _LAYER + r"attn\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    _LAYER + r"attn\.out_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"mlp\.c_fc\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"mlp\.c_proj\.(.*)": r"blocks.\1.mlp.fc2.\2",
    _TOP + r"ln_final\.(.*)": r"norm.\1",
    _TOP + r"text_projection": "projection.transposed",
    _TOP + r"text_projection\.(weight|bias)": r"projection.\1",
}


class CausalMask(nn.Module):
    """Hides what comes after a token; it takes the place of what a block adds to its scores."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self) -> Tensor:  # (N, N)
        """Return 0 where a query (rows) sees a key (columns), else minus infinity."""
        return torch.full((self.length, self.length), -torch.inf).triu(1)


class TextTower(nn.Module):
    """Token numbers (B, N) to embeddings (B, E)."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tokens = nn.Embedding(spec.vocabulary, spec.width)
        self.positions = nn.Parameter(torch.zeros(spec.length, spec.width))
        block = ModelSpec(
            image_size=(1, 1),
            patch_size=(1, 1),
            width=spec.width,
            depth=spec.depth,
            heads=spec.heads,
            classes=0,
            mlp_ratio=spec.mlp_width / spec.width,
            activation=spec.activation,
            norm_epsilon=spec.norm_epsilon,
        )
        self.blocks = nn.ModuleList([Block(block) for _ in range(spec.depth)])
        self.norm = nn.LayerNorm(spec.width, spec.norm_epsilon)
        self.projection = nn.Linear(spec.width, spec.embedding)

    def forward(self, numbers: Tensor) -> Tensor:  # (B, N) -> (B, E)
        """Return one vector a text."""
        x = self.tokens(numbers) + self.positions[: numbers.shape[1]]
        mask = CausalMask(numbers.shape[1]) if self.spec.causal else None
        for block in self.blocks:
            assert isinstance(block, Block)  # noqa: S101 - a list of modules does not say so
            block.attn.relative = mask
            x = block(x)
        ends: Tensor = self.norm(x)[torch.arange(len(x)), self._end(numbers)]
        return functional.linear(ends, self.projection.weight, self.projection.bias)

    def _end(self, numbers: Tensor) -> Tensor:  # (B, N) -> (B,)
        if not self.spec.causal:
            return torch.full((len(numbers),), numbers.shape[1] - 1)
        if self.spec.end is None:
            return numbers.argmax(dim=1)
        return (numbers == self.spec.end).int().argmax(dim=1)


def text_tower(raw: Raw) -> TextTower:
    """Return the text tower that lies beside an image tower.

    Raises:
        CheckpointError: if there is none, or it is of a kind that EdgeViT does not have.

    """
    hugging_face = any(name.startswith("text_model.") for name in raw.weights)
    rules = _HUGGING_FACE if hugging_face else _OPEN_CLIP
    named, _ = rename(raw.weights, rules)
    weights = {
        name: tensor
        for name, tensor in named.items()
        if re.fullmatch(r"tokens\.weight|positions|(blocks|norm|projection)\..+", name) and name not in raw.weights
    }
    missing = {"tokens.weight", "positions", "blocks.0.norm1.weight", "norm.weight"} - weights.keys()
    if missing:
        what = "no text tower" if len(missing) == 4 else f"a text tower that EdgeViT does not have ({_first(missing)})"
        raise CheckpointError(f"{raw.name} has {what}: names of classes cannot become a classifier", remedy=REMEDY)
    _complete(weights)
    try:
        tower = TextTower(text_spec_of(raw, weights, hugging_face=hugging_face))
        _complete_projection(weights)
        tower.load_state_dict(weights)
    except (RuntimeError, SpecError, KeyError, IndexError) as error:
        raise CheckpointError(
            f"the text tower of {raw.name} is not as its config says: {str(error).splitlines()[0]}", remedy=REMEDY
        ) from error
    return tower.eval()


def _first(names: set[str]) -> str:
    return f"without {min(names)}"


def _complete(weights: dict[str, Tensor]) -> None:
    """Stack query, key and value, and give the projection the form of a linear layer."""
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", name)]:
        attention, kind = name.rsplit("q.", 1)
        parts = [f"{attention}{part}.{kind}" for part in "qkv"]
        if all(part in weights for part in parts):
            weights[f"{attention}qkv.{kind}"] = torch.cat([weights.pop(part) for part in parts])
    if "projection.transposed" in weights:
        weights["projection.weight"] = weights.pop("projection.transposed").T.contiguous()


def _complete_projection(weights: dict[str, Tensor]) -> None:
    """Give the projection a bias, and a weight where there is none."""
    if "projection.weight" not in weights:
        weights["projection.weight"] = torch.eye(weights["norm.weight"].shape[0])
    weights.setdefault("projection.bias", torch.zeros(weights["projection.weight"].shape[0]))
