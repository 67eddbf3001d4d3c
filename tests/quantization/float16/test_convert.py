"""FP16: what the scan finds, and that the file is float16 in earnest, by ONNX's own reference arithmetic."""

import copy
import warnings

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx_files import emit_float16, scan_float16
from tiny import ENGINES

from edgevit.backends import get_backend
from edgevit.errors import BundleError, DataError, GraphError
from edgevit.quantization.float16.convert import Float16Plan
from edgevit.quantization.float16.scan import HEADROOM, LARGEST, TOLERANCE, Scan


def scan(path, images):
    return scan_float16(path, [images], total=1)


def reference(path, images):
    """Run a file in the arithmetic that its types ask for; onnxruntime would turn float16 into float32."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(str(path)).run(None, {"images": images})[0]


def sqnr_db(exact, found):
    return 10 * np.log10((exact.astype(np.float64) ** 2).sum() / ((found - exact).astype(np.float64) ** 2).sum())


@pytest.fixture(scope="module")
def float16(quantized, tmp_path_factory):
    """Return the plan for the small ViT, and its file."""
    path = tmp_path_factory.mktemp("float16") / "model.onnx"
    plan = scan(quantized.path, quantized.images)
    emit_float16(quantized.path, plan, path)
    return plan, path


@pytest.fixture
def changed(quantized, tmp_path):
    """Return a function that multiplies constants of the small ViT's graph, and writes it."""

    def write(**factors):
        model = onnx.load(quantized.path)
        for constant in model.graph.initializer:
            if factor := factors.get(constant.name.replace(".", "_")):
                values = onnx.numpy_helper.to_array(constant) * np.float32(factor)
                constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
        path = tmp_path / "changed.onnx"
        onnx.save(model, path)
        return path

    return write


def test_a_model_of_ordinary_values_fits(quantized, float16):
    plan, _ = float16
    assert plan.float32_nodes == {}
    assert plan.images == len(quantized.images)


def test_logits_are_as_near_to_float32_as_torchs_in_float16(quantized, float16):
    images = quantized.images
    with torch.inference_mode():
        exact = quantized.model(torch.from_numpy(images)).numpy()
        half = copy.deepcopy(quantized.model).half()(torch.from_numpy(images).half()).float().numpy()
    found = reference(float16[1], images)
    assert found.dtype == np.float32
    assert sqnr_db(exact, found) > 40
    assert sqnr_db(exact, found) > sqnr_db(exact, half) - 3
    assert sqnr_db(exact, found) < 90  # it is not float32


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("batch", [1, 12])
def test_backends_run_it(quantized, float16, backend, batch, tmp_path):
    engine = get_backend(backend)
    images = quantized.images[:batch]
    with engine.open(engine.build(float16[1], tmp_path)[0], threads=1, settings={}) as session:
        found = session.infer(images)
        kernels = session.linear_kernels()
    assert sqnr_db(reference(quantized.path, images), found) > 40
    assert [kernel.layer for kernel in kernels] == quantized.layers
    assert not any(kernel.integer for kernel in kernels)


def test_everything_inside_is_float16_and_everything_outside_float32(quantized, float16):
    path = float16[1]
    onnx.checker.check_model(str(path), full_check=True)
    graph, before = onnx.load(path).graph, onnx.load(quantized.path).graph
    assert graph.input == before.input
    assert graph.output == before.output
    assert onnx.TensorProto.FLOAT not in {constant.data_type for constant in graph.initializer}
    assert sum(node.op_type == "Cast" for node in graph.node) == 2
    for kind in ("LayerNormalization", "Gelu", "MatMul", "Softmax"):
        count = sum(node.op_type == kind for node in before.node)
        assert sum(node.op_type == kind for node in graph.node) == count > 0
    assert path.stat().st_size < 0.6 * quantized.path.stat().st_size


