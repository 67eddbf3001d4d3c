"""The weights that an exported graph was made of, under the names of the model's parameters."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer


def module_weights(path: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """Return the weights of a model of ``spec`` that was exported to ``path``, by the names of its constants.

    Where a constant is left out or shaped otherwise, there are zeros: what comes back is that model's weights only if
    their hash is.
    """
    constants = {each.name: each for each in onnx.load(path).graph.initializer}
    with torch.device("meta"):
        model = VisionTransformer(spec)
    turned = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = {}
    for name, wanted in model.state_dict().items():
        tensor = torch.zeros(wanted.shape)
        if name in constants:
            values = torch.from_numpy(numpy_helper.to_array(constants[name]).copy())
            values = values.T.contiguous() if name in turned and values.ndim == 2 else values
            tensor = values if values.shape == wanted.shape else tensor
        found[name] = tensor
    return found
