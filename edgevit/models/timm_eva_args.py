"""What timm's config.json says of a model that timm builds as an ``Eva`` or a ``Beit``: heads, pooling, rotation.

What both have in common with timm's ViT goes through ``timm_args``, under its names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.config import Config
from edgevit.models.rotary import Rotary
from edgevit.models.spec import RotaryPositions
from edgevit.models.timm_args import Understood, check_types, named_args, refusal, table, understand

EvaFamily = Literal["eva", "beit"]

#: What timm's ViT calls the same.
_TRANSLATED = {
    "num_reg_tokens": "reg_tokens",
    "use_pre_transformer_norm": "pre_norm",
    "use_fc_norm": "fc_norm",
    "scale_mlp": "scale_mlp_norm",
    "scale_attn_inner": "scale_attn_norm",
}
#: Of which these values alone are implemented.
_ONLY: dict[str, tuple[object, ...]] = {
    "use_post_norm": (False, None),
    "use_post_transformer_norm": (True, False, None),
    "num_kv_heads": (None,),
    "attn_pool_num_heads": (None,),
    "attn_pool_mlp_ratio": (None,),
    "rope_mrope_section": (None,),
    "rope_type": ("cat", "mixed", "dinov3", None),
    "rope_grid_indexing": ("ij", "xy", None),
}
#: That shapes show, that training alone heeds, or that say how the same is computed.
_HARMLESS = frozenset({
    "qkv_fused", "attn_type", "swiglu_align_to", "attn_only_layer_scale", "use_rel_pos_bias", "use_shared_rel_pos_bias",
    "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords",
})  # fmt: skip
_NUMBERS = {"rope_temperature": 10_000.0, "rope_grid_offset": 0.0}
_ROTARY = frozenset({"use_rot_pos_emb", "rope_rotate_half", "ref_feat_shape"}) | _NUMBERS.keys()
#: That shapes show: timm's default, and what the weights have.
_CLAIMS: dict[str, tuple[bool, Callable[[Mapping[str, Tensor]], bool]]] = {
    "swiglu_mlp": (False, lambda weights: weights["blocks.0.mlp.fc1.weight"].shape[0] == 2 * _hidden(weights)),
    "use_abs_pos_emb": (True, lambda weights: "pos_embed" in weights),
}


@dataclass(frozen=True, slots=True)
class UnderstoodEva:
    """What a config says beside what it says of any ViT; ``described`` where it says what the model is."""

    vit: Understood
    rotary: Rotary | None
    described: bool
    final_norm: bool


def understand_eva(
    config: Config, weights: Mapping[str, Tensor], frequencies: Tensor | None, source: str, kind: EvaFamily
) -> UnderstoodEva:
    """Return what ``config`` says of ``weights``, which are under timm's ViT's names.

    ``frequencies`` are those that the checkpoint has: of rows or columns first, as the config says.

    Raises:
        CheckpointError: if it says something that EdgeViT does not implement, or that contradicts the weights.
    """
    args = {key: value for key, value in (config.model_args or {}).items() if value is not None}
    kinds = table().eva if kind == "eva" else table().beit
    named = named_args(config.architecture, kinds, source, "EVA and DINOv3 models" if kind == "eva" else "BEiT models")
    said = {**(named or {}), **args}
    _check(said, args, weights, config.architecture, source)
    own = _ONLY.keys() | _HARMLESS | _ROTARY | _CLAIMS.keys()
    hidden = {"mlp_ratio"} if said.get("swiglu_mlp") else set()  # shapes show what is left of it once it is aligned
    translated = {
        _TRANSLATED.get(key, key): value for key, value in args.items() if key not in own and key not in hidden
    }
    pooling = said.get("global_pool") if config.global_pool is None else config.global_pool
    if pooling is None and named is not None:
        pooling = "avg"
    vit = understand(
        msgspec.structs.replace(config, architecture=None, model_args=translated, global_pool=pooling), weights, source
    )
    if named is not None:
        vit = _as_named(vit, named, config, weights)
    described = named is not None or not _ROTARY.isdisjoint(args)
    rotary = _rotary(said, frequencies) if kind == "eva" and described else None
    return UnderstoodEva(vit, rotary, described, said.get("use_post_transformer_norm") is not False)


def _check(
    said: Mapping[str, Any], args: Mapping[str, Any], weights: Mapping[str, Tensor], name: str | None, source: str
) -> None:
    check_types(args, source)
    for key, value in said.items():
        if key in _ONLY and value not in _ONLY[key]:
            raise refusal(source, key, value, name)
        if key == "norm_layer" and value != "layernorm":
            raise refusal(source, key, value, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in _NUMBERS and (not number or (key == "rope_temperature" and value <= 0)):
            raise refusal(source, key, value, name)
        if key == "ref_feat_shape" and value is not None and not _is_grid(value):
            raise refusal(source, key, value, name)
    for key, (default, of_weights) in _CLAIMS.items():
        claimed, found = bool(said.get(key, default)), of_weights(weights)
        if claimed != found and (key in args or name is not None):
            by = f" (of {name})" if name and key not in args else ""
            raise CheckpointError(
                f"config.json contradicts the weights of {source}: {key} is {claimed}{by}, the weights have {found}",
                remedy="put the config.json beside the weights that it was saved with",
            )


def _is_grid(value: object) -> bool:
    sizes = list(value) if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)


def _hidden(weights: Mapping[str, Tensor]) -> int:
    return int(weights["blocks.0.mlp.fc2.weight"].shape[1])


def _as_named(vit: Understood, named: Mapping[str, Any], config: Config, weights: Mapping[str, Tensor]) -> Understood:
    """Fill in what the architecture's own arguments and timm's defaults say."""
    heads, notes = vit.heads, vit.notes
    width, found = named.get("embed_dim", 768), weights["blocks.0.norm1.weight"].numel()
    if heads is None and width == found:
        heads = named.get("num_heads", 12)
    elif heads is None:
        note = f"config.json names {config.architecture}, which has width {width}; the weights have {found}"
        notes = (*notes, f"{note}: its number of heads is not theirs")
    side = named.get("img_size", 224)
    sides = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    cfg = config.pretrained_cfg
    size = vit.image_size or (cfg.input_size[1:] if cfg is not None and cfg.input_size else None)
    if size is None and "pos_embed" not in weights:
        size = sides
    epsilon = vit.norm_epsilon or named.get("norm_eps", 1e-6)
    return replace(vit, heads=heads, activation="gelu", norm_epsilon=epsilon, image_size=size, notes=notes)


def _rotary(said: Mapping[str, Any], frequencies: Tensor | None) -> Rotary | None:
    """Return how timm turns queries and keys, with the defaults of its ``Eva``."""
    if not said.get("use_rot_pos_emb"):
        return None
    by_rows = (said.get("rope_grid_indexing") or "ij") == "ij"
    base, offset = (float(said.get(key, default)) for key, default in _NUMBERS.items())
    interleaved = not said.get("rope_rotate_half")
    match said.get("rope_type") or "cat":
        case "mixed":
            own = None if frequencies is None or by_rows else frequencies.flip(0)
            own = frequencies if own is None else own
            return Rotary(RotaryPositions(coordinates="numbers", own=True), interleaved=True, frequencies=own)
        case "dinov3":
            positions = RotaryPositions(coordinates="centres", offset=offset)
        case _:
            grid = said.get("ref_feat_shape")
            reference = None if grid is None else (grid, grid) if isinstance(grid, int) else (grid[0], grid[1])
            positions = RotaryPositions(coordinates="numbers", reference=reference, offset=offset)
    return Rotary(positions, base, "rows" if by_rows else "columns", interleaved)
