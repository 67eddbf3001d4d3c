import onnx_ir as ir
import pytest

from edgevit.graph.attention import find_attentions

TEXT = """<ir_version: 8, opset_import: ["": 20]>
g (float[n, 5, 24] x) => (float[n, 5, 8] y)
<int64[4] heads = {-1, 5, 2, 4}, int64[3] tokens = {-1, 5, 8}, float scale = {0.5}>
{
    q, k, v = Split<axis = 2, num_outputs = 3>(x)
    qh = Reshape(q, heads)
    kh = Reshape(k, heads)
    vh = Reshape(v, heads)
    qt = Transpose<perm = [0, 2, 1, 3]>(qh)
    kt = Transpose<perm = [0, 2, 3, 1]>(kh)
    vt = Transpose<perm = [0, 2, 1, 3]>(vh)
    qs = Mul(qt, scale)
    scores = MatMul(qs, kt)
    [softmax] weights = Softmax<axis = -1>(scores)
    mixed = MatMul(weights, vt)
    joined = Transpose<perm = [0, 2, 1, 3]>(mixed)
    y = Reshape(joined, tokens)
}"""


def attentions(text):
    return find_attentions(ir.from_onnx_text(text).graph)


def test_attention_is_found_with_its_heads_and_scale():
    (attention,) = attentions(TEXT)
    assert (attention.name, attention.heads, attention.scale) == ("y", 2, 0.5)
    assert [value.name for value in (attention.query, attention.key, attention.value)] == ["q", "k", "v"]
    assert attention.output.name == "y"
    assert attention.packed().name == "x"
    assert [node.outputs[0].name for node in attention.query_path] == [
        *("qh", "qt", "qs", "scores", "weights", "mixed", "joined", "y"),
    ]


@pytest.mark.parametrize(
    ("softmax", "name"),
    [("blocks.0.attn.softmax", "blocks.0.attn"), ("/layer.0/attn/Softmax", "/layer.0/attn"), ("softmax", "y")],
)
def test_it_is_called_as_the_module_or_as_its_output(softmax, name):
    graph = ir.from_onnx_text(TEXT).graph
    (node,) = (node for node in graph if node.op_type == "Softmax")
    node.name = softmax
    (attention,) = find_attentions(graph)
    assert attention.name == name


def test_without_a_scale_it_is_1():
    text = TEXT.replace("qs = Mul(qt, scale)", "").replace("MatMul(qs, kt)", "MatMul(qt, kt)")
    (attention,) = attentions(text)
    assert attention.scale == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Softmax<axis = -1>", "Softmax<axis = 1>"),
        ("MatMul(weights, vt)", "MatMul(vt, weights)"),
        ("kt = Transpose<perm = [0, 2, 3, 1]>(kh)", "kt = Transpose<perm = [0, 3, 2, 1]>(kh)"),
        ("qs = Mul(qt, scale)", "qs = Mul(qt, qt)"),
        ("joined = Transpose<perm = [0, 2, 1, 3]>(mixed)", "joined = Transpose<perm = [0, 1, 2, 3]>(mixed)"),
        ("=> (float[n, 5, 8] y)", "=> (float[n, 5, 8] y, float[n, 2, 5, 5] weights)"),
    ],
)
def test_another_form_is_none(before, after):
    assert before in TEXT
    assert attentions(TEXT.replace(before, after)) == []
