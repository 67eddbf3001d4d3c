"""Scores are the same, whatever queries and keys are rewritten to."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.graph.attention import find_attentions
from edgevit.quantization.emit.parts import PartLinears
from edgevit.quantization.linears import find_linears, load_graph
from edgevit.quantization.rewrites.scores import balance_scores, fold_scales, tokens_of
from edgevit.quantization.smoothing import ChannelStatistics


def run(model, images):
    content = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


@pytest.mark.parametrize("parted", [False, True])
def test_queries_come_scaled_and_the_logits_stay(quantized, parted):
    model = load_graph(quantized.path)
    if parted:
        PartLinears()(model)
    before = run(model, quantized.images)
    keys = find_linears(model.graph)[0].weight[:, 32:] if not parted else None
    assert fold_scales(model.graph)
    assert [attention.scale for attention in find_attentions(model.graph)] == [1, 1]
    assert "Mul" not in {node.op_type for node in model.graph if "attn" in (node.name or "")}
    np.testing.assert_allclose(run(model, quantized.images), before, atol=1e-5 * np.abs(before).max())
    if keys is not None:  # keys and values are not touched
        np.testing.assert_array_equal(find_linears(model.graph)[0].weight[:, 32:], keys)
    assert not fold_scales(model.graph)


def test_a_query_that_is_used_elsewhere_too_is_left_alone(quantized):
    model = load_graph(quantized.path)
    for attention in find_attentions(model.graph):
        model.graph.outputs.append(attention.query)
    assert not fold_scales(model.graph)
    assert all(attention.scale != 1 for attention in find_attentions(model.graph))


def channels(model, images):
    """Return what each channel of queries and keys does, and the widest of all."""
    copy = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    values = tokens_of(copy.graph)
    for value in values.values():
        value.dtype = ir.DataType.FLOAT
    copy.graph.outputs.extend(values.values())
    content = ir.serde.serialize_model(copy).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run([str(value.name) for value in values.values()], {"images": images})
    rows = {name: each.reshape(-1, each.shape[-1]) for name, each in zip(values, found, strict=True)}
    return {
        name: ChannelStatistics(
            each.min(axis=0).astype(float), each.max(axis=0).astype(float), each.var(axis=0), each.mean(axis=0)
        )
        for name, each in rows.items()
    }


@pytest.mark.parametrize("parted", [False, True])
def test_balanced_queries_and_keys_reach_as_far_and_the_logits_stay(quantized, parted):
    model = load_graph(quantized.path)
    if parted:
        PartLinears()(model)
    before, seen = run(model, quantized.images), channels(model, quantized.images)
    assert set(seen) == {f"blocks.{block}.attn.{which}" for block in (0, 1) for which in ("query", "key")}
    balance_scores(model.graph, seen)
    fold_scales(model.graph)
    np.testing.assert_allclose(run(model, quantized.images), before, atol=1e-4 * np.abs(before).max())
    after = channels(model, quantized.images)
    for block in (0, 1):
        query, key = after[f"blocks.{block}.attn.query"], after[f"blocks.{block}.attn.key"]
        np.testing.assert_allclose(key.maximum, -key.minimum, rtol=1e-3)  # around 0
        np.testing.assert_allclose(np.maximum(query.maximum, -query.minimum), key.maximum, rtol=1e-3)


def test_what_was_not_seen_and_what_is_always_0_stay_as_they_are(quantized):
    model = load_graph(quantized.path)
    before, seen = run(model, quantized.images), channels(model, quantized.images)
    balance_scores(model.graph, {})
    np.testing.assert_array_equal(run(model, quantized.images), before)
    balance_scores(
        model.graph, {name: ChannelStatistics(*(np.zeros_like(each) for each in one)) for name, one in seen.items()}
    )
    np.testing.assert_allclose(run(model, quantized.images), before, atol=1e-5 * np.abs(before).max())
