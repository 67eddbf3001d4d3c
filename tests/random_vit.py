"""A ViT with random weights, exported as users would."""

import tempfile
from functools import cache
from pathlib import Path

import torch

from edgevit.data.preprocess import Preprocess
from edgevit.graph.export import export_onnx
from edgevit.models.vit import VisionTransformer


def exported(folder, spec):
    """Write a ViT of ``spec``, for images of 16x16 and five classes, to ``folder/model.onnx``; return that path."""
    path = folder / "model.onnx"
    path.write_bytes(_exported(spec))
    return path


@cache  # torch takes seconds for each
def _exported(spec):
    torch.manual_seed(0)
    model = VisionTransformer(spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    preprocess = Preprocess(size=(16, 16), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path, preprocess=preprocess, labels=tuple("abcde"))
        return path.read_bytes()
