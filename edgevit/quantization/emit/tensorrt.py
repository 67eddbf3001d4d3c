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

from edgevit.backends.tensorrt.fusion_limits import unfused_reason
from edgevit.graph.attention import AttentionSubgraph, find_attentions
from edgevit.graph.linears import find_linears
from edgevit.graph.node_facts import before_fake_quant
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit import float8
from edgevit.quantization.emit.dialect import Dialect, LintProfile, UnfusedReason
from edgevit.quantization.emit.prune_residuals import keep_residuals, most_effective_residuals
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.quantize_attention import QuantizeAttention, at_tokens
from edgevit.quantization.emit.rewrite import Passes, QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.engine_file import Emitted
from edgevit.quantization.float16.convert import retype
from edgevit.quantization.plan import QuantizationPlan

_Convert = Callable[[QuantizedLinear], QuantizedLinear]


def emit(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as INT8 and FP16 for TensorRT."""
    plan.check_scheme("symmetric")
    plan = keep_residuals(model, plan, most_effective_residuals(model.graph))
    passes = (PruneToClassToken(), ToFloat16())
    return rewrite(model, plan, path, _split, passes, weight_bits=weight_bits, scale_type=np.float16)


def emit_attention(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write what ``emit`` does with attention in INT8, but for those that stay in float16."""
    plan.check_scheme("symmetric")
    plan = keep_residuals(model, plan, _worth_beside_attention(model.graph, plan, unfused_reason))
    kept, whole = _attentions(model.graph, plan, unfused_reason)
    attention = QuantizeAttention(
        [each for each in plan.attentions if each.name not in kept], scale_type=np.float16, places=at_tokens
    )
    passes = (attention, PruneToClassToken(), ToFloat16())
    substitute = _substitute(lambda linear: linear, whole)
    emitted = rewrite(model, plan, path, substitute, passes, weight_bits=weight_bits, scale_type=np.float16)
    return emitted.keeping(kept)


def emit_float8(model: ir.Model, plan: QuantizationPlan, path: Path) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as FP8 and FP16 for TensorRT."""
    plan.check_scheme("symmetric")
    plan = float8.without_shifts(model, keep_residuals(model, plan, ()))
    return rewrite(model, plan, path, _substitute(float8.as_float8, frozenset()), (PruneToClassToken(), ToFloat16()))


def emit_float8_attention(model: ir.Model, plan: QuantizationPlan, path: Path) -> Emitted:
    """Write what ``emit_float8`` does with attention in FP8, but for those that stay in float16."""
    plan.check_scheme("symmetric")
    plan = keep_residuals(model, plan, ())
    kept, whole = _attentions(model.graph, plan, lambda _size, _tokens: None)
    plans = [each for each in plan.attentions if each.name not in kept]
    attention = QuantizeAttention(plans, scale_type=np.float16, places=at_tokens, zero=float8.ZERO, share=float8.SHARE)
    passes = (attention, PruneToClassToken(), ToFloat16())
    plan = float8.without_shifts(model, plan)
    return rewrite(model, plan, path, _substitute(float8.as_float8, whole), passes).keeping(kept)


def float32_passes() -> Passes:
    """Return what makes a float32 graph compute nothing that the head does not look at."""
    return (PruneToClassToken(),)


class ToFloat16(ir.passes.InPlacePass):
    """Makes float16 of all that is float32, but for the model's inputs and outputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change types."""
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
        InferShapes()(model)
        retype(model.graph, set())
        return ir.passes.PassResult(model, modified=True)


def _split(linear: QuantizedLinear) -> None:
    put_in_place(linear.split(), linear.dequantize_input())


def _substitute(convert: _Convert, whole: frozenset[str]) -> Callable[[QuantizedLinear], None]:
    """Return what puts the form that ``convert`` gives in a layer's place: in parts, but for ``whole`` outputs."""

    def substitute(linear: QuantizedLinear) -> None:
        linear = convert(linear)
        parts = [linear] if linear.output.name in whole else linear.split()
        put_in_place(parts, linear.dequantize_input())

    return substitute


def _worth_beside_attention(graph: ir.Graph, plan: QuantizationPlan, limit: UnfusedReason) -> frozenset[str]:
    """Return the layers whose residual products are worth it, but for those that read what an attention in INT8 gives.

    With a second reader of that, TensorRT would take the attention apart.
    """
    planned = {each.name for each in plan.attentions}
    outputs = {each.output for each in find_attentions(graph) if _float_reason(each, planned, limit) is None}
    consumers = {layer.name for layer in find_linears(graph) if before_fake_quant(layer.input) in outputs}
    return most_effective_residuals(graph) - consumers


def _attentions(graph: ir.Graph, plan: QuantizationPlan, limit: UnfusedReason) -> tuple[dict[str, str], frozenset[str]]:
    """Return the attentions that stay in float with the reasons, and what makes query, key and value of the others."""
    planned = {each.name for each in plan.attentions}
    quantized = set(plan.integer_layers())
    kept, whole = {}, set()
    consumers = {layer.matmul: layer.name for layer in find_linears(graph)}
    for attention in find_attentions(graph):
        reason = _float_reason(attention, planned, limit)
        if reason is None and not quantized.issuperset(consumers.get(user) for user in attention.output.consumers()):
            reason = "what it gives is not quantized, so it would not be one kernel"
        packed = attention.packed()
        if reason is not None:
            kept[attention.name] = reason
        elif packed is not None:
            whole.add(str(packed.name))
    return kept, frozenset(whole)


def _float_reason(attention: AttentionSubgraph, planned: set[str], limit: UnfusedReason) -> str | None:
    if attention.name not in planned:
        return "its plan has no scales for it, or one of its factors stayed at 0 on every image"
    if attention.scaling is not None:
        return "its scale could not be folded into the layer that makes the query"
    if attention.bias is not None:
        return "the sizes of merged tokens are added to its scores, which TensorRT then multiplies in float16"
    shape = attention.key.shape
    tokens, width = (shape[1], shape[2]) if shape is not None else (None, None)
    if not isinstance(tokens, int) or not isinstance(width, int):
        return "the model does not say how many tokens there are"
    return limit(width // attention.heads, tokens)


DIALECT = Dialect(
    name="tensorrt",
    scheme="symmetric",
    emit=emit,
    float32_passes=float32_passes,
    emit_attention=emit_attention,
    emit_float8=emit_float8,
    emit_float8_attention=emit_float8_attention,
    lint=LintProfile(rules=("attention-type", "split-product"), unfused_reason=unfused_reason),
)
