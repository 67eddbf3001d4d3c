"""Find the Linear layers of an ONNX graph: what is quantized, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.node_facts import layer_of
from edgevit.graph.weights import letting_go

#: The first opset with DequantizeLinear per channel.
_OLDEST_OPSET = 13

_REMEDY = "export the model again with `edgevit export`"


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """y = x W + b in the graph, as MatMul and Add, as MatMul alone, or as Gemm.

    ``weight`` is (K, N), ``bias`` (N,) or None; ``matmul`` the MatMul or Gemm, ``addition`` the Add of the bias where
    that is a node of its own. ``name`` is the product's name, or that of its output where it has none.
    """

    name: str
    matmul: ir.Node
    addition: ir.Node | None
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def of(self) -> str:
        """The layer that this one was added for by a rewrite, such as a residual product; or its own name."""
        return layer_of(self.matmul) or self.name

    @property
    def input(self) -> ir.Value:
        """The layer's input (..., K)."""
        value = self.matmul.inputs[0]
        assert value is not None  # noqa: S101 - find_linears takes only nodes that have one
        return value

    @property
    def output(self) -> ir.Value:
        """The layer's output (..., N), bias included."""
        return (self.addition or self.matmul).outputs[0]


@contextmanager
def open_graph(path: Path) -> Iterator[ir.Model]:
    """Give what ``load_graph`` does, and let go of its weights at the end: the model is of no use then.

    Raises:
        GraphError: as ``load_graph``.

    """
    with letting_go(load_graph(path)) as model:
        yield model


def load_graph(path: Path) -> ir.Model:
    """Read an ONNX file and check that it is well-formed and whole in itself.

    Raises:
        GraphError: if it is missing, damaged, keeps weights in other files, or has an opset before 13.

    """
    try:
        onnx.checker.check_model(str(path))
        model = ir.serde.from_proto(onnx.load(path, load_external_data=False))
        _hold_in_arrays(model)
    except (onnx.checker.ValidationError, ir.serde.SerdeError, OSError, ValueError) as error:
        raise GraphError(f"{path} is not a valid ONNX model: {str(error).splitlines()[0]}", remedy=_REMEDY) from error
    if any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        raise GraphError(f"{path} keeps weights in other files", remedy="save the model as one ONNX file")
    opset = model.opset_imports.get("", 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(f"{path} has opset {opset}, before {_OLDEST_OPSET}", remedy="export the model with opset 20")
    return model


def _hold_in_arrays(model: ir.Model) -> None:
    """Take the weights out of protobuf's memory, which is freed as a whole only, and copies what it is asked for."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.TensorProtoTensor):
                value.const_value = _in_array(value.const_value)
    for node in model.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if isinstance(attribute.value, ir.TensorProtoTensor):
                node.attributes[name] = ir.AttrTensor(name, _in_array(attribute.value))


def _in_array(tensor: ir.TensorProtoTensor) -> ir.Tensor[NDArray[np.generic]]:
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )


def find_linears(graph: ir.Graph) -> list[LinearLayer]:
    """Return the Linear layers of ``graph`` in the order in which they run.

    A layer is a MatMul whose second input is a constant (K, N), with the Add of a constant bias if that follows, or a
    Gemm with constant weight and bias. Products of two activations, as in attention, are none.

    There may be none beside convolutions.

    Raises:
        GraphError: if there is no such layer and no convolution, a weight is not float32, or a weight or bias is not
            finite.

    """
    layers = linears_in(graph)
    if not layers and not any(node.op_type == "Conv" for node in graph):
        raise GraphError(
            "the graph has no Linear layer: no MatMul or Gemm with a constant weight",
            remedy="give a float32 ViT; a model that is quantized already cannot be quantized again",
        )
    for layer in layers:
        _check(layer)
    return layers


def linears_in(graph: ir.Graph) -> list[LinearLayer]:
    """Return what ``find_linears`` does, unchecked: there may be none, and values of any kind."""
    found = [layer for node in graph if (layer := _as_linear(node)) is not None]
    seen: set[str] = set()
    layers = []
    for layer in found:
        name = layer.name if layer.name and layer.name not in seen else str(layer.matmul.outputs[0].name)
        seen.add(name)
        layers.append(LinearLayer(name, layer.matmul, layer.addition, layer.weight, layer.bias))
    return layers


def depends_on_images(value: ir.Value) -> bool:
    """Say whether ``value`` is another one for another image; how many images there are does not count."""
    waiting, seen = [value], {value}
    while waiting:
        each = waiting.pop()
        if each.is_graph_input():
            return True
        node = each.producer()
        if node is None or node.op_type in ("Shape", "Size"):
            continue
        before = {source for source in node.inputs if source is not None} - seen
        seen |= before
        waiting += before
    return False


def as_it_is_now(layer: LinearLayer) -> LinearLayer:
    """Return ``layer`` with the constants that its nodes have by now."""
    found = _as_linear(layer.matmul)
    assert found is not None  # noqa: S101 - rewrites change a layer's constants, not what it is
    return replace(found, name=layer.name)


def _as_linear(node: ir.Node) -> LinearLayer | None:
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2 or _constant(node.inputs[0]) is not None:
        return None
    weight = _constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return None
    if node.op_type == "MatMul":
        addition, bias = _bias_after(node, weight.shape[1])
        return LinearLayer(node.name or "", node, addition, weight, bias)
    if node.op_type == "Gemm":
        return _gemm(node, weight)
    return None


def _gemm(node: ir.Node, weight: NDArray[np.float32]) -> LinearLayer | None:
    attributes = node.attributes
    if attributes.get_int("transA", 0):
        return None
    weight = weight.T if attributes.get_int("transB", 0) else weight
    weight = weight * np.float32(attributes.get_float("alpha", 1.0))
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return LinearLayer(node.name or "", node, None, weight, None)
    bias = _constant(node.inputs[2])
    if bias is None or bias.size not in (1, weight.shape[1]) or (bias.ndim == 2 and bias.shape[0] != 1):
        return None
    bias = np.broadcast_to(bias.reshape(-1), weight.shape[1]) * np.float32(attributes.get_float("beta", 1.0))
    return LinearLayer(node.name or "", node, None, weight, bias)


def _bias_after(product: ir.Node, width: int) -> tuple[ir.Node | None, NDArray[np.float32] | None]:
    """Return the Add of a constant (width,) that takes the product, and that constant, if there is one."""
    output = product.outputs[0]
    consumers = list(output.consumers())
    if len(consumers) != 1 or output.is_graph_output() or consumers[0].op_type != "Add" or consumers[0].domain:
        return None, None
    addition = consumers[0]
    others = [value for value in addition.inputs if value is not output]
    bias = _constant(others[0]) if len(others) == 1 else None
    rank = 2 if output.shape is None else len(output.shape)
    if bias is None or bias.size != width or bias.shape[-1:] != (width,) or bias.ndim > rank:
        return None, None
    return addition, bias.reshape(width)


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return a value that the file fixes; None for what is computed, or given at run time."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _check(layer: LinearLayer) -> None:
    for kind, values in (("weight", layer.weight), ("bias", layer.bias)):
        if values is not None and values.dtype != np.float32:
            raise GraphError(f"the {kind} of '{layer.name}' is {values.dtype}, not float32", remedy=_REMEDY)
        if values is not None and not np.isfinite(values).all():
            raise GraphError(
                f"the {kind} of '{layer.name}' has values that are not finite",
                remedy="train the model again or take an earlier checkpoint: this one is broken",
            )
