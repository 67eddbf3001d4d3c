"""The text towers of CLIP and SigLIP, which are run once, at export.

They are made of the image tower's blocks (Radford et al. 2021; Zhai et al. 2023). Shapes in comments as in ``vit.py``,
with V tokens that there are and E features of the embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.errors import CheckpointError, SpecError
from edgevit.models.families.base import ACTIVATIONS, Raw, rename
from edgevit.models.spec import Activation, ModelSpec
from edgevit.models.transformers_args import KNOWN
from edgevit.models.vit import Block

_OF_TEXT = {"max_position_embeddings", "projection_size", "vocab_size", "type_vocab_size", "num_text_layers"}

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
_REMEDY = "export the image tower alone, without --labels, or give a CLIP or SigLIP of transformers or OpenCLIP"


@dataclass(frozen=True, slots=True)
class TextSpec:
    """What a text tower is, without its weights.

    ``causal``: a token sees those before it alone, and the text's vector is that at the token ``end``, or at the
    largest number where that is None (CLIP). Else all tokens of a text that is filled up to ``length`` see each other,
    and the vector is that at the last one (SigLIP). ``cleaning`` is what OpenCLIP does to a text first.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    length: int
    vocabulary: int
    embedding: int
    activation: Activation
    norm_epsilon: float
    causal: bool
    end: int | None = None
    cleaning: str | None = None


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
        raise CheckpointError(f"{raw.name} has {what}: names of classes cannot become a classifier", remedy=_REMEDY)
    _complete(weights)
    try:
        spec = (_of_transformers if hugging_face else _of_open_clip)(raw, weights)
        tower = TextTower(spec)
        tower.load_state_dict(weights)
    except (RuntimeError, SpecError, KeyError, IndexError) as error:
        raise CheckpointError(
            f"the text tower of {raw.name} is not as its config says: {str(error).splitlines()[0]}", remedy=_REMEDY
        ) from error
    return tower.eval()


def _first(names: set[str]) -> str:
    return f"without {min(names)}"


def _complete(weights: dict[str, Tensor]) -> None:
    """Stack query, key and value, and give the projection the form of a linear layer with a bias."""
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", name)]:
        attention, kind = name.rsplit("q.", 1)
        parts = [f"{attention}{part}.{kind}" for part in "qkv"]
        if all(part in weights for part in parts):
            weights[f"{attention}qkv.{kind}"] = torch.cat([weights.pop(part) for part in parts])
    if "projection.transposed" in weights:
        weights["projection.weight"] = weights.pop("projection.transposed").T.contiguous()
    if "projection.weight" not in weights:
        weights["projection.weight"] = torch.eye(weights["norm.weight"].shape[0])
    weights.setdefault("projection.bias", torch.zeros(weights["projection.weight"].shape[0]))


class _Sizes(TypedDict):
    width: int
    vocabulary: int
    length: int
    depth: int
    mlp_width: int
    embedding: int


def _sizes(weights: Mapping[str, Tensor]) -> _Sizes:
    return {
        "width": weights["tokens.weight"].shape[1],
        "vocabulary": weights["tokens.weight"].shape[0],
        "length": weights["positions"].shape[0],
        "depth": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        "mlp_width": weights["blocks.0.mlp.fc1.weight"].shape[0],
        "embedding": weights["projection.weight"].shape[0],
    }


def _of_transformers(raw: Raw, weights: Mapping[str, Tensor]) -> TextSpec:
    said = raw.said.get("text_config") or {}
    kind = raw.said.get("model_type")
    if kind not in ("clip", "siglip"):
        raise CheckpointError(
            f"config.json of {raw.name} has the model_type {kind!r}, whose text tower EdgeViT does not have",
            remedy=_REMEDY,
        )
    clip = kind == "clip"
    for key, value in said.items():
        if key not in KNOWN | _OF_TEXT:
            raise CheckpointError(
                f"text_config of {raw.name} says {key}={str(value)[:40]}, which EdgeViT does not implement",
                remedy=_REMEDY,
            )
    act = said.get("hidden_act", "quick_gelu" if clip else "gelu_pytorch_tanh")
    if act not in ACTIVATIONS:
        raise CheckpointError(f"the text tower of {raw.name} has the activation '{act}'", remedy=_REMEDY)
    end = said.get("eos_token_id", 49407)
    return TextSpec(
        **_sizes(weights),
        heads=int(said.get("num_attention_heads", 8 if clip else 12)),
        activation=ACTIVATIONS[act],
        norm_epsilon=float(said.get("layer_norm_eps", 1e-5 if clip else 1e-6)),
        causal=clip,
        end=None if end in (None, 2) else int(end),  # 2 was wrong, and transformers looks for the largest then
    )


def _of_open_clip(raw: Raw, weights: Mapping[str, Tensor]) -> TextSpec:
    sizes = _sizes(weights)
    if raw.open_clip is None:
        if "input_resolution" not in raw.weights:  # OpenAI's archives say it of themselves
            raise CheckpointError(
                f"nothing says what the text tower of {raw.name} is",
                remedy="put the model's open_clip_config.json beside the weights",
            )
        return TextSpec(**sizes, heads=sizes["width"] // 64, activation="quick_gelu", norm_epsilon=1e-5, causal=True)
    model, text = raw.open_clip.model_cfg, raw.open_clip.model_cfg.text_cfg
    strange = sorted(text.keys() - _TEXT_CFG)
    if strange:
        raise CheckpointError(
            f"open_clip_config.json of {raw.name} says {strange[0]} of the text, which EdgeViT does not implement",
            remedy=_REMEDY,
        )
    options = {**(text.get("tokenizer_kwargs") or {})}
    cleaning = options.pop("clean", None)
    if options:
        raise CheckpointError(
            f"open_clip_config.json of {raw.name} says {min(options)} of the tokenizer, which EdgeViT does not do",
            remedy=_REMEDY,
        )
    causal = not text.get("no_causal_mask", False)
    pool = text.get("pool_type", "argmax")
    if (pool, causal) not in (("argmax", True), ("last", False)):
        raise CheckpointError(
            f"the text tower of {raw.name} pools by '{pool}', {'with' if causal else 'without'} a causal mask",
            remedy=_REMEDY,
        )
    tanh = (text.get("act_kwargs") or {}).get("approximate") == "tanh"
    activation: Activation = "quick_gelu" if model.quick_gelu else ("gelu_tanh" if tanh else "gelu")
    epsilon = float((text.get("norm_kwargs") or {}).get("eps", 1e-5))
    return TextSpec(
        **sizes,
        heads=int(text.get("heads", 8)),
        activation=activation,
        norm_epsilon=epsilon,
        causal=causal,
        cleaning=cleaning or (None if causal else "whitespace"),
    )


#: Keys of OpenCLIP's text_cfg that are used, shown by the weights, or change nothing.
_TEXT_CFG = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "no_causal_mask", "pool_type", "proj_bias",
    "act_kwargs", "norm_kwargs", "tokenizer_kwargs", "hf_tokenizer_name", "output_tokens", "proj_type", "embed_cls",
    "pad_id",
}  # fmt: skip
