import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.graph.attention import find_attentions
from edgevit.graph.linears import find_linears, load_graph
from edgevit.quantization.emit.qkv_split import SplitQkv
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales


def run(model, images):
    content = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


@pytest.mark.parametrize("parted", [False, True])
def test_queries_come_scaled_and_the_logits_stay(quantized, parted):
    model = load_graph(quantized.path)
    if parted:
        SplitQkv()(model)
    before = run(model, quantized.images)
    keys = find_linears(model.graph)[0].weight[:, 32:] if not parted else None
    assert fold_attention_scales(model.graph)
    assert [attention.scale for attention in find_attentions(model.graph)] == [1, 1]
    assert "Mul" not in {node.op_type for node in model.graph if "attn" in (node.name or "")}
    np.testing.assert_allclose(run(model, quantized.images), before, atol=1e-5 * np.abs(before).max())
    if keys is not None:  # keys and values are not touched
        np.testing.assert_array_equal(find_linears(model.graph)[0].weight[:, 32:], keys)
    assert not fold_attention_scales(model.graph)


def test_a_query_that_is_used_elsewhere_too_is_left_alone(quantized):
    model = load_graph(quantized.path)
    for attention in find_attentions(model.graph):
        model.graph.outputs.append(attention.query)
    assert not fold_attention_scales(model.graph)
    assert all(attention.scale != 1 for attention in find_attentions(model.graph))
