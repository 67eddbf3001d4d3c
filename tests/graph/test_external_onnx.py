"""Third-party ONNX files as bundles keep them: the same logits, one input, one output, any batch, names for all."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import scipy.special
from external_vits import exports
from once import made
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from edgevit.errors import GraphError, InputError, VerificationError
from edgevit.graph import external_onnx as external
from edgevit.graph.attention import find_attentions
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.interface import WantedOutput
from edgevit.graph.metadata import INPUT, OPSET, OUTPUT
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx

IMAGES = np.random.default_rng(0).normal(size=(20, 3, 32, 32)).astype(np.float32)
KINDS = [
    *("old", "new", "external", "gemm", "opset 12", "one image, old", "one image, new"),
    *("hugging face, old", "hugging face, new", "hugging face, one image", "any size", "branches"),
    *("optimised", "optimised, opset 12", "for transformers"),
]


def logits(path, images, size=None):
    """Return what the file gives, ``size`` images at a time, all at once if None."""
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    parts = np.split(images, len(images) // (size or len(images)))
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def opened(path, **given):
    return open_onnx(path, path.name, MetadataOverrides(image_size=(32, 32), **given))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundles_file_gives_the_same_logits(external_vits, tmp_path, kind):
    path = tmp_path / "model.onnx"
    check = write_verified(opened(external_vits[kind]), path, IMAGES)
    assert check.images == len(IMAGES)
    assert check.max_difference <= external.TOLERANCE
    expected = logits(external_vits[kind], IMAGES, 1 if "one image" in kind else None)
    assert np.ptp(expected, axis=0).min() > 0.01  # images tell apart what they are compared with
    for size in (1, 4, 20):
        np.testing.assert_allclose(logits(path, IMAGES, size), expected, atol=1e-4, rtol=1e-4)
    model = ir.load(path)
    (images,), (answers,) = model.graph.inputs, model.graph.outputs
    assert (images.name, list(images.shape)) == (INPUT, ["batch", 3, 32, 32])
    assert (answers.name, list(answers.shape)) == (OUTPUT, ["batch", 5])
    assert model.opset_imports == {"": OPSET}
    names = [node.name for node in model.graph]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {"edgevit.preprocess", "edgevit.labels", "edgevit.spec", "edgevit.products"} == model.metadata_props.keys()
    assert list(path.parent.iterdir()) == [path]  # all weights are inside
    common.ShapeInferencePass()(model)
    assert len(find_attentions(model.graph)) == 2


def test_a_vit_in_float16_gives_nearly_the_same_in_float32(external_vits, tmp_path):
    given, path = external_vits["for transformers, half"], tmp_path / "model.onnx"
    write_verified(opened(given), path, IMAGES)
    session = onnxruntime.InferenceSession(given)
    assert session.get_inputs()[0].type == "tensor(float16)"
    (half,) = session.run(None, {"x": IMAGES.astype(np.float16)})
    found = logits(path, IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, half.astype(np.float32), atol=0.01 * np.abs(found).max())
    exact = logits(external_vits["opset 12"], IMAGES)
    assert np.abs(found - exact).max() < np.abs(half - exact).max()  # its weights alone were rounded


def test_the_output_that_was_asked_for_is_the_only_one_left(external_vits, tmp_path):
    path = tmp_path / "model.onnx"
    write_verified(opened(external_vits["hidden"], outputs=(WantedOutput("pooled"),), embedding=True), path, IMAGES)
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_outputs()] == [OUTPUT]
    expected = onnxruntime.InferenceSession(external_vits["hidden"]).run(["pooled"], {"x": IMAGES})[0]
    np.testing.assert_allclose(session.run(None, {INPUT: IMAGES})[0], expected, atol=1e-4)


def test_names_that_are_missing_or_would_be_misread(external_vits, tmp_path):
    model = onnx.load(external_vits["new"])
    for index, node in enumerate(model.graph.node):
        node.name = ["", f"layer{index}[0]", "" if index > 5 else "images", f"\x1b[31m{index}"][index % 4]
    onnx.save(model, tmp_path / "odd.onnx")
    write_verified(opened(tmp_path / "odd.onnx"), tmp_path / "model.onnx", IMAGES)
    names = [node.name for node in ir.load(tmp_path / "model.onnx").graph]
    assert len(set(names)) == len(names)
    assert not any("\x1b" in name for name in names)
    assert any("[0]" in name for name in names)


def small(tmp_path, *nodes, constants=(), batch=1, name="small.onnx", opset=18):
    """Write a graph of ``nodes`` from x (batch, 3, 32, 32) to y."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "classes"])],
        [numpy_helper.from_array(values, key) for key, values in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, tmp_path / name)
    return tmp_path / name


