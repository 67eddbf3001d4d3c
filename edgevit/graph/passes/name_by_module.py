"""Call every node and constant by the torch module that it came from."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

#: Where torch.onnx notes the paths of the modules around a node, outermost first, the node's own name last.
SCOPES = "pkg.torch.onnx.name_scopes"

_PARAMETERS = {"Conv": ("weight", "bias"), "LayerNormalization": ("weight", "bias"), "MatMul": ("weight",)}


class NameByModule(ir.passes.InPlacePass):
    """Gives nodes, values and constants the names that the rest of EdgeViT finds them by.

    - A node that applies a module's weight is called as the module: ``blocks.0.attn.qkv`` (MatMul), ``blocks.0.norm1``
      (LayerNormalization), ``patch_embed.proj`` (Conv). Its constants are ``<module>.weight`` and ``<module>.bias``,
      one each: equal constants that were merged across modules are parted, as each module's are rewritten by itself.
    - Any other node is ``<module>.<op>``, and ``<module>.<op>_1`` for the next: ``blocks.0.attn.softmax``.
    - A node's value is ``<node>.output``, and ``<node>.output_0``, ``_1``... where there are more.
    - ``others`` are parameters that no such node applies and that keep their name, such as ``cls_token``; all further
      constants are ``constant_0``, ``constant_1``...

    Inputs and outputs of the graph keep their names.
    """

    def __init__(self, others: Collection[str]) -> None:
        super().__init__()
        self._others = frozenset(others)

    def requires(self, model: ir.Model) -> None:
        """The exporter has noted where nodes came from."""
        if not any(SCOPES in node.metadata_props for node in model.graph):
            raise ir.passes.PreconditionError(f"no node has the metadata '{SCOPES}'")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename everything."""
        before = _names(model.graph)
        modules = {node: _module_of(node) for node in model.graph}
        parameters = set(self._others)
        for node, module in modules.items():
            for index, role in _parameters_of(node):
                _own_constant(model.graph, node, index, f"{module}.{role}")
                parameters.add(f"{module}.{role}")
        _name_nodes(modules)
        _name_constants(model.graph, keep=parameters)
        return ir.passes.PassResult(model, modified=_names(model.graph) != before)

    def ensures(self, model: ir.Model) -> None:
        """Names are unique, and each Linear layer is a MatMul and an Add with constants of its own."""
        names = [node.name for node in model.graph]
        if len(set(names)) != len(names):
            raise ir.passes.PostconditionError(f"nodes share names: {Counter(names).most_common(3)}")
        for node in model.graph:
            if node.op_type == "MatMul" and _holds_weight(node):
                _check_linear(node)


def _name_nodes(modules: dict[ir.Node, str]) -> None:
    used: Counter[str] = Counter()
    for node, module in modules.items():
        name = module if _holds_weight(node) else f"{module}.{node.op_type.lower()}".lstrip(".")
        node.name = f"{name}_{used[name]}" if used[name] else name
        used[name] += 1
        for index, output in enumerate(node.outputs):
            if not output.is_graph_output():
                output.name = f"{node.name}.output" + (f"_{index}" if len(node.outputs) > 1 else "")


def _name_constants(graph: ir.Graph, *, keep: Collection[str]) -> None:
    constants = [value for name, value in graph.initializers.items() if value.uses() and name not in keep]
    for index, value in enumerate(constants):
        value.name = f"constant_{index}"


def _names(graph: ir.Graph) -> list[str | None]:
    values = [value for node in graph for value in (*node.inputs, *node.outputs) if value is not None]
    return [node.name for node in graph] + [value.name for value in values]


def _module_of(node: ir.Node) -> str:
    """Return the path of the module that a node came from; one that does not know belongs to its first user's."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    if scopes and scopes[0] == "":
        return str(scopes[-2])
    users = node.successors()
    return _module_of(users[0]) if users else ""


def _holds_weight(node: ir.Node) -> bool:
    if node.op_type not in _PARAMETERS:
        return False
    weight = node.inputs[1]
    return weight is not None and weight.is_initializer()


def _parameters_of(node: ir.Node) -> Iterator[tuple[int, str]]:
    """Yield the inputs of a node that are a module's parameters, and which."""
    if _holds_weight(node):
        roles = _PARAMETERS[node.op_type][: len(node.inputs) - 1]  # a convolution's bias of zeros has been dropped
        yield from enumerate(roles, start=1)
    elif node.op_type == "Add":
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        bias = node.inputs[1]
        same_module = source is not None and _module_of(source) == _module_of(node)
        if source is not None and same_module and _holds_weight(source) and bias is not None and bias.is_initializer():
            yield 1, "bias"


def _own_constant(graph: ir.Graph, node: ir.Node, index: int, name: str) -> None:
    """Let a node read its constant under ``name``; a copy if it went by another, which others may read too."""
    value = node.inputs[index]
    if value is None or value.name == name or value.const_value is None:
        return
    content = value.const_value.numpy()
    namesake = graph.initializers.get(name)
    if namesake is not None and not namesake.uses():
        del graph.initializers[name]
    elif namesake is not None and not _equal(namesake, content):
        raise ir.passes.PassError(f"'{name}' has another value elsewhere in the graph")
    if name not in graph.initializers:
        tensor = ir.Tensor(content, name=name)
        graph.register_initializer(
            ir.Value(name=name, shape=ir.Shape(content.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    node.replace_input_with(index, graph.initializers[name])


def _equal(value: ir.Value, content: NDArray[Any]) -> bool:
    return value.const_value is not None and np.array_equal(value.const_value.numpy(), content)


def _check_linear(node: ir.Node) -> None:
    weight, users = node.inputs[1], node.successors()
    bias = users[0].inputs[1] if len(users) == 1 and users[0].op_type == "Add" else None
    if weight is None or bias is None or (weight.name, bias.name) != (f"{node.name}.weight", f"{node.name}.bias"):
        raise ir.passes.PostconditionError(f"'{node.name}' is not a MatMul and an Add with constants of its own")
    if weight.shape is None or bias.shape is None or tuple(bias.shape) != (weight.shape[1],):
        raise ir.passes.PostconditionError(f"'{node.name}' has weight {weight.shape} and bias {bias.shape}")
