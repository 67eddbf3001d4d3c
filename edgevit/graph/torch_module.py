"""From a float32 ONNX graph to a ``torch.nn.Module`` that gives the same, for converters that start from torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgevit.errors import GraphError
from edgevit.graph.linears import LinearLayer, linears_in
from edgevit.graph.torch_maps import padded, pads_of
from edgevit.graph.torch_operands import Operand, Operands, refused
from edgevit.graph.torch_operators import operator_of

_ModuleOutput = Tensor | Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class _Step:
    """A node whose answer depends on the pixels: what it does, with which values, and what it gives.

    A constant among its inputs is in ``constants``, by its position; others are names of values.
    """

    run: Callable[[Operands], _ModuleOutput]
    inputs: tuple[str | None, ...]
    constants: dict[int, Operand]
    outputs: tuple[str, ...]


class TorchGraph(nn.Module):
    """A float32 graph for one image (1, C, H, W) at a time; gives its output, or a tuple of them.

    Linear layers, convolutions and LayerNorms are torch's own modules, by which quantizers know them. What depends on
    no pixel is a constant.
    """

    def __init__(self, model: ir.Model) -> None:
        """Take the graph of ``model``, whose input has fixed sizes but for the number of images.

        Raises:
            GraphError: if an operator has no form in torch.

        """
        super().__init__()
        self.layers = nn.ModuleList()
        (images,) = model.graph.inputs
        sizes = [size for size in list(images.shape or ())[1:] if isinstance(size, int)]
        if len(sizes) != 3:
            raise GraphError("the graph takes images of any size", remedy="export it with a fixed size")
        self._input = str(images.name)
        self._outputs = tuple(str(value.name) for value in model.graph.outputs)
        self._steps: list[_Step] = []
        with torch.no_grad():
            self._build(model.graph, torch.zeros(1, *sizes))
        self.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:  # noqa: D102
        values = {self._input: images}
        for step in self._steps:
            _run(step, values)
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found

    def _build(self, graph: ir.Graph, images: Tensor) -> None:
        """Note what each node does. One image goes through, so that the sizes of values are known."""
        constants = {
            str(value.name): _constant(value.const_value.numpy())
            for value in graph.initializers.values()
            if value.const_value is not None
        }
        values = {self._input: images}
        layers = {layer.matmul: layer for layer in linears_in(graph)}
        done = {layer.addition for layer in layers.values() if layer.addition is not None}
        for node in graph:
            if node in done:
                continue
            if node.op_type == "Constant":
                constants[str(node.outputs[0].name)] = _constant(_value_of(node))
                continue
            if node.op_type in ("Shape", "Size"):
                constants[str(node.outputs[0].name)] = _constant(_sizes(node, constants, values))
                continue
            names = [None if value is None else str(value.name) for value in node.inputs]
            given = {index: constants[name] for index, name in enumerate(names) if name in constants}
            output = [layers[node].output] if node in layers else list(node.outputs)
            if all(name is None or name in constants for name in names):
                operands = [given.get(index) for index in range(len(names))]
                found = _as_tuple(operator_of(node)(node, operands))
                for value, tensor in zip(output, found, strict=False):
                    constants[str(value.name)] = _constant(tensor.numpy())
                continue
            first = values[str(names[0])] if names[0] in values else images
            run = self._module(node, layers.get(node), given, first) or partial(operator_of(node), node)
            step = _Step(run, tuple(names), given, tuple(str(value.name) for value in output))
            _run(step, values)
            self._steps.append(step)
        for name in self._outputs:
            if name not in values:
                raise GraphError(
                    f"the output '{name}' is the same for all images", remedy="export the model without it"
                )

    def _module(
        self, node: ir.Node, layer: LinearLayer | None, given: dict[int, Operand], x: Tensor
    ) -> Callable[[Operands], Tensor] | None:
        """Return ``node`` as one of torch's own modules; None if it is none of these."""
        module: nn.Module | None = None
        if layer is not None:
            module = _linear(layer)
        elif node.op_type == "Conv" and not node.domain and 1 in given:
            module = _convolution(node, given, x)
        elif node.op_type == "LayerNormalization" and not node.domain:
            module = _layer_norm(node, given, x)
        if module is None:
            return None
        self.layers.append(module)
        return partial(_call, module)


