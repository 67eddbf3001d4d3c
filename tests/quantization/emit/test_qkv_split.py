import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.backends.base import LinearKernel, join_products
from edgevit.graph.linears import load_graph
from edgevit.quantization.emit.qkv_split import SplitQkv

WEIGHT = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
BODY = "[fc] p = MatMul(x, w) [add] s = Add(p, b) u, v = Split<axis = 2, num_outputs = 2>(s) y = Mul(u, v)"


def graph(body=BODY, outputs="float[n, 3, 3] y"):
    return f"g (float[n, 3, 4] x) => ({outputs}) <float[n, 3, 6] s, float[n, 3, 3] u, float[n, 3, 3] v> {{ {body} }}"


def parted(write_graph, text, tmp_path):
    path = write_graph(text, {"w": WEIGHT, "b": WEIGHT[0]})
    model = load_graph(path)
    changed = SplitQkv()(model).modified
    ir.save(model, tmp_path / "parts.onnx")
    return path, tmp_path / "parts.onnx", changed


def run(path):
    images = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": images})


@pytest.mark.parametrize("body", [BODY, BODY.replace("p = M", "s = M").replace("[add] s = Add(p, b)", "")])
def test_each_part_gets_a_product_and_gives_what_it_gave(write_graph, tmp_path, body):
    before, after, changed = parted(write_graph, graph(body), tmp_path)
    assert changed
    nodes = onnx.load(after).graph.node
    assert sorted(node.name for node in nodes if node.op_type == "MatMul") == ["fc.split_0", "fc.split_1"]
    assert "Split" not in {node.op_type for node in nodes}
    for expected, found in zip(run(before), run(after), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (BODY, "float[n, 3, 3] y, float[n, 3, 6] s"),  # the whole is wanted too
        (BODY + " z = Relu(s)", "float[n, 3, 3] y, float[n, 3, 6] z"),
        (BODY.replace("axis = 2", "axis = 1"), "float y"),
        (BODY.replace("Split<axis = 2, num_outputs = 2>(s)", "Split<axis = 2>(s, sizes)"), "float y"),
    ],
)
def test_what_is_not_cut_into_equal_parts_alone_stays_whole(write_graph, outputs, body):
    shapes = "<float[n, 3, 6] s>" if "sizes" in body or "axis = 1" in body else "<float[n, 3, 3] u, float[n, 3, 3] v>"
    path = write_graph(
        f"g (float[n, 3, 4] x) => ({outputs}) {shapes} {{ {body} }}",
        {"w": WEIGHT, "b": WEIGHT[0], "sizes": np.array([2, 4])},
    )
    assert not SplitQkv()(load_graph(path)).modified


def kernel(layer, *, integer, name="gemm"):
    return LinearKernel(layer=layer, kernel=name, integer=integer, weight="int8")


def test_the_parts_of_a_layer_count_as_one_that_is_integer_if_all_are():
    parts = [kernel("qkv", integer=True), kernel("fc", integer=True), kernel("qkv", integer=True)]
    assert join_products(parts) == [kernel("qkv", integer=True), kernel("fc", integer=True)]
    for position in range(2):
        mixed = [kernel("qkv", integer=index != position, name=str(index)) for index in range(2)]
        assert join_products(mixed) == [kernel("qkv", integer=False, name=str(position))]
