"""Write a GELU that is made of single operations as the one operator that it is."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.layout import constant

_SINCE = 20  # the opset that brought Gelu
_Samples = NDArray[np.float64]
#: Where the function is looked at: beyond these points both forms are 0 or x to the last digit.
_POINTS = np.linspace(-6, 6, 241)
_NEAR = 1e-6  # what constants in float32 differ by
_DEEPEST = 12  # operators from the input to the result; GELU by Tanh has ten

_TWO = {"Add": np.add, "Div": np.divide, "Mul": np.multiply, "Pow": np.power, "Sub": np.subtract}
_erf = np.vectorize(math.erf, otypes=[np.float64])
_ONE = {"Erf": _erf, "Identity": np.asarray, "Neg": np.negative, "Tanh": np.tanh}


class FuseGelu(ir.passes.InPlacePass):
    """Puts Gelu in the place of what gives the same numbers, by Erf as in opset 19 and before, or by Tanh.

    Exporters put constants in many places. So what lies around an Erf or a Tanh is computed at some points, and
    compared with what GELU gives there.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        if graph.opset_imports.get("", 0) < _SINCE:
            return ir.passes.PassResult(model, modified=False)
        changed = [_fuse(graph, node) for node in list(graph) if node.op_type in ("Erf", "Tanh") and not node.domain]
        return ir.passes.PassResult(model, modified=any(changed))


def _fuse(graph: ir.Graph, curve: ir.Node) -> bool:
    exact = curve.op_type == "Erf"
    for x in _before(curve):
        for node in _after(curve):
            output = node.outputs[0]
            given = _values(output, x, _DEEPEST)
            if given is not None and _is_gelu(given, "none" if exact else "tanh"):
                _replace(graph, node, x, "none" if exact else "tanh")
                return True
    return False


def _before(curve: ir.Node) -> list[ir.Value]:
    """Return what ``curve`` may be a function of, nearest first."""
    found: list[ir.Value] = []
    waiting = [value for value in curve.inputs if value is not None]
    while waiting and len(found) < _DEEPEST:
        value = waiting.pop(0)
        if constant(value) is not None or value in found:
            continue
        found.append(value)
        node = value.producer()
        if node is not None and (node.op_type in _TWO or node.op_type in _ONE) and not node.domain:
            waiting += [each for each in node.inputs if each is not None]
    return found


def _after(curve: ir.Node) -> list[ir.Node]:
    """Return the operators behind ``curve`` that only one other reads each, the last first."""
    found: list[ir.Node] = []
    node = curve
    while len(found) < _DEEPEST:
        users = list(node.outputs[0].uses())
        if len(users) != 1 or node.outputs[0].is_graph_output() or users[0][0].op_type not in _TWO:
            break
        node = users[0][0]
        found.append(node)
    return found[::-1]


def _values(value: ir.Value | None, x: ir.Value, depth: int) -> _Samples | None:
    """Return ``value`` as a function of ``x`` alone, at ``_POINTS``; None if it is none."""
    if value is x:
        return _POINTS
    fixed = constant(value)
    if fixed is not None:
        return fixed.astype(np.float64).reshape(()) if fixed.size == 1 else None
    node = None if value is None else value.producer()
    if node is None or node.domain or depth == 0 or node.op_type not in (*_TWO, *_ONE):
        return None
    inputs = [_values(each, x, depth - 1) for each in node.inputs]
    if None in [None if each is None else 0 for each in inputs]:
        return None
    with np.errstate(all="ignore"):
        result: _Samples = (_ONE if node.op_type in _ONE else _TWO)[node.op_type](*inputs)  # type: ignore[operator]
    return result


def _is_gelu(values: _Samples, approximate: Literal["none", "tanh"]) -> bool:
    if approximate == "none":
        expected = 0.5 * _POINTS * (1 + _erf(_POINTS / math.sqrt(2)))
    else:
        expected = 0.5 * _POINTS * (1 + np.tanh(math.sqrt(2 / math.pi) * (_POINTS + 0.044715 * _POINTS**3)))
    return values.shape == _POINTS.shape and bool(np.abs(values - expected).max() < _NEAR)


def _replace(graph: ir.Graph, node: ir.Node, x: ir.Value, approximate: str) -> None:
    old = node.outputs[0]
    gelu = ir.node("Gelu", [x], {"approximate": approximate}, name=node.name)
    new = gelu.outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [gelu], [old], [new])
