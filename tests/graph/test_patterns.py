"""What is found in a graph of any form; tests/backends/tensorrt finds the same in the nodes of a build's log."""

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.graph.patterns import (
    attention_around,
    attention_names,
    consumers_behind,
    is_cut_apart,
    is_decomposed_layer_norm,
)


def nodes_of(text):
    graph = ir.from_onnx_text(text).graph
    return {node.outputs[0].name: node for node in graph}


#: As exporters beside ours write it: the scale behind the product, and a mask.
MASKED = """<ir_version: 8, opset_import: ["": 20]>
g (float[1, 2, 5, 8] q, float[1, 2, 8, 5] k, float[1, 2, 5, 8] v, float[1, 1, 5, 5] mask) => (float[1, 2, 5, 8] y)
<float root = {2.83}>
{
    product = MatMul(q, k)
    divided = Div(product, root)
    masked = Add(divided, mask)
    weights = Softmax(masked)
    half = Cast<to = 1>(weights)
    y = MatMul(half, v)
}"""


def test_attention_with_a_mask_and_a_cast_is_found():
    nodes = nodes_of(MASKED)
    found = attention_around(nodes["weights"])
    assert (found.scores, found.mixed) == (nodes["product"], nodes["y"])
    assert (found.head_size, found.tokens) == (8, 5)
    assert found.dequantizers() == (None,) * 4
    assert not found.ends_quantized()
    assert found.product_cut_apart() is None


@pytest.mark.parametrize("node", ["product", "masked", "y"])
def test_what_is_no_softmax_is_no_attention(node):
    assert attention_around(nodes_of(MASKED)[node]) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("product = MatMul(q, k)", "product = Add(mask, mask)"),
        ("y = MatMul(half, v)", "y = Identity(v)"),
        ("half = Cast<to = 1>(weights)", "half = Sqrt(weights)"),
    ],
)
def test_a_softmax_without_a_product_on_either_side_is_none(before, after):
    assert before in MASKED
    assert attention_around(nodes_of(MASKED.replace(before, after))["weights"]) is None


@pytest.mark.parametrize(
    ("softmaxes", "names"),
    [
        (["blocks.0.attn.softmax", "blocks.1.attn.softmax"], ["blocks.0.attn", "blocks.1.attn"]),
        (["/layer.0/attn/Softmax", "/a.b/c/softmax"], ["/layer.0/attn", "/a.b/c"]),
        (["/encoder/Softmax", "/encoder/Softmax_1"], ["/encoder/Softmax", "/encoder/Softmax_1"]),
        (["att.0", "att.1", "head.softmax"], ["att.0", "att.1", "head"]),
        (["att.0/softmax", "att.0", "att.1"], ["", "", "att.1"]),  # two want to be att.0
        (["Softmax.0", "Softmax.1"], ["Softmax.0", "Softmax.1"]),
        (["Softmax.1"], ["Softmax.1"]),
        (["a.softmax", "a.softmax"], ["", ""]),
        (["softmax", "", "Softmax_1"], ["", "", ""]),
    ],
)
def test_attentions_are_told_apart(softmaxes, names):
    nodes = [ir.node("Softmax", [ir.val("x")], name=name or None) for name in softmaxes]
    others = [ir.node("Relu", [ir.val("x")], name="att.relu")]
    assert attention_names([*nodes, *others]) == dict(zip(nodes, names, strict=True))


@given(st.lists(st.text(alphabet="ab./", max_size=4), max_size=6))
def test_no_two_have_one_name(softmaxes):
    nodes = [ir.node("Softmax", [ir.val("x")], name=name) for name in softmaxes]
    named = [name for name in attention_names(nodes).values() if name]
    assert len(named) == len(set(named))


def test_consumers_are_found_behind_others_and_where_those_end():
    nodes = nodes_of(
        """<ir_version: 8, opset_import: ["": 20]>
        g (float[4, 6] x) => (float[4, 6] ended, float[4, 3] left)
        {
            first = Relu(x)
            same = Identity(first)
            ended = Identity(same)
            sum = Add(same, first)
            twice = Add(sum, sum)
            left, right = Split<axis = 1, num_outputs = 2>(twice)
        }"""
    )
    names = [node.outputs[0].name for node in consumers_behind(nodes["first"], ("Identity",))]
    assert names == ["ended", "sum"]
    assert [is_cut_apart(nodes[name]) for name in ("sum", "first", "same")] == [True, True, True]
    assert not is_cut_apart(nodes["ended"])


def test_many_sums_of_a_value_with_itself_are_gone_through_once():
    sums = "\n".join(
        f"v{index + 1} = Add(v{index}, v{index}) w{index} = Add(v{index}, v{index})" for index in range(60)
    )
    nodes = nodes_of(f"""<ir_version: 8, opset_import: ["": 20]> g (float[4] x) => (float[4] v60)
        {{ v0 = Relu(x) {sums} }}""")
    assert not is_cut_apart(nodes["v0"])


def test_a_layer_norm_of_single_operations():
    nodes = nodes_of(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4, 6] x) => (float[4, 6] y)
        <float two = {2.0}, float tiny = {1e-6}>
        {
            mean = ReduceMean<axes = [-1]>(x) centred = Sub(x, mean) squares = Pow(centred, two)
            variance = ReduceMean<axes = [-1]>(squares) more = Add(variance, tiny) root = Sqrt(more)
            y = Div(centred, root) alone = Sqrt(x)
        }"""
    )
    found = [name for name, node in nodes.items() if is_decomposed_layer_norm(node)]
    assert found == ["root"]
