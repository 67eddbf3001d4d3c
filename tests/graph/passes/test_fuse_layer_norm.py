"""LayerNorms in the forms that exporters write them in below opset 17; onnxruntime says what they give."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.graph.passes.fuse_layer_norm import FuseLayerNorm

WIDTH = 8
X = np.random.default_rng(0).normal(size=(2, 5, WIDTH)).astype(np.float32) * 3 + 1
SCALE = np.linspace(0.5, 2, WIDTH, dtype=np.float32)
BIAS = np.linspace(-1, 1, WIDTH, dtype=np.float32)


def mean(source, result, axes=(-1,), keepdims=1):
    return helper.make_node("ReduceMean", [source, f"axes{axes}"], [result], keepdims=keepdims)


def node(op_type, *names):
    *inputs, output = names
    return helper.make_node(op_type, inputs, [output])


START = [mean("x", "m"), node("Sub", "x", "m", "d")]
POW = [*START, node("Pow", "d", "two", "q"), mean("q", "v"), node("Add", "v", "eps", "e"), node("Sqrt", "e", "s")]
MUL = [*START, node("Mul", "d", "d", "q"), mean("q", "v"), node("Add", "eps", "v", "e"), node("Sqrt", "e", "s")]
AFFINE = [node("Mul", "y", "scale", "z"), node("Add", "bias", "z", "out")]
TENSORFLOW = [
    node("Reciprocal", "s", "r"),
    *(node("Mul", "r", "scale", "f"), node("Mul", "x", "f", "xf"), node("Mul", "m", "f", "mf")),
    *(node("Sub", "bias", "mf", "c"), node("Add", "xf", "c", "out")),
]
WITH_TWO_SUBS = [node("Sub", "x", "m", "d2"), node("Div", "d2", "s", "y")]
FUSED = {
    "torch": [*POW, node("Div", "d", "s", "y"), *AFFINE],
    "two Subs, as torch 1 writes them": [*POW, *WITH_TWO_SUBS, *AFFINE],
    "squares by Mul": [*MUL, node("Div", "d", "s", "y"), *AFFINE],
    "Reciprocal": [*POW, node("Reciprocal", "s", "r"), node("Mul", "d", "r", "y"), *AFFINE],
    "no affine": [*POW, node("Div", "d", "s", "out")],
    "scale alone": [*POW, node("Div", "d", "s", "y"), node("Mul", "y", "scale", "out")],
    "TensorFlow": [*MUL, *TENSORFLOW],
}
OTHER_AXIS = [mean("x", "m", (1,)), *START[1:], *POW[2:], node("Div", "d", "s", "out")]
NO_MEAN = [node("Sub", "x", "bias", "d"), *POW[2:], node("Div", "d", "s", "out")]
CUBES = [*START, node("Pow", "d", "three", "q"), *POW[3:], node("Div", "d", "s", "out")]
SHARED = [*POW, node("Div", "d", "s", "y"), node("Add", "y", "s", "out")]


def graph_of(nodes):
    constants = {"two": np.float32(2), "three": np.float32(3), "eps": np.float32(1e-5), "scale": SCALE, "bias": BIAS}
    constants |= {"axes(-1,)": np.array([-1]), "axes(1,)": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 5, WIDTH])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", 5, WIDTH])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


def fused(nodes):
    """Return the kinds of nodes after the pass, and what the graph gives before and after."""
    before = graph_of(nodes)
    model = ir.serde.from_proto(before)
    FuseLayerNorm()(model)
    after = ir.serde.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    return [each.op_type for each in after.graph.node], run(before), run(after)


@pytest.mark.parametrize("name", FUSED)
def test_a_layer_norm_in_single_nodes_becomes_one(name):
    kinds, before, after = fused(FUSED[name])
    assert kinds == ["LayerNormalization"]
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("nodes", [OTHER_AXIS, NO_MEAN, CUBES, SHARED])
def test_what_is_no_layer_norm_over_the_last_axis_stays(nodes):
    kinds, before, after = fused(nodes)
    assert "LayerNormalization" not in kinds
    np.testing.assert_array_equal(after, before)


def test_a_scale_for_each_token_stays_outside():
    nodes = [*POW, node("Div", "d", "s", "y"), node("Mul", "y", "tokens", "out")]
    model = graph_of(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(5, dtype=np.float32).reshape(1, 5, 1), "tokens"))
    changed = ir.serde.from_proto(model)
    FuseLayerNorm()(changed)
    after = ir.serde.to_proto(changed)
    assert [each.op_type for each in after.graph.node] == ["LayerNormalization", "Mul"]
    np.testing.assert_allclose(run(after), run(model), atol=1e-5)
