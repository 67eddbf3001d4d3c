"""The original JAX checkpoints (.npz of google-research/vision_transformer, AugReg among them)."""

from __future__ import annotations

import re

from torch import Tensor

from edgevit.models.defaults import HALF, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename
from edgevit.models.positions import JAX

_BLOCK = r"Transformer/encoderblock_(\d+)/"
_ATTENTION = _BLOCK + r"MultiHeadDotProductAttention_\d+/"
_RULES = {
    r"cls": "cls_token",
    r"embedding/(kernel|bias)": r"patch_embed.proj.\1",
    r"Transformer/posembed_input/pos_embedding": "pos_embed",
    _BLOCK + r"LayerNorm_0/(.*)": r"blocks.\1.norm1.\2",
    _BLOCK + r"LayerNorm_[12]/(.*)": r"blocks.\1.norm2.\2",
    _ATTENTION + r"([qkv])(?:uery|ey|alue)/(.*)": r"blocks.\1.attn.\2.\3",
    _ATTENTION + r"out/(.*)": r"blocks.\1.attn.proj.\2",
    _BLOCK + r"MlpBlock_\d+/Dense_0/(.*)": r"blocks.\1.mlp.fc1.\2",
    _BLOCK + r"MlpBlock_\d+/Dense_1/(.*)": r"blocks.\1.mlp.fc2.\2",
    r"Transformer/encoder_norm/(.*)": r"norm.\1",
    r"pre_logits/(.*)": r"pre_logits.fc.\1",
    r"head/(.*)": r"head.\1",
}
_PREFIX = r"opt/target/|params/"


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names, and torch's order of axes: outputs first."""
    renamed, _ = rename({re.sub(f"^(?:{_PREFIX})", "", name): tensor for name, tensor in raw.weights.items()}, _RULES)
    heads = next((tensor.shape[0] for name, tensor in renamed.items() if name.endswith("attn.q.bias")), None)
    weights = {}
    for name, tensor in renamed.items():
        new = re.sub(r"\.(kernel|scale)$", ".weight", name)
        weights[new] = _outputs_first(new, tensor)
    return Converted(weights, heads=heads, resampling=JAX)


def _outputs_first(name: str, tensor: Tensor) -> Tensor:
    if name == "patch_embed.proj.weight":
        return tensor.permute(3, 2, 0, 1)  # (p, p, C, D) -> (D, C, p, p)
    if name.endswith((".attn.q.weight", ".attn.k.weight", ".attn.v.weight")):
        return tensor.flatten(1).T  # (D, h, d) -> (h*d, D)
    if name.endswith(".attn.proj.weight"):
        return tensor.flatten(0, 1).T  # (h, d, D) -> (D, h*d)
    if name.endswith((".attn.q.bias", ".attn.k.bias", ".attn.v.bias")):
        return tensor.flatten()  # (h, d) -> (h*d,)
    return tensor.T if name.endswith(".weight") and tensor.ndim == 2 else tensor


_START = f"(?:{_PREFIX})?"
FAMILY = Family(
    "original JAX ViT (.npz)",
    (
        _START + r"embedding/kernel",
        _START + r"Transformer/posembed_input/pos_embedding",
        _START + _ATTENTION + r"query/kernel",
    ),
    convert,
    Defaults(HALF, None, "bilinear"),
)
