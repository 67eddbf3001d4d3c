"""Give every node and value a name of its own."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.metadata import INPUT, OUTPUT

_ODD = re.compile(r"[^A-Za-z0-9_./:[\]-]")
_LONGEST = 200


class NameUniquely(ir.passes.InPlacePass):
    """Calls the one input ``images``, outputs as ``names`` says, and gives all else a name that nothing else has.

    In files of others, nodes may have no names, or share them. What a terminal obeys, or XML does not take, has no
    place in a name, and becomes an underscore.
    """

    def __init__(self, names: Sequence[str] = (OUTPUT,)) -> None:
        super().__init__()
        self._names = tuple(names)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename."""
        graph = model.graph
        given, outputs = {INPUT, *self._names}, list(graph.outputs)
        for node in graph:
            for value in node.outputs:
                if value.name in given and value not in outputs:
                    value.name = f"{value.name}.inner"
        graph.inputs[0].name = INPUT
        for output in outputs:
            output.name = None  # so that two can exchange their names
        for output, name in zip(outputs, self._names, strict=True):
            output.name = name
        for value in [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]:
            if value.name is not None and not value.name.isprintable():
                value.name = _free("".join(map(_printable, value.name)), graph.initializers)
        graph.name = "".join(map(_printable, graph.name or "")) or None
        for node in graph:
            node.name = _ODD.sub("_", node.name or "")[:_LONGEST] or None
        common.NameFixPass()(model)
        return ir.passes.PassResult(model, modified=True)


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else "_"


def _free(name: str, taken: Container[str]) -> str:
    """Return ``name``, or one like it: at no time may two constants have the same."""
    while name in taken:
        name += "_"
    return name


def names_of(outputs: Sequence[str]) -> list[str]:
    """Return names for the ``outputs`` of a file: as they are, but for what has no place in one, and all different."""
    found: list[str] = []
    for output in outputs:
        name = _ODD.sub("_", output)[: _LONGEST - 10] or "output"
        number = 2
        free = name
        while free in (INPUT, *found):
            free, number = f"{name}_{number}", number + 1
        found.append(free)
    return found
