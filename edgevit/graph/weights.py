"""The weights of a graph that was read, and when they go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def largest_weights(path: Path, count: int = 4) -> list[bytes]:
    """Return the content of the ``count`` largest constants of the ONNX file ``path``, by which it is recognised.

    Raises:
        GraphError: if it is damaged.

    """
    import onnx

    from edgevit.errors import GraphError

    try:
        tensors = onnx.load(str(path), load_external_data=False).graph.initializer
        arrays = [onnx.numpy_helper.to_array(each) for each in tensors]
    except (OSError, ValueError, TypeError) as error:
        raise GraphError(f"{path} is not a valid ONNX model: {error}", remedy="export the model again") from error
    return [each.tobytes() for each in sorted(arrays, key=lambda array: -array.nbytes)[:count]]
