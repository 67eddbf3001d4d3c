"""What timm's config.json says of an architecture: its name, and ``model_args``, which depart from that.

``timm_architectures.json`` holds what each of timm's ViTs passes to its ``VisionTransformer``; a test makes it again
from timm. Each argument is used here, compared with the weights, without effect on inference, or refused by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.json import decode
from edgevit.models.config import Config
from edgevit.models.spec import Activation, Pooling

POOLINGS: dict[str, Pooling] = {"token": "class", "avg": "mean", "max": "max", "avgmax": "mean/max", "map": "attention"}
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
}
#: Gated MLPs, and whether the gate is the second half.
_GATES = {"glumlp": True, "swiglupacked": False, "glumlp-silu-first": False}
#: Arguments of which one value alone is implemented.
_ONLY: dict[str, tuple[Any, ...]] = {
    "pool_include_prefix": (False, None),
    "embed_layer": ("patchembed", None),
    "embed_norm_layer": (None,),
    "block_fn": ("block", None),
    "attn_layer": ("attention", "attn", "", None),
    "pos_embed": ("learn", None),
    "norm_layer": ("layernorm", None),
}
#: What to type for a model of timm's that does not load from weights, and for one of any library.
AS_A_MODULE = "edgevit.export(model, 'model.edgevit', input_shape=(3, 224, 224))"
AS_TIMM_BUILDS = (
    "edgevit.export(timm.create_model('{name}', pretrained=True).eval(), 'model.edgevit', input_shape=(3, 224, 224))"
)
#: Arguments of training, of loading, or of how sizes are checked.
_HARMLESS = frozenset({
    "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
    "weight_init", "fix_init", "dynamic_img_size", "dynamic_img_pad", "device", "dtype", "head_init_scale",
    "strict_img_size", "pretrained", "scriptable", "exportable", "no_jit", "norm_eps", "img_size",
})  # fmt: skip
_USED = frozenset({"num_heads", "act_layer", "global_pool", "mlp_layer"})


@dataclass(frozen=True, slots=True)
class Understood:
    """What a config says that shapes do not show; None where it says nothing."""

    heads: int | None = None
    activation: Activation | None = None
    norm_epsilon: float | None = None
    pooling: Pooling | None = None
    gate: tuple[Activation, bool] | None = None
    image_size: tuple[int, int] | None = None
    final_norm: bool = True
    notes: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True):
    timm: str
    architectures: dict[str, dict[str, Any]]
    eva: dict[str, dict[str, Any]]
    beit: dict[str, dict[str, Any]]
    old_names: dict[str, str]


@functools.cache
def table() -> _Table:
    """Return timm's ViTs by name; ``eva`` and ``beit`` are those that it builds as classes of these names."""
    return decode((files("edgevit.models") / "timm_architectures.json").read_bytes(), _Table)


@functools.cache
def heads_by_width() -> dict[int, tuple[int, ...]]:
    """Return the numbers of heads that published models of a width have."""
    found: dict[int, set[int]] = {384: {12}}  # MoCo v3's ViT-S
    for args in table().architectures.values():
        found.setdefault(args.get("embed_dim", 768), set()).add(args.get("num_heads", 12))
    return {width: tuple(sorted(heads)) for width, heads in found.items()}


def understand(config: Config, weights: Mapping[str, Tensor], source: str) -> Understood:
    """Return what ``config`` says of the architecture of ``weights``, which are under timm's names.

    Raises:
        CheckpointError: if it says something that EdgeViT does not implement, or that contradicts the weights.
    """
    args = config.model_args or {}
    check_types(args, source)
    named = named_args(config.architecture, table().architectures, source)
    said = {**(named or {}), **({} if config.global_pool is None else {"global_pool": config.global_pool}), **args}
    _check_known(said, config.architecture, source)
    _check_weights(args, weights, source)
    heads, notes = _heads(config, named, said, weights)
    sides = args.get("img_size")
    return Understood(
        heads=heads,
        activation=known_value(ACTIVATIONS, said, "act_layer", "gelu" if named is not None else None, source),
        norm_epsilon=said.get("norm_eps") or (1e-6 if named is not None else None),
        pooling=known_value(POOLINGS, said, "global_pool", "token" if named is not None else None, source),
        gate=_gate(said, source),
        image_size=(sides, sides) if isinstance(sides, int) else tuple(sides) if sides else None,
        final_norm=said.get("final_norm") is not False,
        notes=notes,
    )


