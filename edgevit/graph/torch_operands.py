"""What the operators of a graph take in torch, and how to read their constants: see ``torch_operators``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from edgevit.errors import GraphError


class Operand(NamedTuple):
    """An input of a node: a tensor, and where it is the same for all images, its values."""

    tensor: Tensor
    array: NDArray[np.generic] | None = None


Operands = Sequence[Operand | None]
Operator = Callable[[ir.Node, Operands], Tensor | Sequence[Tensor]]


def refused(node: ir.Node, what: str) -> GraphError:
    """Return the error for a node that torch has no form for."""
    return GraphError(
        f"{node.op_type} '{node.name or node.outputs[0].name}' {what}, and this form of it has no counterpart in torch",
        remedy="export the model with other operators; hosts that run ONNX files take this one as it is",
    )


def required(inputs: Operands, index: int) -> Operand:
    """Return an input that must be there."""
    given = inputs[index]
    assert given is not None  # noqa: S101 - the checker of ONNX has seen to what must be there
    return given


def optional(inputs: Operands, index: int) -> Operand | None:
    """Return an input; None if it is left out."""
    return inputs[index] if index < len(inputs) else None


def whole_numbers(node: ir.Node, given: Operand | None, default: Sequence[int] | None = None) -> list[int]:
    """Return an input of numbers that must be a constant."""
    if given is None:
        if default is None:
            raise refused(node, "lacks an input")
        return list(default)
    if given.array is None:
        raise refused(node, "takes sizes or indices that depend on the image")
    return [int(each) for each in given.array.reshape(-1)]


def attribute_numbers(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    """Return an attribute of several whole numbers."""
    return list(node.attributes.get_ints(name, default) or default)


def axes_of(node: ir.Node, inputs: Operands, index: int = 1, default: Sequence[int] | None = None) -> list[int]:
    """Return axes, which are an attribute or, in later opsets, an input."""
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes"))
    return whole_numbers(node, optional(inputs, index), default)