def test_equal_plans_give_equal_files(quantized, float16, tmp_path):
    emit_float16(quantized.path, float16[0], tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == float16[1].read_bytes()


#: Make block 0's MLP give much more than a ViT's ever should.
LOUD = {"blocks_0_norm2_weight": 50, "blocks_0_mlp_fc1_weight": 10}


def test_a_planted_overflow_is_found_named_and_kept_in_float32(quantized, changed, tmp_path):
    # The residual stream takes block 0's large output in, and carries it on to the last LayerNorm, which takes it out.
    path = changed(**LOUD, blocks_0_mlp_fc2_weight=2000)
    exact = reference(path, quantized.images)
    plan = scan(path, quantized.images)
    assert "its output exceeds float16's largest number, 65504" in plan.float32_nodes["blocks.0.mlp.fc2"]
    assert {"blocks.0.add_1", "blocks.1.norm1", "blocks.1.norm2", "norm"} < plan.float32_nodes.keys()
    assert not {"blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.mlp.fc2", "head"} & plan.float32_nodes.keys()

    emit_float16(path, plan, tmp_path / "kept.onnx")
    onnx.checker.check_model(str(tmp_path / "kept.onnx"), full_check=True)
    assert sqnr_db(exact, reference(tmp_path / "kept.onnx", quantized.images)) > 40
    blind = msgspec.structs.replace(plan, float32_nodes={})
    emit_float16(path, blind, tmp_path / "blind.onnx")
    assert not np.isfinite(reference(tmp_path / "blind.onnx", quantized.images)).all()


def test_a_value_half_way_to_the_end_is_too_near(quantized, write_graph):
    path = write_graph(
        "g (float[n, 8] images) => (float[n, 6] y) "
        "{ [big] x = MatMul(images, w) [small] s = MatMul(x, v) [fine] f = MatMul(images, v) y = Add(s, f) }",
        {"w": np.full((8, 8), 5000, np.float32), "v": np.full((8, 6), 0.01, np.float32)},
    )
    images = np.ones((2, 8), np.float32)
    plan = scan(path, images)
    assert plan.float32_nodes["big"] == "its output comes too near to float16's largest number, 65504: 4e+04"
    assert plan.float32_nodes["small"].startswith("its input 'x' comes too near")
    assert plan.float32_nodes.keys() == {"big", "small"}


def test_constants_that_would_vanish_stay_float32(changed, quantized, tmp_path):
    path = changed(head_weight=1e-6, head_bias=1e-6)
    plan = scan(path, quantized.images)
    assert plan.float32_nodes.keys() == {"head", "head.add"}
    assert "rounding it to float16 changes it by" in plan.float32_nodes["head"]
    emit_float16(path, plan, tmp_path / "kept.onnx")
    exact = reference(path, quantized.images)
    assert sqnr_db(exact, reference(tmp_path / "kept.onnx", quantized.images)) > 40
    kept = {constant.name: constant.data_type for constant in onnx.load(tmp_path / "kept.onnx").graph.initializer}
    assert kept["head.weight"] == onnx.TensorProto.FLOAT
    assert kept["blocks.0.attn.qkv.weight.float16"] == onnx.TensorProto.FLOAT16


def test_a_model_that_overflows_everywhere_is_refused(quantized, changed):
    path = changed(**{f"{name}.weight".replace(".", "_"): 1e6 for name in quantized.layers})
    with pytest.raises(
        GraphError, match=r"no Linear layer of this model fits float16; 'blocks\.0\.attn\.qkv'"
    ) as caught:
        scan(path, quantized.images)
    assert "--precision int8" in caught.value.remedy


def test_infinite_activations_are_named(quantized, changed):
    path = changed(**LOUD, blocks_0_mlp_fc2_weight=1e37)
    with pytest.raises(GraphError, match=r"'blocks\.0\.mlp\.fc2\.output' has values that are not finite .* image 0"):
        scan(path, quantized.images)


@pytest.mark.parametrize(
    "images", [[], [np.zeros((1, 3, 20, 16), np.float32)], [np.full((1, 3, 16, 16), np.nan, "f4")]]
)
def test_unusable_images(quantized, images):
    with pytest.raises(DataError):
        scan_float16(quantized.path, images, total=len(images))


GRAPHS = {
    "constants in nodes": "[c] b = Constant<value = float[6] {1, 2, 3, 4, 5, 6}>() m = MatMul(images, w) y = Add(m, b)",
    "a cast of its own": "[fc] m = MatMul(images, w) [cast] y = Cast<to = 1>(m)",
    "from integers": "[fc] m = MatMul(images, w) s = Shape(m) t = Cast<to = 1>(s) r = ReduceMax(t) y = Mul(m, r)",
    "nodes without names": "m = MatMul(images, w) y = Relu(m)",
    "an output used inside": "[fc] y = MatMul(images, w) z = Relu(y)",
}
WEIGHT = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)