def name_of(architecture: str | None) -> str:
    """Return timm's present name of an architecture, without the tag of its weights."""
    name = (architecture or "").split(".")[0]
    return table().old_names.get(name, name)


def named_args(
    architecture: str | None, kinds: Mapping[str, Mapping[str, Any]], source: str, what: str = "ViTs"
) -> Mapping[str, Any] | None:
    """Return what an architecture of ``kinds`` passes to its class; None where none is named.

    Raises:
        CheckpointError: if it is none of them.
    """
    if architecture is None:
        return None
    name = name_of(architecture)
    if name not in kinds:
        raise CheckpointError(
            f"config.json of {source} names the architecture '{architecture}', "
            f"which is not one of the {what} of timm {table().timm} that these tensors may be of",
            remedy=f"export it as timm builds it: {AS_TIMM_BUILDS.format(name=name)}; or if it is one of these by "
            "another name, correct 'architecture' in config.json",
        )
    return kinds[name]


def refusal(source: str, key: str, value: object, architecture: str | None = None) -> CheckpointError:
    """Return the error on an argument that is not implemented."""
    by = f" (of {architecture})" if architecture else ""
    way = AS_TIMM_BUILDS.format(name=name_of(architecture)) if architecture else AS_A_MODULE
    return CheckpointError(
        f"config.json of {source} says {key}={value!r}{by}, which EdgeViT does not implement",
        remedy=f"use a model without it, or export it as its library builds it: {way}",
    )


def check_types(args: Mapping[str, Any], source: str) -> None:
    """See to it that numbers are numbers.

    Raises:
        CheckpointError: if one is not.
    """
    for key, least, kind in (("num_heads", 1, int), ("norm_eps", 1e-20, float)):
        value = args.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | kind) or value < least):
            raise refusal(source, key, value)
    size = args.get("img_size")
    edges = size if isinstance(size, list) and len(size) == 2 else [size]
    if size is not None and not all(isinstance(edge, int) and edge > 1 for edge in edges):
        raise refusal(source, "img_size", size)


def outside(config: Config, said: Mapping[str, Any], source: str) -> Config:
    """Return ``config`` with the arguments that a trainer wrote beside ``model_args`` among them.

    Raises:
        CheckpointError: if ``model_args`` or the architecture that it names, which timm builds, do not say the same.
    """
    inside = config.model_args or {}
    beside = {_ALIASES.get(key, key): value for key, value in said.items() if key in _ARGUMENTS or key in _ALIASES}
    beside = {key: value for key, value in beside.items() if value is not None and inside.get(key) != value}
    for key, value in beside.items():
        if config.architecture is not None or key in inside:
            raise CheckpointError(
                f"config.json of {source} says {key}={value!r} outside of model_args, where timm does not heed it",
                remedy="put it into model_args if the model was built with it, else take it out",
            )
    return msgspec.structs.replace(config, model_args={**inside, **beside}) if beside else config


def _check_known(said: Mapping[str, Any], architecture: str | None, source: str) -> None:
    for key, value in said.items():
        if key in _ONLY:
            plain = value.lower() if isinstance(value, str) else value
            if not any(plain is one or plain == one for one in _ONLY[key]):
                raise refusal(source, key, value, architecture)
        elif key not in _HARMLESS and key not in _USED and key not in _CLAIMS:
            raise refusal(source, key, value, architecture)


def known_value(known: Mapping[str, Any], said: Mapping[str, Any], key: str, default: str | None, source: str) -> Any:  # noqa: ANN401
    """Return what ``known`` has for the value of ``key``, or for ``default``; None where neither says anything.

    Raises:
        CheckpointError: if it has nothing for it.
    """
    value = said.get(key)
    if value is None:
        value = default
    if value is None:
        return None
    name = value.lower() if isinstance(value, str) else ""
    if name not in known:
        raise refusal(source, key, value)
    return known[name]


