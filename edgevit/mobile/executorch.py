"""ExecuTorch, with the XNNPACK kernels of phones' processors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.mobile.converter import Converter, Image, exported

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edgevit.graph.torch_module import TorchGraph

_FILE = "model.pte"


class ExecuTorch(Converter):
    """``torch.export``, lowered to XNNPACK; INT8 by its quantizer for that (PT2E), per channel and static."""

    name = "executorch"
    title = "ExecuTorch"
    modules = ("executorch", "torchao")
    packages = ("executorch", "torchao")
    quantized = "int8"
    calibrates = True

    def convert(self, module: TorchGraph, image: Tensor, folder: Path) -> Path:
        """Write ``model.pte``."""
        return _lowered(exported(module, image), folder)

    def quantize(self, module: TorchGraph, float32: Path, images: Sequence[Image] | Image, folder: Path) -> Path:  # noqa: ARG002
        """Write ``model.pte`` in INT8."""
        import torch
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        observed: Any = None
        for array in images:
            image = torch.from_numpy(np.array(array))
            if observed is None:
                observed = prepare_pt2e(exported(module, image).module(), quantizer)
            observed(image)
        return _lowered(exported(convert_pt2e(observed), image), folder)

    def answers(self, model: Path, images: Sequence[Image] | Image) -> list[list[NDArray[np.float32]]]:
        """Run it in ExecuTorch's runtime."""
        import torch
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(model).load_method("forward")
        inputs = (torch.from_numpy(image[None]) for image in images)
        return [[output.numpy().copy() for output in method.execute([image])] for image in inputs]


def _lowered(program: torch.export.ExportedProgram, folder: Path) -> Path:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    made = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = folder / _FILE
    path.write_bytes(made.buffer)
    return path
