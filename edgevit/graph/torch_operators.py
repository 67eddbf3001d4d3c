"""What the operators of a float32 ONNX graph are in torch: in forms that ``torch.export`` and ``torch.jit.trace`` take.

Sizes, axes and indices must be constants, as they are once the number of images is fixed. What an operator cannot be
said in is refused, not approximated.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.graph.torch_layouts import LAYOUTS
from edgevit.graph.torch_maps import MAPS
from edgevit.graph.torch_operands import Operands, Operator, axes_of, optional, refused, required

_TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.BOOL: torch.bool,
}


def operator_of(node: ir.Node) -> Operator:
    """Return what ``node`` does, in torch.

    Raises:
        GraphError: if it is no operator that is known here.

    """
    found = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if found is None:
        raise refused(node, "is not among the operators that are converted")
    return found


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _, inputs: function(required(inputs, 0).tensor)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, inputs: function(required(inputs, 0).tensor, required(inputs, 1).tensor)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return an operator of any number of inputs, such as Max."""

    def run(_: ir.Node, inputs: Operands) -> Tensor:
        found = required(inputs, 0).tensor
        for index in range(1, len(inputs)):
            found = function(found, required(inputs, index).tensor)
        return found

    return run


def _divide(_: ir.Node, inputs: Operands) -> Tensor:
    one, other = required(inputs, 0).tensor, required(inputs, 1).tensor
    return one / other if one.is_floating_point() else torch.div(one, other, rounding_mode="trunc")


def _modulo(node: ir.Node, inputs: Operands) -> Tensor:
    function = torch.fmod if node.attributes.get_int("fmod", 0) else torch.remainder
    return function(required(inputs, 0).tensor, required(inputs, 1).tensor)


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(node: ir.Node, inputs: Operands) -> Tensor:
        x = required(inputs, 0).tensor
        axes = axes_of(node, inputs, default=())
        if not axes:
            if node.attributes.get_int("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, axes, bool(node.attributes.get_int("keepdims", 1)))

    return run


def _softmax(node: ir.Node, inputs: Operands) -> Tensor:
    return functional.softmax(required(inputs, 0).tensor, dim=node.attributes.get_int("axis", -1))


def _gelu(node: ir.Node, inputs: Operands) -> Tensor:
    return functional.gelu(required(inputs, 0).tensor, approximate=node.attributes.get_string("approximate", "none"))


def _clip(node: ir.Node, inputs: Operands) -> Tensor:
    bounds: list[float | None] = []
    for index in (1, 2):
        given = optional(inputs, index)
        if given is not None and given.array is None:
            raise refused(node, "takes bounds that depend on the image")
        bounds.append(None if given is None or given.array is None else float(given.array))
    return torch.clamp(required(inputs, 0).tensor, *bounds)


def _hard_sigmoid(node: ir.Node, inputs: Operands) -> Tensor:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return torch.clamp(required(inputs, 0).tensor * alpha + beta, 0.0, 1.0)


def _leaky_relu(node: ir.Node, inputs: Operands) -> Tensor:
    return functional.leaky_relu(required(inputs, 0).tensor, node.attributes.get_float("alpha", 0.01))


def _layer_norm(node: ir.Node, inputs: Operands) -> Tensor:
    x, weight, bias = required(inputs, 0).tensor, required(inputs, 1).tensor, optional(inputs, 2)
    shape = x.shape[node.attributes.get_int("axis", -1) % x.ndim :]
    shift = None if bias is None else bias.tensor.expand(shape)
    return functional.layer_norm(x, shape, weight.expand(shape), shift, node.attributes.get_float("epsilon", 1e-5))


def _batch_norm(node: ir.Node, inputs: Operands) -> Tensor:
    x, weight, bias, mean, variance = (required(inputs, index).tensor for index in range(5))
    eps = node.attributes.get_float("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)


def _matmul(_: ir.Node, inputs: Operands) -> Tensor:
    return torch.matmul(required(inputs, 0).tensor, required(inputs, 1).tensor)


def _gemm(node: ir.Node, inputs: Operands) -> Tensor:
    one, other = required(inputs, 0).tensor, required(inputs, 1).tensor
    one = one.t() if node.attributes.get_int("transA", 0) else one
    other = other.t() if node.attributes.get_int("transB", 0) else other
    found = torch.matmul(one, other) * node.attributes.get_float("alpha", 1.0)
    bias = optional(inputs, 2)
    return found if bias is None else found + bias.tensor * node.attributes.get_float("beta", 1.0)


def _where(_: ir.Node, inputs: Operands) -> Tensor:
    return torch.where(required(inputs, 0).tensor, required(inputs, 1).tensor, required(inputs, 2).tensor)


def _cast(node: ir.Node, inputs: Operands) -> Tensor:
    kind = _TORCH_TYPES.get(ir.DataType(node.attributes.get_int("to")))
    if kind is None:
        raise refused(node, "casts to a type of numbers other than float32, int64, int32 and bool")
    return required(inputs, 0).tensor.to(kind)


def _identity(_: ir.Node, inputs: Operands) -> Tensor:
    return required(inputs, 0).tensor


OPERATORS: dict[str, Operator] = {
    **LAYOUTS,
    **MAPS,
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _divide,
    "Dropout": _identity,
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "Log": _unary(torch.log),
    "MatMul": _matmul,
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Mod": _modulo,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "ReduceMax": _reduce(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "Relu": _unary(torch.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Softmax": _softmax,
    "Softplus": _unary(functional.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _unary(torch.tanh),
    "Where": _where,
}
