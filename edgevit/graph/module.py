"""From a ``torch.nn.Module`` of any kind to an ONNX file that can be taken on as others' files are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune

from edgevit.errors import GraphError, InputError, VerificationError
from edgevit.files import storage_errors
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.metadata import LARGEST_FILE
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.module_copy import Untouched
from edgevit.graph.module_copy import copied as copied_module
from edgevit.graph.module_outputs import ModuleOutputs
from edgevit.graph.module_trace import cause_of, trace_module
from edgevit.graph.onnx_file import AGAIN, shown
from edgevit.progress import SILENT, Progress

_CHANNELS = (1, 3)
_OTHERWISE = "have it compute in float32 alone, without autocast in its forward(), or export it to ONNX by other means"
_FLOAT32 = partial(torch.autocast, "cpu", enabled=False)  # whatever the caller has this thread compute in


@dataclass(frozen=True, slots=True, eq=False)
class ModuleFile:
    """A module that takes images (B, C, H, W), and the ONNX file at ``path`` that was traced of it."""

    module: ModuleOutputs
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

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Have errors name the module, not its file, which is gone when they are read."""
        try:
            yield
        except (GraphError, VerificationError) as error:
            message = error.message.replace(str(self.path), f"the ONNX graph of {self.name}")
            remedy = error.remedy.replace(AGAIN, _OTHERWISE)
            raise type(error)(message, remedy=remedy) from error

    def infer(self, images: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """Return what the module itself gives as outputs ``names`` for ``images`` (B, C, H, W), in a row for each.

        Raises:
            GraphError: if it cannot be run on one of them, or gives other outputs for it.
        """
        rows = []
        with _FLOAT32(), torch.no_grad():
            try:
                for image in images:  # one by one
                    answers = self.module(torch.from_numpy(image[None]))
                    given = dict(zip(self.module.names, answers, strict=True))
                    rows.append(torch.cat([given[name].flatten(1) for name in names], dim=1))
                return torch.cat(rows).detach().numpy()  # a module may have autograd on
            except Exception as error:  # a module may raise anything
                raise GraphError(
                    f"{self.name} cannot be run on each of {len(images)} images, with the same outputs: "
                    f"{type(error).__name__}: {cause_of(error)}",
                    remedy="see that it runs on any image in evaluation mode, and always gives the same outputs",
                ) from error


def module_file(
    module: object,
    input_shape: tuple[int, int, int] | None,
    folder: Path,
    wanted: Collection[str] = (),
    progress: Progress = SILENT,
) -> ModuleFile:
    """Trace ``module`` on an image of ``input_shape`` (C, H, W), and write it as ONNX into ``folder``.

    ``wanted`` names the outputs to use; without it, they are those that ``ModuleOutputs`` chooses.

    The module itself is left as it is: a copy is traced, in evaluation mode. The batch is of any size where the module
    takes that, else one image; it is made to take more then, and compared.

    Raises:
        InputError: if it is no module, or ``input_shape`` is missing or no shape of an image.
        StorageError: if ``folder`` has no room.
        GraphError: if it is not float32 on the CPU, too large for one file, has no weights yet, does not give the same
            for an image whenever it is asked, or torch cannot trace it.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"source is a {type(module).__name__}", remedy="give a path, a built-in name, or a torch.nn.Module"
        )
    channels, height, width = _checked(input_shape)
    name = shown(type(module).__name__)
    if any(isinstance(each, torch.jit.ScriptModule) for each in nn.Module.modules(module)):
        raise GraphError(
            f"{name} is, or holds, a module of torch.jit, which torch.export does not take",
            remedy="give the module that torch.jit.script or torch.jit.trace was called with",
        )
    tensors = _tensors(module)
    if any(map(is_lazy, tensors)):
        raise GraphError(
            f"{name} has layers without weights yet (nn.Lazy...)",
            remedy="run it on an image, or load its weights, before the export: module(torch.zeros(2, C, H, W))",
        )
    if any(each.is_floating_point() and (each.dtype, each.device.type) != (torch.float32, "cpu") for each in tensors):
        raise GraphError("the module is not float32 on the CPU", remedy="call module.float().cpu() before the export")
    if any(tensor.layout != torch.strided for tensor in tensors):
        raise GraphError(f"{name} has sparse weights", remedy="make them dense: tensor.to_dense()")
    if sum(tensor.nbytes for tensor in tensors) > LARGEST_FILE:
        raise GraphError("the weights take more than the 2 GiB of one ONNX file", remedy="use a smaller model")
    progress.note(f"Tracing {name}")
    path = folder / "module.onnx"
    with _FLOAT32():
        copied = _copied(module, name, wanted)
        fresh = _copied(copied.module, name, wanted)  # the module itself may be trained meanwhile, in another thread
        _check_runs(copied, fresh, name, (channels, height, width), _not_to_be_used(module, copied, tensors, name))
        graph = trace_module(copied, copied.names, name, (channels, height, width))
    with storage_errors(path):
        ir.save(graph, path)
    return ModuleFile(copied, name, path, (height, width))


def _copied(module: nn.Module, name: str, wanted: Collection[str]) -> ModuleOutputs:
    try:
        copied = copied_module(module)
    except GraphError:
        raise
    except Exception as error:  # a module may copy itself in any way
        raise GraphError(
            f"{name} cannot be copied: {cause_of(error)}", remedy="see that copy.deepcopy(module) works"
        ) from error
    if not isinstance(copied, nn.Module):
        raise GraphError(
            f"{name} cannot be copied: its copy is a {type(copied).__name__}",
            remedy="see that __deepcopy__ gives one",
        )
    if not set(map(id, nn.Module.modules(copied))).isdisjoint(map(id, nn.Module.modules(module))):
        raise GraphError(
            f"{name} cannot be copied: its copy shares modules with it", remedy="see that __deepcopy__ copies all of it"
        )
    for each in nn.Module.modules(copied):
        for weight in [key for key, value in vars(each).items() if isinstance(value, torch.Tensor)]:
            for make_parameter in (nn.utils.remove_weight_norm, prune.remove):
                with suppress(ValueError):  # it is none of theirs
                    make_parameter(each, weight)
    outputs = ModuleOutputs(copied, name, wanted)
    try:
        outputs.eval()
    except Exception as error:  # a module may have a method train() of its own
        if _trains(copied):
            raise GraphError(
                f"{name} cannot be put into evaluation mode: {cause_of(error)}",
                remedy="see that module.eval() works: it calls train(False) of each part, so call what trains it fit()",
            ) from error
    # Attention, as torch computes it for gradients, is what torch.onnx takes in fewer forms.
    return outputs.requires_grad_(requires_grad=False)


def _not_to_be_used(
    module: nn.Module, copied: ModuleOutputs, tensors: Sequence[torch.Tensor], name: str
) -> Untouched | None:
    """Return what refuses that ``copied`` computes with ``tensors`` of ``module``, if that matters to the answer."""
    if not _trains(module):
        return None
    shared = set(map(id, _tensors(copied)))  # as a module may have it that copies itself
    return Untouched((each for each in tensors if id(each) not in shared), name)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*nn.Module.parameters(module), *nn.Module.buffers(module)]  # its own methods may be called so


def _trains(module: nn.Module) -> bool:
    return any(each.training for each in nn.Module.modules(module))


def _check_runs(
    module: ModuleOutputs, fresh: ModuleOutputs, name: str, shape: tuple[int, int, int], others: Untouched | None
) -> None:
    """Check that ``module`` runs, and gives the same for an image whenever it is asked, as its ``fresh`` copy does."""
    drawn, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    image = torch.rand((1, *shape), generator=generator, dtype=torch.float32, device="cpu")
    darker = image.square() / 2  # what a module keeps of an image differs, then
    try:
        with torch.no_grad():  # what is kept of a run, in a cache of a class, is to be of use in a training, too
            if others is not None:
                with others:
                    module(image)
            first, second, after, before = (
                _answers(*each) for each in ((module, image), (module, image), (module, darker), (fresh, darker))
            )
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


def _answers(module: ModuleOutputs, image: torch.Tensor) -> list[torch.Tensor]:
    return [each.clone() for each in module(image)]  # a module may write all its answers into one tensor


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
