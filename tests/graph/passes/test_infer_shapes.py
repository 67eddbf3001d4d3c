"""Shapes as onnx-ir's own pass infers them, which takes longer."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from edgevit.graph.outline import outline
from edgevit.graph.passes.infer_shapes import InferShapes

ONES = np.ones((64, 64), np.float32)
GRAPHS = {
    "a batch of any size": "float[batch, 64] x) => (float[batch, 64] y) { h = MatMul(x, w) y = Add(h, b) }",
    "sizes from a constant": "float[batch, 4, 16] x) => (float[batch, 64] y) { y = Reshape(x, s) }",
    "sizes that are computed": "float[2, 64] x) => (float[n] y) { h = Shape(x) i = Gather(h, one) y = Reshape(x, i) }",
    "a number": "float[batch, 64] x) => (float y) { h = ReduceSum <keepdims = 0> (x) y = Neg(h) }",
    "integers": "float[batch, 64] x) => (int64[batch, 1] y) { h = Softmax(x) y = ArgMax <axis = 1> (h) }",
    "an output that is not used": "float[4, 64] x) => (float[2, 64] y) { y, z = Split <num_outputs = 2> (x) }",
    "an axis that nobody knows": "float[batch, 64] x) => (float[n, 64] y) { h = NonZero(x) y = Add(x, x) }",
    "what is noted already": "float[n, 64] x) => (float[n, 64] y) <float[n, 64] h> { h = Neg(x) y = Neg(h) }",
    "branches": "float[batch, 64] x, bool c) => (float[n, 64] y) { h = Neg(x) y = If (c) <then_branch = t () => "
    "(float[n, 64] a) { a = Neg(h) }, else_branch = e () => (float[n, 64] d) { d = Abs(h) }> }",
    "a list": "float[batch, 64] x) => (float[n, 64] y) { h = SequenceConstruct(x, x) y = SequenceAt(h, zero) }",
    "what is wrong": "float[batch, 64] x) => (float[batch, 64] y) { h = Neg(x) y = MatMul(h, b) z = Add(h, s) }",
    "what ends in no error of onnx's": "float[1, 64] x) => (float[1, 64] y) { y = Neg(x) z = STFT(x, none) }",
}
#: Large ones in front of small ones.
CONSTANTS = {"w": ONES, "s": np.array([0, -1]), "b": ONES[0], "one": np.array([1]), "zero": np.array(0)}
CONSTANTS["none"] = np.zeros(0, np.int64)


@pytest.fixture(params=GRAPHS.values(), ids=GRAPHS)
def models(request, parse):
    """Return a graph twice."""
    return tuple(parse(f"g ({request.param}", CONSTANTS) for _ in range(2))


def everything(model):
    """Return all that a model says, and which of its shapes may be changed."""
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    values += [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    said = [(value.name, value.shape, value.type, getattr(value.shape, "frozen", None)) for value in values]
    return said, list(model.graph.initializers), ir.to_proto(model).SerializeToString()


def test_a_graph_is_as_onnx_irs_pass_leaves_it(models):
    ours, theirs = models
    assert InferShapes()(ours).modified == common.ShapeInferencePass()(theirs).modified
    assert everything(ours) == everything(theirs)
    assert InferShapes()(ours).modified == common.ShapeInferencePass()(theirs).modified
    assert everything(ours) == everything(theirs)


def test_so_are_exports(exported):
    ours, theirs = ir.load(exported.path), ir.load(exported.path)
    for model in (ours, theirs):
        for node in model.graph:
            for value in node.outputs:
                value.shape = value.type = None
    assert InferShapes()(ours).modified
    assert common.ShapeInferencePass()(theirs).modified
    assert everything(ours) == everything(theirs)
    assert all(value.shape is not None for node in ours.graph for value in node.outputs)


def test_a_constant_goes_by_the_name_of_its_value(parse):
    text = "g (float[batch, 4, 16] x) => (float[n, m] y) { h = Reshape(x, s) y = Neg(h) }"
    ours, theirs = parse(text, {"s": CONSTANTS["s"]}), parse(text, {"s": CONSTANTS["s"]})
    for model in (ours, theirs):
        model.graph.initializers["s"].const_value = ir.Tensor(np.array([-1, 64]), name="another")
    InferShapes()(ours)
    common.ShapeInferencePass()(theirs)
    assert everything(ours) == everything(theirs)
    assert ours.graph[0].outputs[0].shape[1] == 64


def test_functions_are_left_to_onnx_ir(parse):
    text = """<ir_version: 10, opset_import: ["": 20, "own": 1]>
    g (float[batch, 64] x) => (float[batch, 64] y) { h = own.twice(x) y = Neg(h) }
    <domain: "own", opset_import: ["": 20]> twice (a) => (b) { b = Add(a, a) }"""
    ours, theirs = (ir.from_proto(onnx.parser.parse_model(text)) for _ in range(2))
    assert InferShapes()(ours).modified == common.ShapeInferencePass()(theirs).modified
    assert everything(ours) == everything(theirs)
    assert ours.graph[0].outputs[0].shape == ["batch", 64]


def test_an_outline_holds_no_large_constant(parse):
    text = "g (float[batch, 64] x) => (float[batch, 64] y) { h = MatMul(x, w) y = Reshape(h, s) }"
    model = parse(text, {"w": ONES, "s": CONSTANTS["s"]})
    before = everything(model)
    found = outline(model, largest=1000).graph
    assert [tensor.name for tensor in found.initializer] == ["s"]
    assert [info.name for info in found.input] == ["x", "w", "s"]
    assert [info.name for info in outline(model, ONES.nbytes).graph.initializer] == ["w", "s"]
    assert everything(model) == before
