"""What the outputs of a graph are, told from their names and shapes where nobody says it."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.models.outputs import BOX_KINDS, OutputKind

_TOKENS = ("hidden", "token", "patch", "feat", "block", "layer")
_CLASSES = ("logit", "class", "score", "cls")


def kinds_of(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], said: Sequence[OutputKind | None]
) -> tuple[OutputKind, ...]:
    """Return what each output is, by what is ``said``, else its name and its shape for one image; ``any`` else."""
    found = [kind or _kind(name, shape) for name, shape, kind in zip(names, shapes, said, strict=True)]
    queries = {shape[0] for kind, shape in zip(found, shapes, strict=True) if kind in BOX_KINDS}
    return tuple(
        "scores" if each is None and kind in ("logits", "any") and len(shape) == 2 and shape[0] in queries else kind
        for kind, each, shape in zip(found, said, shapes, strict=True)
    )


def misfit_reason(kind: OutputKind, shape: tuple[int, ...]) -> str | None:
    """Return why an output of ``shape`` for one image cannot be of ``kind``; None if it can."""
    axes = {"embedding": (1,), "tokens": (2,), "features": (3,), "depth": (2, 3), "segmentation": (3,), "boxes": (2,),
            "corners": (2,), "scores": (2,)}.get(kind)  # fmt: skip
    if axes is not None and len(shape) not in axes:
        wanted = {1: "(N, width)", 2: "(N, places, width)", 3: "(N, channels, height, width)"}[axes[-1]]
        return f"has the shape {('N', *shape)} and cannot be {kind}, which is {wanted}".replace("'", "")
    if kind in BOX_KINDS and shape[-1] != 4:
        return f"has {shape[-1]} numbers for a box, not 4"
    if kind == "depth" and len(shape) == 3 and shape[0] != 1:
        return f"has {shape[0]} channels, and depth has one"
    return None


def _kind(name: str, shape: tuple[int, ...]) -> OutputKind:
    word = name.lower()
    has_depth, has_classes = "depth" in word or "dispar" in word, any(each in word for each in _CLASSES)
    match len(shape):
        case 1:
            return "logits" if has_classes else "embedding"
        case 2 if "box" in word and shape[1] == 4:
            return "boxes"
        case 2 if has_depth:
            return "depth"
        case 2 if any(each in word for each in _TOKENS):
            return "tokens"
        case 2 if has_classes:
            return "logits"
        case 3 if has_depth and shape[0] == 1:
            return "depth"
        case 3 if has_classes or "seg" in word or "mask" in word:
            return "segmentation"
        case 3 if any(each in word for each in _TOKENS):
            return "features"
        case _:
            return "any"
