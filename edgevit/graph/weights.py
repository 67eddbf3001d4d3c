"""The weights of a graph that was read, and when they go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


@contextmanager
def letting_go(model: ir.Model) -> Iterator[ir.Model]:
    """Give ``model``, and let go of its weights at the end: it is of no use then."""
    try:
        yield model
    finally:
        let_go(model)


def let_go(model: ir.Model) -> None:
    """Let go of the weights of ``model``, which is of no use then.

    The nodes and values of a graph refer to one another, so that Python would not free them until it looks for such
    circles, which a few large arrays give it no reason to do: several models would be in memory at once.
    """
    for value in model.graph.initializers.values():
        value.const_value = None
