"""LiteRT, which was TensorFlow Lite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgevit.mobile.converter import Converter, Image

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.graph.torch_module import TorchGraph

_FILE = "model.tflite"


class LiteRT(Converter):
    """By litert-torch; INT8 by AI Edge's quantizer, weights and activations static, images and answers in float32."""

    name = "litert"
    title = "LiteRT"
    modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    packages = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "litert-converter")
    quantized = "int8"
    calibrates = True

    def convert(self, module: TorchGraph, image: Tensor, folder: Path) -> Path:
        """Write ``model.tflite``."""
        import litert_torch

        path = folder / _FILE
        litert_torch.convert(module, (image,)).export(str(path))
        return path

    def quantize(self, module: TorchGraph, float32: Path, images: Sequence[Image] | Image, folder: Path) -> Path:  # noqa: ARG002
        """Write ``model.tflite`` in INT8."""
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

        ((signature, about),) = Interpreter(str(float32)).get_signature_list().items()
        (name,) = about["inputs"]
        tool = quantizer.Quantizer(str(float32))
        tool.load_quantization_recipe(recipe.static_wi8_ai8())
        for place in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            tool.update_quantization_recipe(".*", place, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
        seen = tool.calibrate({signature: [{name: image} for image in images]}, num_threads=1)
        path = folder / _FILE
        tool.quantize(seen).export_model(str(path))
        return path

    def answers(self, model: Path, images: Sequence[Image] | Image) -> list[list[NDArray[np.float32]]]:
        """Run it in LiteRT's interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(model), num_threads=1).get_signature_runner()
        (name,) = runner.get_input_details()
        outputs = sorted(runner.get_output_details(), key=lambda each: int(each.rpartition("_")[2]))
        found = []
        for image in images:
            given = runner(**{name: image[None]})
            found.append([np.array(given[each]) for each in outputs])
        return found
