import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx_files import calibrate

from edgevit.errors import DataError, GraphError
from edgevit.files import sha256_of
from edgevit.graph.linears import load_graph
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.calibration.observers import GROUP
from edgevit.quantization.rewrites.rotation import rotate_stream

WEIGHT = np.eye(4, dtype=np.float32)
MLP = (
    "g (float[n, 1, 2, 2] images) => (float[n, 4] logits)"
    "{ x = Reshape(images, shape) [first] a = MatMul(x, w) r = Sqrt(a) [second] logits = MatMul(r, w) }"
)


@pytest.fixture(scope="module")
def mlp(write_graph):
    return write_graph(MLP, {"w": WEIGHT, "shape": np.array([-1, 4])})


def test_ranges_are_what_torch_sees(quantized):
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        for name, module in quantized.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.inference_mode():
        quantized.model(torch.from_numpy(quantized.images))
    for hook in hooks:
        hook.remove()
    assert list(quantized.table.inputs) == quantized.layers
    for name, statistics in quantized.table.inputs.items():
        if name in ("blocks.1.attn.proj", "blocks.1.mlp.fc1", "blocks.1.mlp.fc2"):
            seen[name] = seen[name][:, :1]  # behind the last attention, the class token alone counts
        assert statistics.minimum == pytest.approx(seen[name].min().item(), abs=1e-4)
        assert statistics.maximum == pytest.approx(seen[name].max().item(), abs=1e-4)
        groups = [group for group in seen[name].split(GROUP) if len(group) == GROUP]
        average = np.mean([group.max().item() for group in groups])
        assert statistics.average_maximum == pytest.approx(average, abs=1e-4)
    assert quantized.table.images == 12
    assert quantized.table.model_sha256 == sha256_of(quantized.path)


def test_a_rotated_model_is_seen_as_it_is_rotated(quantized, tmp_path):
    model = load_graph(quantized.path)
    assert rotate_stream(model.graph)
    ir.save(model, tmp_path / "rotated.onnx")
    expected = calibrate(tmp_path / "rotated.onnx", [quantized.images], total=1)
    table = calibrate(quantized.path, [quantized.images], total=1, rotated=True)
    assert table.inputs == expected.inputs != quantized.table.inputs
    assert (table.rotated, expected.rotated) == (True, False)
    assert table.model_sha256 == sha256_of(quantized.path)
    table.save(tmp_path / "table.npz")
    assert CalibrationTable.load(tmp_path / "table.npz") == table


def test_how_images_are_batched_changes_nothing(quantized):
    one_by_one = calibrate(quantized.path, (image[None] for image in quantized.images), total=12)
    assert one_by_one == quantized.table


def test_other_images_have_another_hash(quantized):
    other = calibrate(quantized.path, [quantized.images[::-1]], total=1)
    assert other.images_sha256 != quantized.table.images_sha256
    assert other.model_sha256 == quantized.table.model_sha256


def test_one_image_is_enough(quantized):
    table = calibrate(quantized.path, [quantized.images[:1]], total=1)
    assert table.images == 1
    assert all(s.average_minimum == s.minimum < s.maximum == s.average_maximum for s in table.inputs.values())


def test_layers_that_read_the_input_or_give_the_output_are_observed(write_graph):
    path = write_graph(
        "g (float[n, 4] images) => (float[n, 4] logits) { [first] logits = MatMul(images, w) }", {"w": WEIGHT}
    )
    # An image is a row here; calibrate() takes one at a time whatever its shape.
    table = calibrate(path, [np.array([[1, 2, 3, -4]], dtype=np.float32)], total=1)
    assert (table.inputs["first"].minimum, table.inputs["first"].maximum) == (-4, 3)


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3, 16, 16), dtype=np.float32)]])
def test_no_images(quantized, batches):
    with pytest.raises(DataError, match="no calibration images"):
        calibrate(quantized.path, batches, total=0)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 16, 15), dtype=np.float32),
        np.zeros((1, 1, 16, 16), dtype=np.float32),
        np.zeros((3, 16, 16), dtype=np.float32),
        np.zeros((1, 3, 16, 16), dtype=np.float64),
    ],
)
def test_images_that_do_not_fit(quantized, batch):
    with pytest.raises(DataError, match="takes float32 images"):
        calibrate(quantized.path, [batch], total=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_not_finite(quantized, bad):
    with pytest.raises(DataError, match="not finite"):
        calibrate(quantized.path, [np.full((1, 3, 16, 16), bad, dtype=np.float32)], total=1)


def test_an_activation_that_is_not_finite_is_named(mlp):
    images = np.ones((3, 1, 2, 2), dtype=np.float32)
    images[2] = -1  # its root is not a number
    with pytest.raises(GraphError, match=r"input of 'second' .* on calibration image 2"):
        calibrate(mlp, [images], total=1)


def test_a_model_without_linear_layers(write_graph):
    path = write_graph("g (float[n, 4] images) => (float[n, 4] logits) { logits = Relu(images) }", {})
    with pytest.raises(GraphError, match="no Linear layer"):
        calibrate(path, [], total=0)


def test_a_model_with_two_inputs(write_graph):
    path = write_graph(
        "g (float[n, 4] images, float[n, 4] z) => (float[n, 4] y) { a = Add(images, z) y = MatMul(a, w) }",
        {"w": WEIGHT},
    )
    with pytest.raises(GraphError, match="2 inputs"):
        calibrate(path, [], total=0)


def test_an_operator_that_onnxruntime_does_not_know(mlp, tmp_path):
    model = onnx.load(mlp)
    model.graph.node[2].op_type, model.graph.node[2].domain = "Nonsense", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="cannot be run by onnxruntime"):
        calibrate(tmp_path / "model.onnx", [], total=0)
