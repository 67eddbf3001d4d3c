"""onnxruntime runs its own operators beside the standard form of each."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.errors import GraphError
from edgevit.graph.passes.unfuse import Unfuse

WIDTH, HEADS, TOKENS = 8, 2, 5
BATCH = 3


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


W, B, WIDE, NORM = random(WIDTH, WIDTH), random(WIDTH), random(WIDTH, 3 * WIDTH), random(WIDTH)
KERNEL = random(4, TOKENS, 3)

#: Each node reads "x" (batch, 5, 8) and constants, and gives "y".
NODES = {
    "Gelu": (["x"], {}, {}),
    "BiasGelu": (["x", "b"], {"b": B}, {}),
    "FastGelu": (["x"], {}, {}),
    "FastGelu with a bias": (["x", "b"], {"b": B}, {}),
    "QuickGelu": (["x"], {}, {"alpha": 1.702}),
    "QuickGelu as SiLU": (["x"], {}, {"alpha": 1.0}),
    "SkipLayerNormalization": (["x", "x", "g", "b"], {"g": NORM, "b": B}, {"epsilon": 1e-6}),
    "SkipLayerNormalization with a bias": (["x", "x", "g", "b", "c"], {"g": NORM, "b": B, "c": NORM * 2}, {}),
    "SkipLayerNormalization without beta": (["x", "x", "g"], {"g": NORM}, {}),
    "FusedMatMul": (["x", "w"], {"w": W}, {"alpha": 0.5}),
    "FusedMatMul of a transposed weight": (["x", "w"], {"w": W[:6]}, {"transB": 1}),
    "FusedMatMul of itself": (["x", "x"], {}, {"transA": 1, "alpha": 2.0}),
    "FusedConv": (["x", "k"], {"k": KERNEL}, {"activation": "Relu", "pads": [1, 1], "kernel_shape": [3]}),
    "Attention": (["x", "w", "b"], {"w": WIDE, "b": random(3 * WIDTH)}, {"num_heads": HEADS}),
    "Attention with a scale": (
        ["x", "w", "b"],
        {"w": WIDE, "b": random(3 * WIDTH)},
        {"num_heads": HEADS, "scale": 0.3},
    ),
    "MultiHeadAttention": (["x", "x", "x"], {}, {"num_heads": HEADS}),
    "MultiHeadAttention with a bias": (["x", "x", "x", "b"], {"b": random(3 * WIDTH)}, {"num_heads": HEADS}),
}


def model_of(name, *, opset=17, **more):
    inputs, constants, attributes = NODES[name]
    node = helper.make_node(name.split()[0], inputs, ["y"], domain="com.microsoft", **attributes, **more)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "rows", "columns"])],
        [numpy_helper.from_array(values, key) for key, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def answer(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": random(BATCH, TOKENS, WIDTH)})[0]


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("name", NODES)
def test_the_standard_form_gives_what_onnxruntime_gives_for_its_own_operator(name, opset):
    model = model_of(name, opset=opset)
    graph = ir.serde.from_proto(model)
    assert Unfuse((2, 3))(graph).modified
    written = ir.serde.to_proto(graph)
    assert {node.domain for node in written.graph.node} == {""}
    onnx.checker.check_model(written, full_check=True)
    np.testing.assert_allclose(answer(written), answer(model), atol=3e-6, rtol=1e-5)


def test_the_sum_that_a_skip_layer_norm_gives_beside_its_own_output():
    model = model_of("SkipLayerNormalization with a bias")
    model.graph.node[0].output[:] = ["z", "", "", "y"]
    graph = ir.serde.from_proto(model)
    Unfuse((2, 3))(graph)
    np.testing.assert_allclose(answer(ir.serde.to_proto(graph)), answer(model), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Attention", {"unidirectional": 1}),
        ("Attention", {"do_rotary": 1}),
        ("Attention", {"qkv_hidden_sizes": [4, 4, 8]}),
        ("MultiHeadAttention", {"unidirectional": 1}),
    ],
)
def test_an_option_without_a_standard_form_is_refused_by_name(name, options):
    with pytest.raises(GraphError, match=f"{name.split()[0]}.*{next(iter(options))}"):
        Unfuse((2, 3))(ir.serde.from_proto(model_of(name, **options)))


def test_a_mask_is_refused():
    model = model_of("Attention")
    model.graph.node[0].input.append("mask")
    model.graph.initializer.append(numpy_helper.from_array(np.full(BATCH, TOKENS, np.int32), "mask"))
    with pytest.raises(GraphError, match="mask"):
        Unfuse((2, 3))(ir.serde.from_proto(model))


def test_an_unknown_activation_is_refused():
    model = model_of("FusedConv")
    (activation,) = [each for each in model.graph.node[0].attribute if each.name == "activation"]
    activation.s = b"HardSigmoid"
    with pytest.raises(GraphError, match="HardSigmoid"):
        Unfuse((2, 3))(ir.serde.from_proto(model))
