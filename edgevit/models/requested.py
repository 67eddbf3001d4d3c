"""Which outputs of a ViT a user asks for, beside or in place of its logits or features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from edgevit.errors import InputError
from edgevit.likeness import alike
from edgevit.models.outputs import MOST_NUMBERS, Output, dims_of, width_of
from edgevit.models.spec import ModelSpec

RequestKind = Literal["tokens", "blocks", "embedding", "logits"]
_BLOCKS = re.compile(r"blocks=(-?\d+(?:,-?\d+)*)")
_SAY = "say tokens, blocks=2,5,8,11, embedding or logits"


class OutputRequest(NamedTuple):
    """One output that is asked for; ``block`` is the number of the block whose features they are."""

    kind: RequestKind
    block: int | None = None


#: What is asked for, in the order in which the model gives it.
Requests: TypeAlias = tuple[OutputRequest, ...]


def is_request(text: str) -> bool:
    """Say whether ``text`` asks for outputs, and is no path of a bundle."""
    return text in ("tokens", "embedding", "logits") or text.startswith("blocks=")


def requests_in(texts: Sequence[str]) -> Requests:
    """Return what ``texts`` ask for: ``tokens``, ``blocks=2,5,8,11``, ``embedding`` or ``logits``.

    Raises:
        InputError: if one asks for something else, or for the same again.
    """
    found: list[OutputRequest] = []
    for text in texts:
        match text:
            case "tokens" | "embedding" | "logits":
                found.append(OutputRequest(text))
            case _:
                found += [OutputRequest("blocks", block) for block in _blocks(text)]
    if twice := [each for each in found if found.count(each) > 1]:
        name = twice[0].kind if twice[0].block is None else f"block {twice[0].block}"
        raise InputError(f"{name} is asked for twice", remedy="ask for each output once")
    return tuple(found)


def _blocks(text: str) -> list[int]:
    written = _BLOCKS.fullmatch(text.replace(" ", ""))
    if written is None:
        close = alike(text.partition("=")[0], ("tokens", "blocks", "embedding", "logits"))
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise InputError(f"'{text}' is no output of a ViT", remedy=f"{hint}{_SAY}")
    return [int(number) for number in written[1].split(",")]


def outputs_of(spec: ModelSpec, requests: Requests) -> tuple[Output, ...]:
    """Return what a model of ``spec`` gives for ``requests``.

    Raises:
        InputError: if it has no such block, no logits, or would give too many numbers for an image.
    """
    outputs = tuple(_output(spec, request) for request in requests)
    names = [output.name for output in outputs]
    if len(set(names)) < len(names):
        raise InputError("one block is asked for twice, once counted from the end", remedy="ask for each output once")
    if width_of(outputs) > MOST_NUMBERS:
        raise InputError(
            f"these outputs are {width_of(outputs)} numbers for an image, more than {MOST_NUMBERS}",
            remedy="ask for fewer blocks, or a smaller --image-size",
        )
    return outputs


def _output(spec: ModelSpec, request: OutputRequest) -> Output:
    normalized = not spec.norm_after_pooling
    rows, columns = spec.grid
    shape: tuple[int, ...]
    match request.kind:
        case "tokens":
            shape = (rows * columns, spec.width)
            return Output(
                name="tokens", kind="tokens", shape=shape, dims=dims_of("tokens", shape), normalized=normalized
            )
        case "blocks":
            number = block_number(spec, request)
            shape = (spec.width, rows, columns)
            return Output(
                name=f"block_{number}",
                kind="features",
                shape=shape,
                dims=dims_of("features", shape),
                block=number,
                normalized=normalized,
            )
        case "embedding":
            width = spec.projection or spec.pre_logits or spec.pooled_width
            return Output(name="embedding", kind="embedding", shape=(width,), dims=("width",))
        case "logits":
            if not spec.classes:
                raise InputError(
                    "the model gives features and has no logits", remedy="ask for embedding instead of logits"
                )
            return Output(name="logits", kind="logits", shape=(spec.classes,), dims=("classes",))


def block_number(spec: ModelSpec, request: OutputRequest) -> int:
    """Return the number of the block that is asked for, counted from 0; -1 is the last.

    Raises:
        InputError: if there is none.
    """
    asked = request.block or 0
    if not -spec.depth <= asked < spec.depth:
        raise InputError(
            f"there is no block {asked}: the model has {spec.depth}, counted from 0",
            remedy=f"give blocks=0 to blocks={spec.depth - 1}",
        )
    return asked % spec.depth
