import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.errors import GraphError
from edgevit.quantization.emit.lower_opset import LowerOpset

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def model(body, opset=20):
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": {opset}]> g (float[n, 6] x) => (float[n, m] y) '
        f"<int64[4] around = {{0, 1, 0, 2}}, int64[2] axes = {{0, 1}}> {{ {body} }}"
    )


def run(graph):
    return onnx.reference.ReferenceEvaluator(ir.to_proto(graph)).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    "body",
    [
        "y = Gelu(x)",
        "a, b = Split<axis = 1, num_outputs = 2>(x) y = Concat<axis = 1>(b, a)",
        "y = Relu(x)",
        "y = Pad(x, around)",
    ],
)
def test_the_answer_stays_the_same_in_a_graph_of_the_older_opset(body):
    graph = model(body)
    expected = run(graph)
    LowerOpset(17)(graph)
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    np.testing.assert_allclose(run(graph), expected, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        'y = Gelu<approximate = "tanh">(x)',
        "y = ReduceMax<keepdims = 0>(x)",
        "y = Pad(x, around, , axes)",
        'y = Pad<mode = "wrap">(x, around)',
    ],
)
def test_what_the_older_opset_does_not_have_is_named(body):
    with pytest.raises(GraphError):
        LowerOpset(17)(model(body))


def test_an_older_graph_is_left_as_it_is():
    assert not LowerOpset(17)(model("y = Relu(x)", opset=16)).modified
