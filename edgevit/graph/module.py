"""From a ``torch.nn.Module`` of any kind to an ONNX file that can be taken on as others' files are."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy

from edgevit.errors import GraphError, InputError
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.metadata import LARGEST_FILE, OUTPUT
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.module_trace import REMEDY, cause_of, trace_module
from edgevit.progress import SILENT, Progress

_CHANNELS = (1, 3)


class _Outputs(nn.Module):
    """A copy of a module in evaluation mode, and of what it gives the tensors that are meant.

    Of outputs by name that is ``logits`` alone, if they are (B, classes), else all; ``names`` are what they are called.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.names: tuple[str, ...] = ()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = self._named(self.module(images))
        logits = named.get("logits")
        if isinstance(logits, torch.Tensor) and logits.ndim == 2:
            named = {"logits": logits}
        for value in named.values():
            if not isinstance(value, torch.Tensor):
                raise GraphError(
                    f"{type(self.module).__name__} gives a {type(value).__name__}, not a tensor",
                    remedy="wrap it in a module whose forward() returns the tensors that are meant",
                )
        self.names = tuple(named)
        return tuple(named.values())

    def _named(self, given: Any) -> dict[str, Any]:  # noqa: ANN401 - what a module gives
        if isinstance(given, Mapping):  # transformers' outputs are such, too
            return {str(name): value for name, value in given.items() if value is not None}
        if hasattr(given, "_asdict"):
            return dict(given._asdict())
        if isinstance(given, (tuple, list)) and len(given) != 1:
            return {f"output_{number}": each for number, each in enumerate(given)}
        alone = given[0] if isinstance(given, (tuple, list)) else given
        return {OUTPUT if getattr(alone, "ndim", 0) == 2 else "output": alone}


@dataclass(frozen=True, slots=True, eq=False)
class ModuleFile:
    """A module that takes images (B, C, H, W), and the ONNX file at ``path`` that was traced of it."""

    module: _Outputs
    name: str
    path: Path
    size: tuple[int, int]

    REMEDY: ClassVar[str] = "have it compute in another way what torch.onnx writes otherwise than it runs, or report it"

    def model(self, overrides: MetadataOverrides) -> OnnxModel:
        """Return what a bundle can be made of; ``overrides`` are what the caller says of it.

        Raises:
            GraphError: if the module does not give one row of numbers for each image.
            DataError: if there is not one label for each class.
        """
        return open_onnx(self.path, self.name, replace(overrides, image_size=self.size))

    def infer(self, images: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """Return what the module itself gives as outputs ``names`` for ``images`` (B, C, H, W), in a row for each."""
        rows = []
        with torch.inference_mode():
            for image in images:  # one by one
                given = dict(zip(self.module.names, self.module(torch.from_numpy(image[None])), strict=True))
                rows.append(torch.cat([given[name].flatten(1) for name in names], dim=1))
        return torch.cat(rows).numpy()


def module_file(
    module: object, input_shape: tuple[int, int, int] | None, folder: Path, progress: Progress = SILENT
) -> ModuleFile:
    """Trace ``module`` on an image of ``input_shape`` (C, H, W), and write it as ONNX into ``folder``.

    The module itself is left as it is: a copy is traced, in evaluation mode. The batch is of any size where the module
    takes that, else one image; it is made to take more then, and compared.

    Raises:
        InputError: if it is no module, or ``input_shape`` is missing or no shape of an image.
        GraphError: if it is not float32 on the CPU, too large for one file, has no weights yet, does not give the same
            for an image whenever it is asked, or torch cannot trace it.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"source is a {type(module).__name__}", remedy="give a path, a built-in name, or a torch.nn.Module"
        )
    channels, height, width = _checked(input_shape)
    name = type(module).__name__
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, tensors)):
        raise GraphError(
            f"{name} has layers without weights yet (nn.Lazy...)",
            remedy="run it on an image, or load its weights, before the export: module(torch.zeros(2, C, H, W))",
        )
    if any(each.is_floating_point() and (each.dtype, each.device.type) != (torch.float32, "cpu") for each in tensors):
        raise GraphError("the module is not float32 on the CPU", remedy="call module.float().cpu() before the export")
    if sum(tensor.nbytes for tensor in tensors) > LARGEST_FILE:
        raise GraphError("the weights take more than the 2 GiB of one ONNX file", remedy="use a smaller model")
    progress.note(f"Tracing {name}")
    path = folder / f"{name}.onnx"
    copied = _copied(module, name)
    _check_runs(copied, _copied(module, name), name, (channels, height, width))
    ir.save(trace_module(copied, copied.names, name, (channels, height, width)), path)
    return ModuleFile(copied, name, path, (height, width))


def _copied(module: nn.Module, name: str) -> _Outputs:
    try:
        return _Outputs(copy.deepcopy(module)).eval()
    except (RuntimeError, TypeError) as error:
        raise GraphError(f"{name} cannot be copied: {cause_of(error)}", remedy=REMEDY) from error


def _check_runs(module: _Outputs, fresh: _Outputs, name: str, shape: tuple[int, int, int]) -> None:
    """Check that ``module`` runs, and gives the same for an image whenever it is asked, as its ``fresh`` copy does."""
    drawn, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    image = torch.rand((1, *shape), generator=generator, dtype=torch.float32, device="cpu")
    darker = image.square() / 2  # what a module keeps of an image differs, then
    try:
        with torch.inference_mode():
            first, second, after, before = module(image), module(image), module(darker), fresh(darker)
    except GraphError:
        raise
    except Exception as error:  # a module may raise anything
        raise GraphError(
            f"{name} cannot be run on an image of shape {shape}: {type(error).__name__}: {cause_of(error)}",
            remedy="see that it runs on torch.zeros(1, C, H, W) in evaluation mode, or give another input_shape",
        ) from error
    if not _equal(first, second):
        torch.set_rng_state(drawn)  # what others draw is not to depend on an export that was refused
        raise GraphError(
            f"{name} gives something else for the same image each time it is called",
            remedy="leave what is random, or what counts calls, out of its forward() in evaluation mode",
        )
    if not _equal(after, before):
        raise GraphError(
            f"{name} gives something else for an image when it has run on another one before",
            remedy="leave what it keeps of images out of its forward() in evaluation mode; if it keeps something of "
            "the first alone, run it on an image of yours before the export",
        )


def _equal(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(
        (one.shape, one.dtype) == (other.shape, other.dtype) and torch.allclose(one, other, atol=1e-4, equal_nan=True)
        for one, other in zip(some, others, strict=True)
    )


def _checked(input_shape: tuple[int, int, int] | None) -> tuple[int, ...]:
    if input_shape is None:
        raise InputError("a module does not say which images it takes", remedy="give input_shape=(3, 224, 224)")
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in shape)
    if len(shape) != 3 or not whole or shape[0] not in _CHANNELS:
        raise InputError(
            f"input_shape is {input_shape!r}", remedy="give channels (1 or 3), height and width: (3, 224, 224)"
        )
    return shape
