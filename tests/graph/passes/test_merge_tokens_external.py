"""Tokens of third-party ONNX files are merged as in timm's modules with the same weights."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import tome
import torch
from external_vits import hugging_face_vit, timm_vit, write_new, write_old
from onnx_files import read
from oracles import import_timm
from torch import nn
from zoo import randomise

from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.saving import serialize
from edgevit.models.loading import load_checkpoint

OF_TIMM = ("new", "gemm", "opset 12", "one image, old", "branches", "optimised")
OF_HUGGING_FACE = ("hugging face, old", "hugging face, new", "any size", "for transformers")
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def twin(model, folder):
    """Return timm's model with the weights of one of transformers'."""
    model.save_pretrained(folder)
    loaded = load_checkpoint(str(folder))
    spec, transformer = loaded.spec, import_timm().models.vision_transformer.VisionTransformer
    same = transformer(
        img_size=spec.image_size,
        patch_size=spec.patch_size,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_ratio,
        num_classes=spec.classes,
        reg_tokens=spec.register_tokens,
        norm_layer=partial(nn.LayerNorm, eps=spec.norm_epsilon),
    )
    if spec.pooling == "class+mean":
        same.head = nn.Linear(2 * spec.width, spec.classes)
        same.forward_head = lambda x: same.head(torch.cat([x[:, 0], x[:, same.num_prefix_tokens :].mean(1)], dim=1))
    same.load_state_dict(loaded.weights)
    return same.eval()


def assert_merged_alike(given, folder, model, schedule):
    path = folder / "m.onnx"
    write_verified(open_onnx(given, given.name, MetadataOverrides(image_size=(32, 32))), path, IMAGES.numpy())
    graph = read(path)
    assert MergeTokens(schedule)(graph).modified
    session = onnxruntime.InferenceSession(serialize(graph))
    with torch.inference_mode():
        whole, expected = model(IMAGES).numpy(), tome.answers(model, IMAGES, schedule).numpy()
    largest = np.abs(whole).max()
    assert np.abs(whole - expected).max() > 1e-3 * largest
    for batch in (1, 3):
        (found,) = session.run(None, {"images": IMAGES[:batch].numpy()})
        np.testing.assert_allclose(found, expected[:batch], atol=1e-5 * largest)


@pytest.mark.parametrize("kind", OF_TIMM)
def test_files_of_timms_model(external_vits, tmp_path, kind):
    assert_merged_alike(external_vits[kind], tmp_path, timm_vit(), (5, 3))


@pytest.mark.parametrize("kind", OF_HUGGING_FACE)
def test_files_of_transformers_vit(external_vits, tmp_path, kind):
    assert_merged_alike(external_vits[kind], tmp_path, twin(hugging_face_vit(), tmp_path), (5, 3))


@pytest.mark.parametrize(
    ("name", "write"), [("DeiT", write_old), ("Dinov2", write_old), ("Dinov2WithRegisters", write_new)]
)
def test_files_of_its_other_encoders(tmp_path, name, write):
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = getattr(transformers, f"{name}Config")(**sizes, num_labels=5)
    model = randomise(getattr(transformers, f"{name}ForImageClassification")(config))
    same = twin(model, tmp_path)
    assert_merged_alike(write(model, tmp_path / "given.onnx"), tmp_path, same, (4, 0, 2))
