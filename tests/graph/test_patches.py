import onnx
import onnx_ir as ir
import pytest

from edgevit.graph.patches import embedding_before, groups, pads

GRAPH = """net (float[2, 3, 8, 8] images, float[4, 3, 4, 4] weight) => (float[2, n, d] tokens) {
    map = Conv <strides = [4, 4]> (images, weight)
    shape = Constant <value = int64[3] {0, 4, 4}> ()
    flat = Reshape (map, shape)
    tokens = Transpose <perm = [0, 2, 1]> (flat)
}"""


def nodes(text):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    return {node.op_type: node for node in ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph}


def test_the_convolution_before_the_tokens_is_found():
    found = nodes(GRAPH)
    assert embedding_before(found["Transpose"]) is found["Conv"]
    assert embedding_before(found["Reshape"]) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[0, 2, 1]", "[0, 1, 2]"),
        ("{0, 4, 4}", "{0, 8, 2}"),
        ("tokens =", "other = Relu (flat) tokens ="),
        ("flat = Reshape (map", "bent = Relu (map) flat = Reshape (bent"),
    ],
    ids=["not transposed", "channels cut", "read twice", "changed between"],
)
def test_anything_else_is_none(before, after):
    assert embedding_before(nodes(GRAPH.replace(before, after))["Transpose"]) is None


@pytest.mark.parametrize(
    ("attributes", "padded", "count"),
    [
        ("strides = [4, 4]", False, 1),
        ("strides = [4, 4], pads = [0, 0, 0, 0], group = 1", False, 1),
        ("strides = [4, 4], pads = [0, 0, 1, 1]", True, 1),
        ('strides = [4, 4], auto_pad = "SAME_LOWER"', True, 1),
        ('strides = [4, 4], auto_pad = "VALID", group = 3', False, 3),
    ],
)
def test_padding_and_groups(attributes, padded, count):
    convolution = nodes(GRAPH.replace("strides = [4, 4]", attributes).replace("float[4, 3, 4", "float[6, w, 4"))["Conv"]
    assert (pads(convolution), groups(convolution)) == (padded, count)
