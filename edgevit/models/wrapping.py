"""Find the model among what a training saved: averaged and raw weights, prefixes of wrappers, losses, metrics.

A model is what lies under a prefix by names that a family has. Dictionaries in dictionaries count as prefixes too:
``{"state_dict": {"model.cls_token": ...}}`` has the prefix ``state_dict.model.``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.families import FAMILIES, identify

_DEEPEST = 8  # dictionaries in dictionaries
#: What torch puts into the midst of names: it means nothing to the model.
_WITHIN = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?|avg|polyak)(_|$)|^ema|ema$")
_TEACHER = re.compile(r"(^|_)teacher(_|$)")
_STUDENT = re.compile(r"(^|_)student(_|$)")
#: Parts of a training's state that hold tensors and are never the model's.
_NO_MODEL = re.compile(
    r"(optim\w*|\w+_optimizer|(lr_)?schedulers?|\w*scaler|\w*rng\w*|\w*precision|loops|hyper_parameters)"
)
#: Lightning's averaging puts the average in state_dict's place, and torch's counter here.
_LIGHTNING_AVERAGED, _LIGHTNING_COUNTER = "state_dict.", "averaging_state.n_averaged"


@dataclass(frozen=True, slots=True)
class FoundModel:
    """The tensors of one model by its own names, what lay ``beside`` them by full names, and what is to be said."""

    weights: dict[str, Tensor]
    beside: dict[str, Tensor]
    prefix: str
    notes: tuple[str, ...]


def unwrapped(content: Mapping[object, object], source: str, *, raw_weights: bool = False) -> FoundModel:
    """Return the model in ``content``: the averaged one where there is one, unless ``raw_weights`` are asked for.

    Raises:
        CheckpointError: if there is none of a known family, or several between which nothing decides.
    """
    tensors = flattened(content)
    prefixes = model_prefixes(list(tensors))
    if not prefixes:
        _refuse_unknown(content, tensors, source)
    chosen, notes = _choose(prefixes, tensors, source, raw_weights=raw_weights)
    others = [prefix for prefix in prefixes if prefix != chosen]
    if nameless := _nameless(content):
        notes += (f"averaged weights (EMA) under '{nameless}' are a list without names: not taken",)
    weights, beside = {}, {}
    for name, tensor in tensors.items():
        if any(name.startswith(_territory(other, chosen)) and not _closer(name, chosen, other) for other in others):
            continue
        if name.startswith(chosen):
            weights[name.removeprefix(chosen)] = tensor
        else:
            beside[name] = tensor
    return FoundModel(weights, beside, chosen, notes)


def flattened(content: Mapping[object, object]) -> dict[str, Tensor]:
    """Return the tensors of dictionaries in dictionaries, by their keys with dots between them."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def add(mapping: Mapping[object, object], prefix: str, depth: int) -> None:
        seen.add(id(mapping))
        for key, value in mapping.items():
            name = f"{prefix}{key}"
            if isinstance(value, Tensor):
                plain = _WITHIN.sub("", name)
                tensors[name if plain in tensors else plain] = value
            elif (
                isinstance(value, Mapping)
                and isinstance(key, str)
                and not _NO_MODEL.fullmatch(key.lower())
                and depth < _DEEPEST
                and id(value) not in seen
            ):
                add(value, f"{name}.", depth + 1)

    add(content, "", 1)
    return {name: tensor for name, tensor in tensors.items() if not _of_callback(name)}


def _of_callback(name: str) -> bool:
    """Return whether a tensor is what a callback of Lightning's keeps for itself, which averages are not."""
    parts = name.lower().split(".")
    return parts[0] == "callbacks" and not any(_AVERAGED.search(part) for part in parts)


def _nameless(content: Mapping[object, object]) -> str | None:
    """Return the key under which averaged weights lie in a list, as torch_ema keeps them; None if none do."""
    for key, value in content.items():
        if not isinstance(key, str) or not _AVERAGED.search(key.lower()):
            continue
        kept = {key: value, **({f"{key}.{name}": inner for name, inner in value.items()}
                               if isinstance(value, Mapping) else {})}  # fmt: skip
        for name, inner in kept.items():
            if isinstance(inner, list | tuple) and inner and all(isinstance(each, Tensor) for each in inner):
                return name
    return None


def model_prefixes(names: Sequence[str]) -> list[str]:
    """Return the prefixes, shortest first, under which ``names`` are those of a model."""
    starts = {match[1] for family in FAMILIES for name in names if (match := re.fullmatch(_start(family.marks), name))}
    found: list[str] = []
    marked: set[str] = set()  # full names that make a model one of its family
    for prefix in sorted(starts, key=lambda start: (len(start), start)):
        inner = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        family = next((family for family in FAMILIES if family.recognises(inner) == 1), None)
        if family is None:
            continue
        own = {prefix + name for name in inner if any(re.fullmatch(mark, name) for mark in family.marks)}
        if marked.isdisjoint(own):
            found.append(prefix)
            marked |= own
    return found


