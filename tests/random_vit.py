"""A ViT with random weights, exported as users would."""

import torch

from edgevit.data.preprocess import Preprocess
from edgevit.graph.export import export_onnx
from edgevit.models.vit import VisionTransformer


def exported(folder, spec):
    """Export a ViT of ``spec``, for images of 16x16 and five classes, to ``folder/model.onnx``; return that path."""
    torch.manual_seed(0)
    model = VisionTransformer(spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    preprocess = Preprocess(size=(16, 16), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    export_onnx(model, folder / "model.onnx", preprocess=preprocess, labels=tuple("abcde"))
    return folder / "model.onnx"
