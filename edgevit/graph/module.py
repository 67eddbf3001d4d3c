"""From a ``torch.nn.Module`` of any kind to an ONNX file that can be taken on as others' files are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from edgevit.errors import GraphError, InputError
from edgevit.graph.export import only_real_warnings
from edgevit.graph.foreign import OnnxModel
from edgevit.graph.metadata import INPUT, LARGEST_FILE, OPSET, OUTPUT
from edgevit.graph.onnx_file import shown_line
from edgevit.graph.opening import Given, open_onnx
from edgevit.progress import SILENT, Progress

_CHANNELS = (1, 3)
_UNTRACED = (torch.onnx.OnnxExporterError, ir.passes.PassError, RuntimeError, ValueError, TypeError)
_REMEDY = (
    "export it to ONNX yourself, with torch.onnx.export(..., dynamo=True), and give the file; what torch says is above"
)


@dataclass(frozen=True, slots=True, eq=False)
class ModuleFile:
    """A module that takes images (B, C, H, W), and the ONNX file at ``path`` that was traced of it."""

    module: nn.Module
    path: Path
    size: tuple[int, int]

    REMEDY: ClassVar[str] = "do not use this export: torch.onnx traces the module otherwise than it runs; report it"

    @property
    def name(self) -> str:
        """What the module's class is called."""
        return type(self.module).__name__

    def model(self, given: Given) -> OnnxModel:
        """Return what a bundle can be made of; ``given`` is what the caller says of it.

        Raises:
            GraphError: if the module does not give one row of numbers for each image.
            DataError: if there is not one label for each class.
        """
        return open_onnx(self.path, self.name, replace(given, image_size=self.size))

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the module itself gives for ``images`` (B, C, H, W)."""
        training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode():
                rows = [self.module(torch.from_numpy(images[index : index + 1])) for index in range(len(images))]
            return torch.cat(rows).numpy()
        finally:
            self.module.train(training)


def module_file(
    module: object, input_shape: tuple[int, int, int] | None, folder: Path, progress: Progress = SILENT
) -> ModuleFile:
    """Trace ``module`` on an image of ``input_shape`` (C, H, W), and write it as ONNX into ``folder``.

    The batch is of any size where the module takes that, else one image; it is made to take more then, and compared.

    Raises:
        InputError: if it is no module, or ``input_shape`` is missing or no shape of an image.
        GraphError: if it is not float32 on the CPU, too large for one file, or torch cannot trace it.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"source is a {type(module).__name__}", remedy="give a path, a built-in name, or a torch.nn.Module"
        )
    channels, *size = _checked(input_shape)
    tensors = [*module.parameters(), *module.buffers()]
    if any(each.is_floating_point() and (each.dtype, each.device.type) != (torch.float32, "cpu") for each in tensors):
        raise GraphError("the module is not float32 on the CPU", remedy="call module.float().cpu() before the export")
    if sum(tensor.nbytes for tensor in tensors) > LARGEST_FILE:
        raise GraphError("the weights take more than the 2 GiB of one ONNX file", remedy="use a smaller model")
    progress.note(f"Tracing {type(module).__name__}")
    path = folder / "module.onnx"
    ir.save(_trace(module, (channels, size[0], size[1])), path)
    return ModuleFile(module, path, (size[0], size[1]))


def _checked(input_shape: tuple[int, int, int] | None) -> tuple[int, ...]:
    if input_shape is None:
        raise InputError("a module does not say which images it takes", remedy="give input_shape=(3, 224, 224)")
    shape = tuple(input_shape)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in shape)
    if len(shape) != 3 or not whole or shape[0] not in _CHANNELS:
        raise InputError(
            f"input_shape is {input_shape!r}", remedy="give channels (1 or 3), height and width: (3, 224, 224)"
        )
    return shape


def _trace(module: nn.Module, shape: tuple[int, int, int]) -> ir.Model:
    """Return the graph of ``module`` with a batch of any size, or of one where it takes no other."""
    training = module.training
    module.eval()
    try:
        return _traced(module, shape, any_size=True)
    except _UNTRACED:
        try:
            return _traced(module, shape, any_size=False)
        except _UNTRACED as error:
            said = shown_line(str(error))
            raise GraphError(f"torch cannot trace {type(module).__name__}: {said}", remedy=_REMEDY) from error
    finally:
        module.train(training)


def _traced(module: nn.Module, shape: tuple[int, int, int], *, any_size: bool) -> ir.Model:
    with only_real_warnings():
        program = torch.onnx.export(
            module,
            (torch.zeros(2 if any_size else 1, *shape),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},) if any_size else None,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx gave no graph")
    return program.model
