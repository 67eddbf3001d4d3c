"""Tensors that a training saved beside its model: a head by another name is used, all else left out and named."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.timm_args import AS_A_MODULE

#: Names, after the usual tools' adapters have renamed what they know, of all that a model has.
_OWN = re.compile(
    r"(cls_token|dist_token|reg_token|pos_embed|projection(\.\w+)?"
    r"|(patch_embed|blocks|attn_pool|pre_logits|rotary)\..+"
    r"|(norm|norm_pre|fc_norm|head|head_dist)\.(weight|bias))"
)
_WORDS = (
    r"criteri(?:on|a|ons)|loss(?:es)?|metrics?|acc\d?|accuracy|f1|auroc|auc|precision|recall|confmat|confusion|ece"
    r"|kappa|mae|mse|pos_weight|class_weights?|n_averaged|num_updates|teacher|ema|swa|queue|queue_ptr|mixup|cutmix"
    r"|dino_head|ibot_head|mask_token|decoder_(?:pos_embed|embed|blocks|norm|pred)"
)
_TRAINING = re.compile(rf"(?:^|_)(?:{_WORDS})(?:_|$|\d)")
_AVERAGED = re.compile(r"(?:^|_)(?:ema|swa)(?:_|$)")
_STATISTIC = re.compile(r"(?:^|_)(?:mean|std)$")
#: Numbers by which logits are multiplied or divided.
_TEMPERATURE = re.compile(r"(?:^|_)(?:temperature|temp|tau|s|scale|scaling)$")
_HEAD = re.compile(
    r"(^|_)(heads?|fc\d?|classifiers?|classification|cls|linears?|logits|out|output|last_layer|proj_out)(_|$|\d)"
)


def resolved(
    weights: Mapping[str, Tensor], beside: Mapping[str, Tensor], source: str, names: Mapping[int, str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return ``weights`` with what belongs to them of the rest, and notes on what was used, and what left out.

    ``weights`` have timm's names; ``beside`` are tensors outside of the model's prefix by full names, and ``names``
    tell those of the file from the tensors' identities.

    Raises:
        CheckpointError: if something is left over that may change what the model answers.
    """
    own = {name: tensor for name, tensor in weights.items() if _OWN.fullmatch(name)}
    inside = {names.get(id(tensor), name): tensor for name, tensor in weights.items() if name not in own}
    width = _width(own)
    dropped = [name for name, tensor in inside.items() if _of_training(name) or tensor.numel() == 1]
    dropped += [name for name, tensor in beside.items() if _is_no_part(name, tensor, width)]
    everything = {**inside, **beside}
    _check_temperature({name: everything[name] for name in dropped}, own, source)
    rest = {name: tensor for name, tensor in everything.items() if name not in dropped}
    notes: tuple[str, ...] = (f"left out what is no part of the model: {_some(sorted(dropped))}",) if dropped else ()
    if averaged := [name for name in sorted(dropped) if _is_averaged(name) and everything[name].numel() > 1]:
        notes += (f"averaged weights (EMA) by names that are not the model's were not taken: {_some(averaged, 2)}",)
    if not rest:
        return own, notes
    stem = _head(rest, own, width, source)
    own |= {f"head.{kind}": rest[f"{stem}.{kind}"] for kind in ("weight", "bias")}
    return own, (f"took {stem}.weight and {stem}.bias for the head", *notes)


def _width(own: Mapping[str, Tensor]) -> int:
    norm = own.get("blocks.0.norm1.weight")
    return norm.numel() if norm is not None else 0


def _of_training(name: str) -> bool:
    return any(_TRAINING.search(part.lower()) for part in name.split("."))


def _is_no_part(name: str, tensor: Tensor, width: int) -> bool:
    """Return whether a tensor outside of the model's prefix can be left out: nothing of it reads features."""
    if _of_training(name):
        return True
    if _STATISTIC.search(name.rpartition(".")[2]):
        return False
    counts = tensor.numel() == 1 or not tensor.is_floating_point()
    return counts or (tensor.ndim < 3 and width not in tensor.shape and not _is_named_head(name))


def _is_averaged(name: str) -> bool:
    return any(_AVERAGED.search(part.lower()) for part in name.split("."))


def _check_temperature(dropped: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """See to it that no number scales the logits that the head gives.

    Raises:
        CheckpointError: if one does.
    """
    for name, tensor in dropped.items():
        scales = _TEMPERATURE.search(name.rpartition(".")[2].lower()) and not _of_training(name)
        if scales and "head.weight" in own and tensor.is_floating_point() and float(tensor.flatten()[0]) != 1:
            raise CheckpointError(
                f"the model of {source} has a number that may scale its logits: {name} is {float(tensor.flatten()[0])}",
                remedy="if it does, multiply head.weight and head.bias by it (or divide, for a temperature); "
                f"then, or if it does not, save the file without {name}",
            )


def _is_named_head(name: str) -> bool:
    return any(_HEAD.search(part.lower()) for part in name.split("."))


def _head(rest: Mapping[str, Tensor], own: Mapping[str, Tensor], width: int, source: str) -> str:
    """Return the name of the one linear layer that ``rest`` is.

    Raises:
        CheckpointError: if it is something else.
    """
    stems = {name.rpartition(".")[0] for name in rest}
    weight, bias = (rest.get(f"{min(stems)}.{kind}") for kind in ("weight", "bias"))
    whole = len(stems) == 1 and len(rest) == 2 and weight is not None and bias is not None
    if whole and weight is not None and bias is not None and _is_named_head(min(stems)):
        fits = weight.ndim == 2 and weight.shape[1] == width and bias.shape == weight.shape[:1]
        if fits and not own.keys() & {"head.weight", "projection.weight", "pre_logits.fc.weight"}:
            return min(stems)
    shapes = ", ".join(f"{name} {tuple(rest[name].shape)}" for name in sorted(rest)[:6])
    more = f" and {len(rest) - 6} more" if len(rest) > 6 else ""
    if any(_STATISTIC.search(name.rpartition(".")[2]) for name in rest):
        raise CheckpointError(
            f"the model of {source} prepares its images itself: {shapes}{more}",
            remedy="save the ViT's own state_dict() alone, and give this mean and std in preprocessor_config.json",
        )
    if any(_is_named_head(name) for name in rest):
        raise CheckpointError(
            f"the tensors of {source} do not fit the model; left over, and it looks like its head: {shapes}{more}",
            remedy=f"a head is one linear layer, with {width} columns: rename its tensors to head.weight and head.bias "
            f"and leave out the rest, or leave all of it out to get features; a model of another kind: {AS_A_MODULE}",
        )
    raise CheckpointError(
        f"the tensors of {source} do not fit the model; left over: {shapes}{more}",
        remedy="if they play no part in its answers, save the file without them; else it is no plain ViT, and goes "
        f"as a module: {AS_A_MODULE}",
    )


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