@pytest.mark.parametrize("graph", GRAPHS)
def test_other_forms_of_graphs(graph, write_graph, tmp_path):
    path = write_graph(f"g (float[n, 8] images) => (float[n, 6] y) {{ {GRAPHS[graph]} }}", {"w": WEIGHT})
    images = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    plan = scan(path, images)
    assert plan.float32_nodes == {}
    emit_float16(path, plan, tmp_path / "half.onnx")
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    found, exact = reference(tmp_path / "half.onnx", images), reference(path, images)
    assert found.dtype == np.float32
    assert 40 < sqnr_db(exact, found) < 90


def test_a_constant_of_float32_and_float16_nodes_is_there_in_both(write_graph, tmp_path):
    path = write_graph(
        "g (float[n, 8] images) => (float[n, 6] y) "
        "{ [big] b = Mul(images, k) [back] s = Div(b, k) [fc] m = MatMul(s, w) [other] y = MatMul(images, w) }",
        {"w": WEIGHT, "k": np.float32(6e4)},
    )
    images = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    plan = scan(path, images)
    assert plan.float32_nodes.keys() == {"big", "back"}
    emit_float16(path, plan, tmp_path / "half.onnx")
    assert 40 < sqnr_db(reference(path, images), reference(tmp_path / "half.onnx", images)) < 90


def test_branches_and_custom_operators_are_refused(write_graph):
    images = np.ones((2, 8), np.float32)
    branch = "g () => (float[2, 6] t) { t = Identity(m) }"
    path = write_graph(
        "g (float[n, 8] images) => (float[n, 6] y) "
        f"{{ m = MatMul(images, w) [if] y = If<then_branch = {branch}, else_branch = {branch}>(yes) }}",
        {"w": WEIGHT, "yes": np.array(True)},
    )
    with pytest.raises(GraphError, match="graph of its own"):
        scan(path, images)


def test_a_plan_survives_its_file(float16, tmp_path):
    plan = msgspec.structs.replace(float16[0], float32_nodes={"norm": "its output is large"})
    plan.save(tmp_path / "plan.json")
    assert Float16Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b'{"schema_version": 2, "model_sha256": "", "images": 1, '
                b'"images_sha256": "", "float32_nodes": {}}']
)  # fmt: skip
def test_a_damaged_plan_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(BundleError):
        Float16Plan.load(tmp_path / "plan.json")
    with pytest.raises(BundleError):
        Float16Plan.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"model_sha256": "0" * 64}, "another model"), ({"float32_nodes": {"nowhere": "?"}}, "'nowhere'")],
)
def test_a_plan_that_does_not_fit_is_refused(quantized, float16, tmp_path, change, said):
    plan = msgspec.structs.replace(float16[0], **change)
    with pytest.raises(BundleError, match=said):
        emit_float16(quantized.path, plan, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


VALUES = st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=20)


@given(VALUES, st.integers(-24, 0))
@example([2e-16] * 8, -24)  # whose squares float32 cannot hold
def test_what_does_not_fit_is_what_rounding_changes(values, exponent):
    array = np.array(values, np.float32) * np.float32(2.0**exponent)
    found = Scan()
    found.update(array)
    exact = array.astype(np.float64)
    with np.errstate(over="ignore"):
        error = np.sqrt(((array.astype(np.float16).astype(np.float64) - exact) ** 2).sum())
    size = np.sqrt((exact**2).sum())
    if np.abs(array).max() * HEADROOM > LARGEST:
        assert "largest number" in found.unfit_reason(HEADROOM)
    elif error > 1.001 * TOLERANCE * size and size > 1e-30:
        assert "rounding it to float16" in found.unfit_reason(HEADROOM)
    elif error < 0.999 * TOLERANCE * size or size == 0:
        assert found.unfit_reason(HEADROOM) is None
