"""What goes into the two products of each attention, and how it would be rounded to integers."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgevit.graph.attention import find_attentions
from edgevit.quantization.arithmetic import symmetric_parameters
from edgevit.quantization.calibration.calibration_table import TensorStatistics
from edgevit.quantization.plan import AttentionPlan

_OPERANDS = ("query", "key", "value")


def operands_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return what the products of each attention take, softmax aside: ``ATTENTION.query``, ``.key`` and ``.value``.

    They are what is multiplied: heads apart, the query scaled.
    """
    found = {}
    for attention in find_attentions(graph):
        values = (attention.scores.inputs[0], attention.scores.inputs[1], attention.mixed.inputs[1])
        for operand, value in zip(_OPERANDS, values, strict=True):
            assert value is not None  # noqa: S101 - a MatMul has two inputs
            found[f"{attention.name}.{operand}"] = value
    return found


def plan_attentions(operands: Mapping[str, TensorStatistics]) -> tuple[AttentionPlan, ...]:
    """Return the plan of each attention whose operands, named as by ``operands_of``, were seen.

    An attention with an operand that stays at 0 has none: there is nothing to scale.
    """
    scales: dict[str, dict[str, float]] = {}
    for name, statistics in operands.items():
        attention, _, operand = name.rpartition(".")
        parameters = symmetric_parameters(statistics.minimum, statistics.maximum)
        of_attention = scales.setdefault(attention, {})
        if parameters is not None:
            of_attention[f"{operand}_scale"] = float(parameters[0])
    return tuple(AttentionPlan(name=name, **found) for name, found in scales.items() if len(found) == len(_OPERANDS))
