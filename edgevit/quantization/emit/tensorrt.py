"""For TensorRT 10.12 and later: float16 types, signed symmetric Q/DQ with float16 scales, the bias in float.

Precision lives in the types of the file: what has no Q/DQ around it runs in float16, and attention is fused in it. The
model's input and output stay float32. Scales in float16 are what opset 19 brought.

With attention in float, TensorRT multiplies query, key and value in float too unless each has a product of its own; it
puts the three together again. With attention quantized they stay one product: Q/DQ stand right behind what cuts it.
The last attention then keeps all its queries: with one query INT8 attention over few tokens is not fused.

Of the residual products that the plan has (``rewrites.residual``), those are kept that are worth a kernel each
(``prune_residuals``). With attention quantized, what reads its output has none: TensorRT fuses INT8 attention only
where one QuantizeLinear takes what it gives. In FP8 there are none at all: they are what INT8's steps leave, not those
of a float8, which are fine where values are small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.backends.tensorrt.limits import unfused_reason
from edgevit.files import scratch_folder
from edgevit.graph.attention import Attention, find_attentions
from edgevit.graph.linears import find_linears, open_graph
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit import float8
from edgevit.quantization.emit.dialect import Dialect, LintProfile
from edgevit.quantization.emit.prune_residuals import (
    ChooseResiduals,
    no_residuals,
    residuals_worth_a_kernel,
    with_residuals,
)
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.quantize_attention import QuantizeAttention, at_tokens
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite, write
from edgevit.quantization.float16.convert import retype
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.rewrites.residual import before_fake_quant

#: Returns why TensorRT would not fuse an attention by its head's features and its tokens; None if it does.
_Limit = Callable[[int, int], str | None]
_Convert = Callable[[QuantizedLinear], QuantizedLinear]


def emit(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 and FP16 for TensorRT."""
    plan.check_scheme("symmetric")
    passes = (PruneToClassToken(), ToFloat16())
    with with_residuals(model, plan, residuals_worth_a_kernel) as (base, fewer):
        rewrite(base, fewer, path, _parted, passes, weight_bits=weight_bits, scale_type=np.float16)