WEIGHT = np.random.default_rng(1).normal(size=(3072, 4)).astype(np.float32)


def test_a_graph_that_mixes_images_is_not_taken_for_one_of_any_batch(tmp_path):
    # With one image the mean over the batch does nothing; with two it would.
    path = small(
        tmp_path,
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["left"]),
        helper.make_node("Add", ["left", "one"], ["moved"]),
        helper.make_node("Reshape", ["moved", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        constants={"axis": np.array([0]), "one": np.float32(1), "shape": np.array([1, 3072]), "w": WEIGHT},
    )
    with pytest.raises(GraphError, match="takes one image at a time, and could not be made to take more: logits") as c:
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)
    assert "dynamic_axes" in c.value.remedy
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:1], np.repeat(IMAGES[:1], 9, axis=0)], ids=["20", "one", "alike"])
def test_a_graph_of_any_batch_that_mixes_images_is_refused(tmp_path, images):
    path = small(
        tmp_path,
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["left"]),
        helper.make_node("Flatten", ["left"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        constants={"axis": np.array([0]), "w": WEIGHT},
        batch="n",
    )
    with pytest.raises(GraphError, match="otherwise among others than alone: logits differ by up to") as caught:
        write_verified(opened(path), tmp_path / "model.onnx", images)
    assert "BatchNorm" in caught.value.remedy
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_that_says_any_batch_but_takes_one(tmp_path):
    path = small(
        tmp_path,
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        constants={"shape": np.array([1, 3072]), "w": WEIGHT},
        batch="n",
    )
    with pytest.raises(GraphError, match=r"cannot run .* on several images") as caught:
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)
    assert "dynamic" in caught.value.remedy


def test_one_tensor_under_two_names_is_refused(tmp_path):
    path = small(
        tmp_path,
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["y"], ["z"]),
        batch="n",
    )
    model = onnx.load(path)
    del model.graph.output[:]
    for name in "yz":
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 32, 32]))
    onnx.save(model, path)
    with pytest.raises(GraphError, match="gives one tensor under several names: y, z"):
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)
    write_verified(opened(path, outputs=(WantedOutput("z"),)), tmp_path / "model.onnx", IMAGES)


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("opset", [12, 20])
def test_what_makes_probabilities_at_the_end_is_left_to_the_runtime(tmp_path, kind, opset):
    path = small(
        tmp_path,
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node(kind, ["scores"], ["probabilities"]),
        helper.make_node("Identity", ["probabilities"], ["y"]),
        constants={"w": WEIGHT},
        batch="n",
        opset=opset,
    )
    model = opened(path)
    assert model.activation == kind.lower()
    assert any(f"its last {kind} is left to the runtime" in note for note in model.notes)
    write_verified(model, tmp_path / "model.onnx", IMAGES)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(None, {"images": IMAGES})
    np.testing.assert_allclose(logits, IMAGES.reshape(len(IMAGES), -1) @ WEIGHT, rtol=1e-4, atol=1e-4)
    (given,) = onnxruntime.InferenceSession(path).run(None, {"x": IMAGES})
    made = scipy.special.softmax(logits, axis=1) if kind == "Softmax" else scipy.special.expit(logits)
    np.testing.assert_allclose(made, given, atol=1e-6)


def test_what_the_user_says_of_probabilities_must_be_what_the_file_does(tmp_path):
    path = small(
        tmp_path,
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
        constants={"w": WEIGHT},
        batch="n",
    )
    with pytest.raises(InputError, match="ends with a Softmax"):
        opened(path, activation="sigmoid")
    assert opened(path, embedding=True).cut is None  # features that are shares stay as they are


