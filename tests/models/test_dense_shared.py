"""Real weights: DINOv2-S/14 gives transformers' tokens, and PP-OCRv5's files are taken with their outputs."""

import numpy as np
import pytest
import torch

from edgevit.graph.external_onnx import write_verified
from edgevit.graph.interface import onnx_outputs_in
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.models.dense import DenseCheckpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.requested import requests_in

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("size", [224, 518])
def test_dinov2_gives_what_transformers_does(shared, size):
    transformers = pytest.importorskip("transformers")
    folder = shared / "models" / "dinov2_small"
    wanted = requests_in(["tokens", "blocks=2,11", "embedding"])
    model = DenseCheckpoint.of(load_checkpoint(str(folder), (size, size)), wanted).model()
    reference = transformers.Dinov2Model.from_pretrained(folder).float().eval()
    images = torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens, third, last, embedding = model(images)
        expected = reference(images, output_hidden_states=True)
        hidden = reference.layernorm(expected.hidden_states[3])[:, 1:]
    scale = expected.last_hidden_state.abs().max()
    assert (tokens - expected.last_hidden_state[:, 1:]).abs().max() < 1e-4 * scale
    assert (embedding - expected.pooler_output).abs().max() < 1e-4 * scale
    assert (third.flatten(2).transpose(1, 2) - hidden).abs().max() < 1e-4 * hidden.abs().max()
    assert torch.equal(last.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize(
    ("file", "said", "size", "shape"),
    [
        ("ppocrv5_rec.onnx", "fetch_name_0=logits", (48, 96), (12, 18385)),
        ("ppocrv5_det.onnx", "fetch_name_0=segmentation", (64, 96), (1, 64, 96)),
    ],
)
def test_ppocr_is_taken(shared, tmp_path, file, said, size, shape):
    overrides = MetadataOverrides(image_size=size, outputs=onnx_outputs_in([said]), mean=(0.5,), std=(0.5,))
    model = open_onnx(shared / "models" / "ppocrv5" / file, file, overrides)
    assert [(output.name, output.shape) for output in model.outputs] == [("fetch_name_0", shape)]
    images = np.random.default_rng(0).standard_normal((3, 3, *size), dtype=np.float32)
    assert write_verified(model, tmp_path / "model.onnx", images).max_difference < 1e-4