def _start(marks: tuple[str, ...]) -> str:
    return rf"((?:[^.]+\.)*?)(?:{marks[0]}|{marks[1]})"


def _choose(
    prefixes: list[str], tensors: Mapping[str, Tensor], source: str, *, raw_weights: bool
) -> tuple[str, tuple[str, ...]]:
    averaged = [prefix for prefix in prefixes if is_averaged(prefix, tensors)]
    raw = _without_teachers([prefix for prefix in prefixes if prefix not in averaged])
    if raw_weights and averaged and not raw:
        raise CheckpointError(
            f"{source} holds averaged weights alone ({_shown(averaged)})", remedy="leave out --raw-weights"
        )
    candidates = raw if raw_weights or not averaged else averaged
    chosen = _only(candidates, tensors, source)
    notes: tuple[str, ...] = ()
    if averaged and not raw_weights:
        note = f"took the averaged weights (EMA) under {_shown([chosen])}"
        notes = (f"{note}; --raw-weights takes those under {_shown(raw)}" if raw else note,)
    elif averaged:
        notes = (f"took the raw weights under {_shown([chosen])}, not the averaged ones under {_shown(averaged)}",)
    left = [prefix for prefix in prefixes if prefix not in (*averaged, *raw)]
    return chosen, (*notes, *((f"left out the teacher under {_shown(left)}",) if left else ()))


def is_averaged(prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the model under ``prefix`` is an average over a training, by its name or torch's counter."""
    if _LIGHTNING_COUNTER in tensors:
        return prefix.startswith(_LIGHTNING_AVERAGED)
    counted = prefix.endswith("module.") and f"{prefix.removesuffix('module.')}n_averaged" in tensors
    return counted or any(_AVERAGED.search(part.lower()) for part in prefix.split("."))


def _without_teachers(prefixes: list[str]) -> list[str]:
    """Leave out a teacher beside the model that it taught; a student beside a teacher may be either of them."""
    teachers = [prefix for prefix in prefixes if _has(_TEACHER, prefix)]
    others = [prefix for prefix in prefixes if prefix not in teachers]
    return others if others and not any(_has(_STUDENT, prefix) for prefix in others) else prefixes


def _only(prefixes: list[str], tensors: Mapping[str, Tensor], source: str) -> str:
    first, *others = prefixes
    if all(_same(tensors, first, other) for other in others):
        return first
    kept = others[0] or first
    raise CheckpointError(
        f"{source} holds {len(prefixes)} models, under {_shown(prefixes)}, and nothing says which to use",
        remedy=f"save the state_dict() of one alone: the tensors under '{kept.removesuffix('.')}', for example",
    )


def _same(tensors: Mapping[str, Tensor], one: str, other: str) -> bool:
    parts = [
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (one, other)
    ]
    if parts[0].keys() != parts[1].keys():
        return False
    return all(
        tensor.shape == parts[1][name].shape and torch.equal(tensor, parts[1][name])
        for name, tensor in parts[0].items()
        if tensor.layout == parts[1][name].layout == torch.strided
    )


def _territory(other: str, chosen: str) -> str:
    """Return the prefix of all that goes with ``other`` and not with ``chosen``: ``ema.`` of ``ema.module.``."""
    shared = 0
    parts, own = other.split(".")[:-1], chosen.split(".")[:-1]
    while shared < min(len(parts), len(own)) and parts[shared] == own[shared]:
        shared += 1
    return "".join(f"{part}." for part in parts[: shared + 1])


def _closer(name: str, chosen: str, other: str) -> bool:
    """Return whether ``name`` is under ``chosen``, which itself lies within ``other``."""
    return chosen.startswith(other) and name.startswith(chosen)


def _has(pattern: re.Pattern[str], prefix: str) -> bool:
    return any(pattern.search(part.lower()) for part in prefix.split("."))


def _shown(prefixes: Sequence[str]) -> str:
    return " and ".join(f"'{prefix.removesuffix('.')}'" if prefix else "no prefix" for prefix in prefixes)


def _refuse_unknown(content: Mapping[object, object], tensors: Mapping[str, Tensor], source: str) -> None:
    """Say what is there instead of a model.

    Raises:
        CheckpointError: always.
    """
    keys = [str(key) for key in content]
    if not tensors:
        raise CheckpointError(
            f"{source} does not hold a state_dict: it has no tensors, and its keys are {_some(keys)}",
            remedy="save the model's state_dict() alone",
        )
    wrapped = [key for key, value in content.items() if isinstance(value, Mapping)]
    names = list(tensors)
    if wrapped:
        inner = [name.removeprefix(f"{key}.") for key in wrapped for name in names if name.startswith(f"{key}.")]
        identify(inner or names, f"{source}, with the keys {_some(keys)},")
    identify(names, source)


def _some(names: Sequence[str], most: int = 12) -> str:
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")
