import csv
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.torch
import torch
from deit import PREPROCESS
from PIL import Image

from edgevit.errors import DataError, VerificationError
from edgevit.graph import multiply_adds, torch_export
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.multiply_adds import count_multiply_adds
from edgevit.graph.verify import TOLERANCE, export_verified, verify_export
from edgevit.models.spec import PRESETS
from edgevit.models.vit import VisionTransformer

pytestmark = pytest.mark.usefixtures("traced_anew")


def openvino_logits(path: Path, images: np.ndarray, batches: tuple[int, ...]) -> np.ndarray:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    edges = np.cumsum(batches)[:-1]
    return np.concatenate([compiled(batch)[0].copy() for batch in np.split(images, edges)])


def changed(path: Path, folder: Path, name: str, change) -> Path:
    """Return a copy of the file at ``path`` whose constant ``name`` is changed."""
    model = ir.load(path)
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(change(value.const_value.numpy()).astype(np.float32), name=name)
    ir.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_an_export_gives_what_torch_gives(exported):
    assert exported.check.images == len(exported.images)
    assert exported.check.max_difference <= TOLERANCE
    assert verify_export(exported.model, exported.path, exported.images[:2]).images == 2


def test_openvino_agrees(exported):
    found = openvino_logits(exported.path, exported.images, (1, 3, 5))
    with torch.inference_mode():
        expected = exported.model(torch.from_numpy(exported.images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_large_model_is_compared_on_fewer_images(small, tmp_path, monkeypatch):
    of_image = count_multiply_adds(ir.load(small.path)).nodes
    most = 8.5 * sum(node.macs for node in of_image)
    monkeypatch.setattr(multiply_adds, "_COMPARED", most)
    images = np.concatenate([small.images] * 3)[:20]
    assert len(images) == 20
    path = tmp_path / "model.onnx"
    check = export_verified(small.model, path, images, preprocess=small.preprocess, labels=small.labels)
    assert check.images == 8
    monkeypatch.setattr(multiply_adds, "_COMPARED", 1.2 * most)
    check = export_verified(small.model, path, images, preprocess=small.preprocess, labels=small.labels)
    assert check.images == 10
    monkeypatch.setattr(multiply_adds, "_COMPARED", 1.0)  # so large that it takes long: on eight all the same
    check = export_verified(small.model, path, images, preprocess=small.preprocess, labels=small.labels)
    assert check.images == 8
    given = open_onnx(path, path.name, MetadataOverrides())
    assert write_verified(given, tmp_path / "again.onnx", images).images == 8


def test_one_image_is_not_enough(small):
    with pytest.raises(DataError, match="one image"):
        verify_export(small.model, small.path, small.images[:1])


def test_a_changed_weight_is_found(small, tmp_path):
    path = changed(small.path, tmp_path, "head.weight", lambda weight: 1.01 * weight)
    with pytest.raises(VerificationError, match="differ from torch's by up to"):
        verify_export(small.model, path, small.images)


def test_logits_that_are_no_numbers_are_found(small, tmp_path):
    path = changed(small.path, tmp_path, "norm.bias", lambda bias: bias * np.nan)
    with pytest.raises(VerificationError, match="by up to nan"):
        verify_export(small.model, path, small.images)


def test_another_top1_is_found_even_where_logits_are_close(small, tmp_path):
    model = VisionTransformer(small.model.spec)
    model.load_state_dict(small.model.state_dict())
    bias = torch.tensor([0.0, 1e-5, -1.0, -1.0, -1.0])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(bias)
    path = changed(small.path, tmp_path, "head.weight", np.zeros_like)
    path = changed(path, tmp_path, "head.bias", lambda _: bias.numpy() + np.array([2e-5, 0, 0, 0, 0]))
    with pytest.raises(VerificationError, match="top-1 differs from torch's on 9 of 9 images"):
        verify_export(model, path, small.images)


def test_a_batch_that_is_fixed_is_found(small, tmp_path):
    model = ir.load(small.path)
    model.graph.inputs[0].shape = ir.Shape((1, *small.images.shape[1:]))
    ir.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(VerificationError, match="cannot run"):
        verify_export(small.model, tmp_path / "fixed.onnx", small.images)


def test_a_pass_that_breaks_the_model_leaves_no_file(small, tmp_path, monkeypatch):
    cleaned = torch_export.simplify_trace

    def break_a_weight(graph):
        graph = cleaned(graph)
        value = graph.graph.initializers["blocks.0.attn.qkv.weight"]
        value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)
        return graph

    monkeypatch.setattr(torch_export, "simplify_trace", break_a_weight)
    path = tmp_path / "model.onnx"
    with pytest.raises(VerificationError) as caught:
        export_verified(small.model, path, small.images, preprocess=small.preprocess, labels=small.labels)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())

    shutil.copy(small.path, path)
    monkeypatch.setattr(torch_export, "trace", lambda model: ir.load(small.path))
    monkeypatch.setattr(
        torch_export, "simplify_trace", lambda graph: ir.load(changed(path, tmp_path, "norm.bias", np.ones_like))
    )
    with pytest.raises(VerificationError):
        export_verified(small.model, path, small.images, preprocess=small.preprocess, labels=small.labels)
    assert path.read_bytes() == small.path.read_bytes()


@pytest.mark.shared
@pytest.mark.slow
def test_deit_tiny_on_real_photos(deit):
    with (deit.photos / "evaluation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[::63]
    images = []
    for row in rows:
        with Image.open(deit.photos / "evaluation" / row["path"]) as image:
            images.append(PREPROCESS(image))
    batch = np.stack(images)
    assert len(batch) == 16
    model = VisionTransformer(PRESETS["vit-tiny"])
    model.load_state_dict(safetensors.torch.load_file(deit.weights))

    path = deit.float32()  # as `edgevit export` writes and verifies it
    assert verify_export(model, path, batch).max_difference <= TOLERANCE
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch)).numpy()
    truth = np.array([int(row["imagenet_index"]) for row in rows])
    assert np.mean(expected.argmax(axis=1) == truth) > 0.5  # real predictions, not noise that happens to agree
    found = openvino_logits(path, batch, (1, 15))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
