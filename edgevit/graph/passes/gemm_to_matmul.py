"""Write a Linear layer on 2-D values in the same form as all others."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir
from onnxscript.rewriter import RewritePass, RewriteRule


class _Operators(Protocol):
    """The part that is used here of what onnxscript hands to a rule; it makes any operator by its name."""

    def Add(self, a: ir.Value, b: ir.Value) -> ir.Value: ...  # noqa: N802

    def MatMul(self, a: ir.Value, b: ir.Value) -> ir.Value: ...  # noqa: N802

    def Transpose(self, x: ir.Value, *, perm: list[int]) -> ir.Value: ...  # noqa: N802

    def Gemm(self, a: ir.Value, b: ir.Value, c: ir.Value, **match: bool | list[str]) -> ir.Value: ...  # noqa: N802


def _gemm(op: _Operators, x: ir.Value, weight: ir.Value, bias: ir.Value) -> ir.Value:
    return op.Gemm(x, weight, bias, _allow_other_attributes=True, _outputs=["gemm"])


def _is_linear(_context: object, *, gemm: ir.Value, **_inputs: ir.Value) -> bool:
    node = gemm.producer()
    if node is None:
        return False
    attributes = node.attributes
    return (
        attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1
        and attributes.get_int("transA", 0) == 0
        and attributes.get_int("transB", 0) == 1
    )


def _matmul_add(op: _Operators, x: ir.Value, weight: ir.Value, bias: ir.Value, **_matched: ir.Value) -> ir.Value:
    return op.Add(op.MatMul(x, op.Transpose(weight, perm=[1, 0])), bias)


class GemmToMatMul(ir.passes.InPlacePass):
    """Turns Gemm(x, W, b, transB=1) into Add(MatMul(x, Transpose(W)), b).

    torch.onnx writes a Linear layer as Gemm where its input is 2-D (the head) and as MatMul and Add elsewhere; the
    quantizer need know one form only. Constant folding takes the Transpose away, and runtimes fuse the pair again.
    Run it before rules that drop a bias of zeros.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        result: ir.passes.PassResult = RewritePass([RewriteRule(_gemm, _matmul_add, _is_linear)])(model)
        return result

    def ensures(self, model: ir.Model) -> None:
        """No Gemm is left."""
        left = [node.name for node in model.graph if node.op_type == "Gemm"]
        if left:
            raise ir.passes.PostconditionError(f"Gemm nodes in a form that no Linear layer has: {left}")