def _call(module: nn.Module, inputs: Operands) -> Tensor:
    (x, *_) = inputs
    assert x is not None  # noqa: S101 - it is what the images have become
    found: Tensor = module(x.tensor)
    return found


def _run(step: _Step, values: dict[str, Tensor]) -> None:
    operands: list[Operand | None] = []
    for index, name in enumerate(step.inputs):
        if index in step.constants:
            operands.append(step.constants[index])
        else:
            operands.append(None if name is None else Operand(values[name]))
    values.update(zip(step.outputs, _as_tuple(step.run(operands)), strict=False))


def _as_tuple(found: _ModuleOutput) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _constant(array: NDArray[np.generic]) -> Operand:
    array = np.ascontiguousarray(array).reshape(array.shape)  # of a number, the former makes a row
    return Operand(torch.from_numpy(array.copy()), array)


def _value_of(node: ir.Node) -> NDArray[np.generic]:
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    if tensor is None:
        raise refused(node, "is no tensor")
    return tensor.numpy()


def _sizes(node: ir.Node, constants: dict[str, Operand], values: dict[str, Tensor]) -> NDArray[np.int64]:
    """Return what a Shape or Size gives: for one image, numbers that are known."""
    value = node.inputs[0]
    name = "" if value is None else str(value.name)
    shape = tuple((constants[name].tensor if name in constants else values[name]).shape)
    if node.op_type == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
    return np.array(shape[start:end], dtype=np.int64)


def _filled(module: nn.Module, **values: NDArray[np.float32] | Tensor | None) -> nn.Module:
    for name, value in values.items():
        if value is not None:
            tensor = value.clone() if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
            setattr(module, name, nn.Parameter(tensor, requires_grad=False))
    return module


def _linear(layer: LinearLayer) -> nn.Module:
    width, outputs = layer.weight.shape
    module = torch.nn.utils.skip_init(nn.Linear, width, outputs, bias=layer.bias is not None)
    return _filled(module, weight=layer.weight.T, bias=layer.bias)


def _convolution(node: ir.Node, given: dict[int, Operand], x: Tensor) -> nn.Module:
    weight = given[1].tensor
    kernel = tuple(weight.shape[2:])
    if len(kernel) not in (1, 2):
        raise refused(node, "has more than two axes")
    if len(node.inputs) > 2 and node.inputs[2] is not None and 2 not in given:
        raise refused(node, "has a bias that depends on the image")
    groups = node.attributes.get_int("group", 1)
    before, behind = pads_of(node, x.shape[2:], kernel)
    convolve = torch.nn.utils.skip_init(
        nn.Conv1d if len(kernel) == 1 else nn.Conv2d,
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride=tuple(node.attributes.get_ints("strides", [1] * len(kernel))),
        padding=tuple(before) if before == behind else 0,
        dilation=tuple(node.attributes.get_ints("dilations", [1] * len(kernel))),
        groups=groups,
        bias=2 in given,
    )
    _filled(convolve, weight=weight, bias=given[2].tensor if 2 in given else None)
    return convolve if before == behind else nn.Sequential(_AsymmetricPadding(before, behind), convolve)


class _AsymmetricPadding(nn.Module):
    def __init__(self, before: Sequence[int], behind: Sequence[int]) -> None:
        super().__init__()
        self._before, self._behind = list(before), list(behind)

    def forward(self, x: Tensor) -> Tensor:
        return padded(x, self._before, self._behind)


def _layer_norm(node: ir.Node, given: dict[int, Operand], x: Tensor) -> nn.Module | None:
    shape = list(x.shape[node.attributes.get_int("axis", -1) % x.ndim :])
    used = [given.get(index) for index, value in enumerate(node.inputs) if index and value is not None]
    if any(each is None or list(each.tensor.shape) != shape for each in used):
        return None
    module = nn.LayerNorm(shape, eps=node.attributes.get_float("epsilon", 1e-5), bias=2 in given)
    return _filled(module, weight=given[1].tensor, bias=given[2].tensor if 2 in given else None)
