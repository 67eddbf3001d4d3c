import gc
import weakref

import numpy as np
import onnx
import pytest
import torch

from edgevit.errors import GraphError
from edgevit.graph.linears import find_linears, load_graph, open_graph

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(4, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=3).astype(np.float32)


def find(path):
    return find_linears(load_graph(path).graph)


def only(path):
    (layer,) = find(path)
    return layer


def test_the_layers_of_a_vit_are_found_in_order_with_their_parameters(small):
    layers = find(small.path)
    modules = small.model.named_modules()
    assert [layer.name for layer in layers] == [name for name, each in modules if isinstance(each, torch.nn.Linear)]
    parameters = small.model.state_dict()
    for layer in layers:
        np.testing.assert_array_equal(layer.weight, parameters[f"{layer.name}.weight"].numpy().T)
        np.testing.assert_array_equal(layer.bias, parameters[f"{layer.name}.bias"].numpy())


@pytest.mark.parametrize("bias", [BIAS, BIAS.reshape(1, 3)])
@pytest.mark.parametrize("add", ["Add(p, b)", "Add(b, p)"])
def test_matmul_with_the_bias_on_either_side(write_graph, bias, add):
    path = write_graph(
        f"g (float[n, 7, 4] x) => (float[n, 7, 3] y) {{ [fc] p = MatMul(x, w) [sum] y = {add} }}",
        {"w": WEIGHT, "b": bias},
    )
    layer = only(path)
    assert (layer.name, layer.input.name, layer.output.name) == ("fc", "x", "y")
    np.testing.assert_array_equal(layer.bias, BIAS)


def test_matmul_without_bias(write_graph):
    path = write_graph("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT})
    layer = only(path)
    assert (layer.name, layer.bias, layer.addition) == ("y", None, None)  # the node has no name: its output's


def test_an_add_that_is_no_bias_stays_out(write_graph):
    path = write_graph(
        "g (float[n, 4] x, float[n, 3] r) => (float[n, 3] y) { q = MatMul(x, w) y = Add(q, r) }",
        {"w": WEIGHT},
    )
    assert only(path).addition is None


def test_a_product_that_is_needed_by_itself_keeps_its_add(write_graph):
    path = write_graph(
        "g (float[n, 4] x) => (float[n, 3] y) { p = MatMul(x, w) s = Add(p, b) y = Mul(s, p) }",
        {"w": WEIGHT, "b": BIAS},
    )
    assert only(path).addition is None


@pytest.mark.parametrize("attributes", ["", "<transB = 1>", "<alpha = 2.0, beta = 0.5>"])
@pytest.mark.parametrize("constants", [{"w": WEIGHT}, {"w": WEIGHT, "b": BIAS}, {"w": WEIGHT, "b": BIAS[None]}])
def test_gemm_gives_what_onnx_gives(write_graph, attributes, constants):
    if "transB" in attributes:
        constants = {**constants, "w": np.ascontiguousarray(WEIGHT.T)}
    path = write_graph(
        f"g (float[n, 4] x) => (float[n, 3] y) {{ [fc] y = Gemm{attributes}({', '.join(['x', *constants])}) }}",
        constants,
    )
    x = RANDOM.normal(size=(5, 4)).astype(np.float32)
    layer = only(path)
    expected = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
    found = x @ layer.weight + (0 if layer.bias is None else layer.bias)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_products_of_activations_are_no_layers(write_graph):
    path = write_graph(
        "g (float[n, 3] x, float[3, 3] z) => (float[n, 3] y) { a = MatMul(x, z) b = Gemm(a, z) y = MatMul(b, w) }",
        {"w": WEIGHT[:3]},
    )
    assert only(path).input.name == "b"


def test_a_weight_that_the_caller_may_replace_is_no_constant(write_graph):
    path = write_graph("g (float[n, 4] x, float[4, 3] w) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT})
    with pytest.raises(GraphError, match="no Linear layer"):
        find(path)


def test_layers_that_share_a_name_are_told_apart(write_graph):
    path = write_graph(
        "g (float[n, 3] x) => (float[n, 3] y) { [fc] a = MatMul(x, w) [fc] y = MatMul(a, w) }", {"w": WEIGHT[:3]}
    )
    assert [layer.name for layer in find(path)] == ["fc", "y"]


def test_a_broken_weight_is_named(write_graph):
    path = write_graph(
        "g (float[n, 4] x) => (float[n, 3] y) { [fc] y = MatMul(x, w) }", {"w": np.full((4, 3), np.nan, np.float32)}
    )
    with pytest.raises(GraphError, match="weight of 'fc' has values that are not finite"):
        find(path)


def test_only_float32_is_quantized(write_graph):
    path = write_graph("g (float16[n, 4] x) => (float16[n, 3] y) { [fc] y = MatMul(x, w) }", {"w": WEIGHT.astype("f2")})
    with pytest.raises(GraphError, match="weight of 'fc' is float16"):
        find(path)


def test_an_old_opset_is_refused(write_graph):
    path = write_graph("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT}, opset=12)
    with pytest.raises(GraphError, match="opset 12"):
        load_graph(path)


def test_weights_in_other_files_are_refused(write_graph, tmp_path):
    path = write_graph("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT})
    model = onnx.load(path)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(GraphError, match="other files"):
        load_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GraphError, match=r"model\.onnx is not a valid ONNX model"):
        load_graph(path)


def test_a_model_cut_short_is_refused(small, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(small.path.read_bytes()[:20_000])
    with pytest.raises(GraphError, match="not a valid ONNX model"):
        load_graph(path)


def test_a_value_of_an_unknown_type_is_refused(write_graph):
    path = write_graph("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT})
    model = onnx.load(path)
    model.graph.initializer[0].data_type = 99
    onnx.save(model, path)
    with pytest.raises(GraphError, match="not a valid ONNX model"):
        load_graph(path)


def test_a_weight_is_read_once(write_graph):
    """Each look at a constant is at the same array, wherever the file has it, and that holds what the file says."""
    path = write_graph(
        "g (float[n, 4] x) => (float[n, 3] y) { c = Constant() p = MatMul(x, w) y = Add(p, c) }",
        {"w": WEIGHT},
    )
    model = onnx.load(path)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(BIAS)))
    onnx.save(model, path)
    read = load_graph(path)
    in_node = read.graph[0].attributes["value"].value
    for tensor, values in ((read.graph.initializers["w"].const_value, WEIGHT), (in_node, BIAS)):
        assert tensor.numpy() is tensor.numpy()
        np.testing.assert_array_equal(tensor.numpy(), values)


def test_weights_are_let_go_at_the_end(write_graph):
    path = write_graph("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", {"w": WEIGHT})
    gc.disable()
    try:
        with open_graph(path) as model:
            weight = weakref.ref(model.graph.initializers["w"].const_value.numpy())
            assert weight() is not None
        assert weight() is None
    finally:
        gc.enable()
