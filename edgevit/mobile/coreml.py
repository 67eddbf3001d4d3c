"""Core ML: what Apple's devices run, and nothing here can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.mobile.converter import Converter, Image

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.graph.torch_module import TorchGraph

_FOLDER = "model.mlpackage"


class CoreML(Converter):
    """By coremltools, for iOS 16 and macOS 13 or later; INT8 of weights alone, which takes no device."""

    name = "coreml"
    title = "Core ML"
    modules = ("coremltools",)
    packages = ("coremltools",)
    quantized = "int8-weights"
    runs = False

    def convert(self, module: TorchGraph, image: Tensor, folder: Path) -> Path:
        """Write ``model.mlpackage``."""
        import coremltools
        import torch

        program = torch.export.export(module, (image,)).run_decompositions({})
        made = coremltools.convert(
            program,
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,
        )
        path = folder / _FOLDER
        made.save(str(path))
        return path

    def quantize(self, module: TorchGraph, float32: Path, images: Sequence[Image] | Image, folder: Path) -> Path:  # noqa: ARG002
        """Write ``model.mlpackage`` with small weights."""
        import coremltools
        from coremltools.optimize import coreml

        how = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
        made = coreml.linear_quantize_weights(
            coremltools.models.MLModel(str(float32), skip_model_load=True), coreml.OptimizationConfig(global_config=how)
        )
        path = folder / _FOLDER
        made.save(str(path))
        return path