def test_probabilities_that_are_made_otherwise_are_refused(tmp_path):
    path = small(
        tmp_path,
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["shares"]),
        helper.make_node("Abs", ["shares"], ["y"]),
        constants={"w": WEIGHT},
        batch="n",
    )
    with pytest.raises(GraphError, match="gives probabilities, not logits") as caught:
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)
    assert "Softmax" in caught.value.remedy


def test_a_file_in_float16_is_computed_in_float32(tmp_path):
    weight = WEIGHT.astype(np.float16)
    path = small(
        tmp_path,
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Flatten", ["half"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["made"]),
        helper.make_node("Cast", ["made"], ["y"], to=TensorProto.FLOAT),
        constants={"w": weight},
        batch="n",
    )
    model = opened(path)
    assert "its float16 is computed in float32" in model.notes
    write_verified(model, tmp_path / "model.onnx", IMAGES)
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": IMAGES})
    exact = IMAGES.reshape(len(IMAGES), -1).astype(np.float64) @ weight.astype(np.float64)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = small(
        tmp_path,
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Log", ["flat"], ["log"]),
        helper.make_node("MatMul", ["log", "w"], ["y"]),
        constants={"w": WEIGHT},
        batch="n",
    )
    with pytest.raises(GraphError, match="not finite"):
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)


def test_a_file_that_is_not_the_same_any_more_is_not_written(external_vits, tmp_path, monkeypatch):
    def harm(model, *_):
        bias = model.graph.outputs[0].producer().inputs[-1]
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(0.01), name=bias.name)

    monkeypatch.setattr(external, "add_metadata", harm)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    with pytest.raises(VerificationError, match=r"logits differ by up to 0\.01"):
        write_verified(opened(external_vits["new"]), path, IMAGES)
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(("kind", "moved", "classes"), [("Sigmoid", -9, 4), ("Softmax", 0, 4096)])
def test_a_file_whose_probabilities_are_all_small_is_compared_as_well(tmp_path, monkeypatch, kind, moved, classes):
    generator = np.random.default_rng(2)

    def harm(model, *_):
        weight = model.graph.initializers["w"]
        weight.const_value = ir.tensor(weight.const_value.numpy()[:, ::-1].copy(), name="w")

    path = small(
        tmp_path,
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Add", ["scores", "moved"], ["logits"]),
        helper.make_node(kind, ["logits"], ["y"]),
        constants={"w": generator.normal(size=(3, classes)).astype(np.float32), "moved": np.float32(moved)},
        batch="n",
    )
    write_verified(opened(path), tmp_path / "model.onnx", IMAGES)
    monkeypatch.setattr(external, "add_metadata", harm)
    with pytest.raises(VerificationError, match="logits differ by up to"):
        write_verified(opened(path), tmp_path / "model.onnx", IMAGES)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_decoder_of_queries_that_was_traced_with_one_image_takes_any_number(
    tmp_path, tmp_path_factory, batch_first, dynamo
):
    import small_dense
    import torch

    torch.manual_seed(0)
    model = small_dense.DecodedDetector(batch_first=batch_first).eval()

    def export(folder):
        names = {"input_names": ["x"], "output_names": ["logits", "pred_boxes"]}
        given = {"opset_version": 18 if dynamo else 17, "dynamo": dynamo, **({"verbose": False} if dynamo else {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.zeros(1, 3, 32, 32),), folder / "detector.onnx", **names, **given)

    shelf = exports(tmp_path_factory, Path(__file__), Path(small_dense.__file__))
    path = made(shelf, f"decoder-{batch_first}-{dynamo}", export) / "detector.onnx"
    assert write_verified(opened(path), tmp_path / "model.onnx", IMAGES).max_difference <= external.TOLERANCE
    with torch.inference_mode():
        expected = model(torch.from_numpy(IMAGES))
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {INPUT: IMAGES})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4, rtol=1e-4)
        assert np.ptp(one, axis=0).max() > 0.01