def _gate(said: Mapping[str, Any], source: str) -> tuple[Activation, bool] | None:
    value = said.get("mlp_layer")
    if value in (None, "mlp", "Mlp"):
        return None
    last = known_value(_GATES, said, "mlp_layer", None, source)
    # timm's ViT passes its act_layer on to any MLP, GELU without one, whatever the MLP's own default is.
    return known_value(ACTIVATIONS, said, "act_layer", "gelu", source), last


def _heads(
    config: Config, named: Mapping[str, Any] | None, said: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[int | None, tuple[str, ...]]:
    """Return the number of heads; an architecture's is that of its own width alone."""
    given = (config.model_args or {}).get("num_heads")
    if given is not None:
        return given, ()
    if named is None:
        return None, ()
    wanted, found = said.get("embed_dim", 768), _width(weights)
    if wanted == found:
        return named.get("num_heads", 12), ()
    note = f"config.json names {config.architecture}, which has width {wanted}; the weights have {found}"
    return None, (f"{note}: its number of heads is not theirs",)


def _width(weights: Mapping[str, Tensor]) -> int | None:
    norm = weights.get("blocks.0.norm1.weight")
    return None if norm is None else norm.numel()


def _blocks(weights: Mapping[str, Tensor]) -> int:
    return len({match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))})


def _tokens(weights: Mapping[str, Tensor]) -> int:
    return weights["reg_token"].shape[-2] if "reg_token" in weights else 0


def _patch(weights: Mapping[str, Tensor]) -> object:
    return tuple(weights["patch_embed.proj.weight"].shape[2:])


def _ratio(weights: Mapping[str, Tensor]) -> float:
    rows = weights["blocks.0.mlp.fc1.weight"].shape[0]
    return float(rows / weights["blocks.0.mlp.fc2.weight"].shape[0])


#: Arguments that shapes show: what the weights have.
_CLAIMS: dict[str, Any] = {
    "embed_dim": _width,
    "depth": _blocks,
    "patch_size": _patch,
    "in_chans": lambda weights: weights["patch_embed.proj.weight"].shape[1],
    "num_classes": lambda weights: weights["head.weight"].shape[0] if "head.weight" in weights else 0,
    "mlp_ratio": _ratio,
    "class_token": lambda weights: "cls_token" in weights,
    "reg_tokens": _tokens,
    "pre_norm": lambda weights: "norm_pre.weight" in weights,
    "qkv_bias": lambda weights: "blocks.0.attn.qkv.bias" in weights,
    "proj_bias": lambda weights: "blocks.0.attn.proj.bias" in weights,
    "fc_norm": lambda weights: "fc_norm.weight" in weights,
    "init_values": lambda weights: "blocks.0.ls1.gamma" in weights,
    "qk_norm": lambda weights: "blocks.0.attn.q_norm.weight" in weights,
    "scale_attn_norm": lambda weights: "blocks.0.attn.norm.weight" in weights,
    "scale_mlp_norm": lambda weights: "blocks.0.mlp.norm.weight" in weights,
    "final_norm": lambda weights: bool(weights.keys() & {"norm.weight", "fc_norm.weight"}),
    "no_embed_class": lambda _: None,
}


#: Those that change what a model computes, and that ``Config`` does not have.
_ARGUMENTS = (_USED | _ONLY.keys() | _CLAIMS.keys() | {"img_size", "norm_eps"}) - {
    "num_classes", "global_pool", "patch_size",
}  # fmt: skip
#: What other trainers call them.
_ALIASES = {"num_attention_heads": "num_heads", "hidden_act": "act_layer", "layer_norm_eps": "norm_eps"}


def _check_weights(args: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> None:
    for key in args.keys() & _CLAIMS.keys():
        value = args[key]
        found = _CLAIMS[key](weights)
        if value is None or found is None:
            continue
        if key == "init_values":
            value = bool(value)
        elif key == "mlp_ratio" and isinstance(value, int | float):
            width = _width(weights) or 1
            inner = int(width * value)
            value, found = inner, round(found * width)
        elif key == "patch_size":
            value = (value, value) if isinstance(value, int) else tuple(value)
        elif key == "reg_tokens" and "dist_token" in weights:
            continue
        if value != found:
            raise CheckpointError(
                f"model_args in config.json contradict the weights of {source}: {key} is {args[key]!r}, "
                f"the weights have {found}",
                remedy="put the config.json beside the weights that it was saved with",
            )
