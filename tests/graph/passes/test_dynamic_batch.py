"""A graph that was traced with one image, given several."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.graph.passes.dynamic_batch import BATCH, DynamicBatch

IMAGES = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)


def constant(name, values):
    values = np.asarray(values)
    value = ir.Value(name=name, const_value=ir.tensor(values, name=name), shape=ir.Shape(values.shape))
    value.dtype = ir.DataType.from_numpy(values.dtype)
    return value


def traced(build, shape=(1, 2, 4, 4)):
    """Return the model of the graph that ``build`` gives the last node of, for the input and ``constant``."""
    images = ir.Value(name="images", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    constants, nodes = [], []

    def add(op, *inputs, **attributes):
        made = [
            value if isinstance(value, ir.Value) else constant(f"c{len(constants)}_{k}", value)
            for k, value in enumerate(inputs)
        ]
        constants.extend(value for value in made if value.const_value is not None)
        nodes.append(ir.node(op, made, attributes, name=f"n{len(nodes)}"))
        nodes[-1].outputs[0].name = f"v{len(nodes)}"
        return nodes[-1].outputs[0]

    answer = build(add, images)
    answer.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([images], [answer], nodes=nodes, initializers=constants, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=9)


def run(model, images):
    session = onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
    return session.run(None, {"images": images})[0]


def flat(add, x):
    return add("Reshape", x, [1, 32])


def by_rows(add, x):
    """Of shape (8, 4) for one image, as a Gemm takes its rows, and back."""
    rows = add("Reshape", x, [8, 4])
    return add("Reshape", rows, [1, 2, 16])


def with_others(add, x):
    return add("Reshape", x, [1, 2, -1])


def class_token(add, x):
    tokens = add("Reshape", x, [1, 2, 16])
    return add("Concat", np.ones((1, 1, 16), dtype=np.float32), tokens, axis=1)


def computed_token(add, x):
    tokens = add("Reshape", x, [1, 2, 16])
    token = add("Expand", np.ones(16, dtype=np.float32), np.array([1, 1, 16]))
    return add("Concat", token, tokens, axis=-2)


def sequence_first(add, x):
    """Tokens (N, 1, D), parted into heads and joined to rows, as nn.MultiheadAttention has them."""
    tokens = add("Transpose", add("Reshape", x, [1, 8, 4]), perm=[1, 0, 2])
    token = np.ones((1, 1, 4), dtype=np.float32)
    longer = add("Concat", token, tokens, axis=0)
    heads = add("Transpose", add("Reshape", longer, [9, 2, 2]), perm=[1, 0, 2])
    parted = add("Softmax", add("Reshape", heads, [1, 2, 9, 2]), axis=-1)
    rows = add("Reshape", add("Transpose", parted, perm=[2, 0, 1, 3]), [9, 4])
    mixed = add("MatMul", rows, np.arange(16, dtype=np.float32).reshape(4, 4))
    return add("Transpose", add("Reshape", mixed, [9, 1, 4]), perm=[1, 0, 2])


def resized(add, x):
    larger = add("Resize", x, np.zeros(0, np.float32), np.zeros(0, np.float32), [1, 2, 6, 8], mode="linear")
    return add("Reshape", larger, [1, 96])


def packed(add, x):
    """Keys and values (N, 1, 2 D), parted by an axis that is put first, of sizes that are computed."""
    tokens = add("Transpose", add("Reshape", x, [1, 8, 4]), perm=[1, 0, 2])
    sizes = add("Concat", add("Slice", add("Shape", tokens), [0], [2]), [2, 2], axis=0)
    apart = add("Unsqueeze", add("Reshape", tokens, sizes), [0])
    first = add("Squeeze", add("Transpose", apart, perm=[3, 1, 2, 0, 4]), [3])
    key, value = (add("Gather", first, np.array(index), axis=0) for index in range(2))
    heads = [add("Transpose", add("Reshape", each, [8, 2, 1]), perm=[1, 0, 2]) for each in (key, value)]
    scores = add("MatMul", heads[0], add("Transpose", heads[1], perm=[0, 2, 1]))
    return add("Reshape", scores, [1, 2, 8, 8])


@pytest.mark.parametrize(
    "build", [flat, by_rows, with_others, class_token, computed_token, sequence_first, packed, resized]
)
def test_several_images_get_what_each_gets(build):
    expected = np.concatenate([run(traced(build), image[None]) for image in IMAGES])
    model = traced(build)
    assert DynamicBatch()(model).modified
    assert model.graph.inputs[0].shape[0] == BATCH
    assert not model.graph.inputs[0].shape.is_static()
    np.testing.assert_array_equal(run(model, IMAGES), expected)
    np.testing.assert_array_equal(run(model, IMAGES[:1]), expected[:1])


def test_what_is_not_of_the_images_stays():
    def build(add, x):
        scale = add("Reshape", np.ones(2, dtype=np.float32), [1, 2, 1, 1])
        return add("Mul", x, scale)

    model = traced(build)
    DynamicBatch()(model)
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    assert reshape.inputs[1].const_value.numpy().tolist() == [1, 2, 1, 1]
    np.testing.assert_array_equal(run(model, IMAGES), IMAGES)
