"""A ViT with random weights, exported as users would: once for each spec, however many tests and workers ask."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from once import once

from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import ModelSpec

PREPROCESS = Preprocess(size=(16, 16), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
LABELS = tuple("abcde")


def random_model(spec: ModelSpec):
    """Return the ViT of ``spec`` that ``exported`` exports."""
    import torch

    from edgevit.models.vit import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if model.rotary is not None:
        torch.nn.init.normal_(model.rotary.frequencies)
    return model


def exported(factory: pytest.TempPathFactory, spec: ModelSpec) -> Path:
    """Return the file of a ViT of ``spec``, for images of 16x16 and five classes, to be read and not changed."""

    def make(folder: Path) -> None:  # torch takes seconds for each
        from edgevit.graph.torch_export import export_onnx

        export_onnx(random_model(spec), folder / "model.onnx", preprocess=PREPROCESS, labels=LABELS)

    digest = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()
    return once(factory, f"vit-{digest[:16]}", make) / "model.onnx"