def emit_attention(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> dict[str, str]:
    """Write what ``emit`` does with attention in INT8; return those that stay in float16, and why."""
    plan.check_scheme("symmetric")
    with with_residuals(model, plan, _worth_beside_attention(plan, unfused_reason)) as (base, fewer):
        kept, whole = _attentions(base, fewer, unfused_reason)
        attention = QuantizeAttention(
            [each for each in fewer.attentions if each.name not in kept], scale_type=np.float16, places=at_tokens
        )
        passes = (attention, PruneToClassToken(), ToFloat16())
        substitute = _substitute(lambda linear: linear, whole)
        rewrite(base, fewer, path, substitute, passes, weight_bits=weight_bits, scale_type=np.float16)
    return kept


def emit_float8(model: Path, plan: QuantizationPlan, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as FP8 and FP16 for TensorRT."""
    plan.check_scheme("symmetric")
    passes = (PruneToClassToken(), ToFloat16())
    with with_residuals(model, plan, no_residuals) as (single, plan), scratch_folder() as scratch:
        base = scratch / "without_shifts.onnx"
        plan = float8.without_shifts(single, plan, base)
        rewrite(base, plan, path, _substitute(float8.as_float8, frozenset()), passes)


def emit_float8_attention(model: Path, plan: QuantizationPlan, path: Path) -> dict[str, str]:
    """Write what ``emit_float8`` does with attention in FP8; return those that stay in float16, and why."""
    plan.check_scheme("symmetric")
    with with_residuals(model, plan, no_residuals) as (single, plan), scratch_folder() as scratch:
        kept, whole = _attentions(single, plan, lambda _size, _tokens: None)
        plans = [each for each in plan.attentions if each.name not in kept]
        attention = QuantizeAttention(
            plans, scale_type=np.float16, places=at_tokens, zero=float8.ZERO, share=float8.SHARE
        )
        passes = (attention, PruneToClassToken(), ToFloat16())
        base = scratch / "without_shifts.onnx"
        plan = float8.without_shifts(single, plan, base)
        rewrite(base, plan, path, _substitute(float8.as_float8, whole), passes)
    return kept


def emit_float32(model: Path, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path``, with nothing computed that the head does not look at."""
    with open_graph(model) as onnx_model:
        write(onnx_model, (PruneToClassToken(),), path)


class ToFloat16(ir.passes.InPlacePass):
    """Makes float16 of all that is float32, but for the model's inputs and outputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change types."""
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
        common.ShapeInferencePass()(model)
        retype(model.graph, set())
        return ir.passes.PassResult(model, modified=True)


def _parted(linear: QuantizedLinear) -> None:
    put_in_place(linear.parts(), linear.dequantize_input())


def _substitute(convert: _Convert, whole: frozenset[str]) -> Callable[[QuantizedLinear], None]:
    """Return what puts the form that ``convert`` gives in a layer's place: in parts, but for ``whole`` outputs."""

    def substitute(linear: QuantizedLinear) -> None:
        linear = convert(linear)
        parts = [linear] if linear.output.name in whole else linear.parts()
        put_in_place(parts, linear.dequantize_input())

    return substitute


def _worth_beside_attention(plan: QuantizationPlan, limit: _Limit) -> ChooseResiduals:
    """Return what chooses rests, but for those of layers that read what an attention in INT8 gives.

    With a second consumer of that, TensorRT would take the attention apart.
    """
    planned = {each.name for each in plan.attentions}

    def choose(graph: ir.Graph) -> frozenset[str]:
        outputs = {each.output for each in find_attentions(graph) if _reason(each, planned, limit) is None}
        consumers = {layer.name for layer in find_linears(graph) if before_fake_quant(layer.input) in outputs}
        return residuals_worth_a_kernel(graph) - consumers

    return choose


def _attentions(model: Path, plan: QuantizationPlan, limit: _Limit) -> tuple[dict[str, str], frozenset[str]]:
    """Return the attentions that stay in float with the reasons, and what makes query, key and value of the others."""
    planned = {each.name for each in plan.attentions}
    quantized = set(plan.integer_layers())
    kept, whole = {}, set()
    with open_graph(model) as onnx_model:
        common.ShapeInferencePass()(onnx_model)
        consumers = {layer.product: layer.name for layer in find_linears(onnx_model.graph)}
        attentions = find_attentions(onnx_model.graph)
    for attention in attentions:
        reason = _reason(attention, planned, limit)
        if reason is None and not quantized.issuperset(consumers.get(user) for user in attention.output.consumers()):
            reason = "what it gives is not quantized, so it would not be one kernel"
        packed = attention.packed()
        if reason is not None:
            kept[attention.name] = reason
        elif packed is not None:
            whole.add(str(packed.name))
    return kept, frozenset(whole)


def _reason(attention: Attention, planned: set[str], limit: _Limit) -> str | None:
    if attention.name not in planned:
        return "its plan has no scales for it, or one of its factors stayed at 0 on every image"
    if attention.scaling is not None:
        return "its scale could not be folded into the layer that makes the query"
    shape = attention.key.shape
    tokens, width = (shape[1], shape[2]) if shape is not None else (None, None)
    if not isinstance(tokens, int) or not isinstance(width, int):
        return "the model does not say how many tokens there are"
    return limit(width // attention.heads, tokens)


DIALECT = Dialect(
    name="tensorrt",
    scheme="symmetric",
    emit=emit,
    emit_float32=emit_float32,
    emit_attention=emit_attention,
    emit_float8=emit_float8,
    emit_float8_attention=emit_float8_attention,
    lint=LintProfile(rules=("attention-type", "split-product")),
)
