"""What a converter to a phone's engine tells and does."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgevit import dependencies, resources
from edgevit.errors import MissingDependencyError
from edgevit.mobile import MobileFormat, Quantized, Rewrite
from edgevit.shell import quoted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgevit.graph.torch_module import TorchGraph

Image = NDArray[np.float32]


class Converter(ABC):
    """One tool. What it imports, it imports in its methods; these run in the worker's process alone."""

    name: ClassVar[MobileFormat]
    title: ClassVar[str]
    #: What must be there to be imported, and the packages whose versions are noted.
    modules: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]
    #: What its quantizer makes; None if it has none.
    quantized: ClassVar[Quantized | None] = None
    #: Whether its quantizer looks at images, each (1, C, H, W).
    calibrates: ClassVar[bool] = False
    #: Changes to the graph that its quantizer gains by, as benchmarks/mobile_formats.py measures: smoothing is none.
    rewrites: ClassVar[tuple[Rewrite, ...]] = ("rotated",)
    #: Whether its engine runs on this kind of machine, so that what was converted can be checked.
    runs: ClassVar[bool] = True

    @classmethod
    def check_installed(cls) -> None:
        """Check that the tool is there.

        Raises:
            MissingDependencyError: if it is not.

        """
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError(
                "the Python package 'torch' is not installed", remedy=dependencies.how_to_install("train")
            )
        missing = [name for name in cls.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"{cls.title} is not installed: there is no Python package '{missing[0]}'",
                remedy=converter_install_command(cls),
            )

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of what took part."""
        return {name: version(name) for name in ("torch", *cls.packages)}

    @abstractmethod
    def convert(self, module: TorchGraph, image: Tensor, folder: Path) -> Path:
        """Write ``module``, which takes one ``image`` (1, C, H, W), to ``folder``; return the file to open."""

    def quantize(self, module: TorchGraph, float32: Path, images: Sequence[Image] | Image, folder: Path) -> Path:
        """Write it in what ``quantized`` says, calibrated on ``images``, each (1, C, H, W).

        ``float32`` is what ``convert`` gave.
        """
        raise NotImplementedError

    def answers(self, model: Path, images: Sequence[Image] | Image) -> list[list[NDArray[np.float32]]]:
        """Return all outputs for each of ``images`` (N, C, H, W), in the engine itself."""
        raise NotImplementedError


def converter_install_command(kind: type[Converter]) -> str:
    """Return the command that installs a tool, without what it depends on, which would replace what is here."""
    return f"pip install --no-deps -r {quoted(resources.folder('export') / 'mobile' / f'{kind.name}.txt')}"


def exported(module: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    """Return ``module`` as ``torch.export`` has it, from which most converters start."""
    import torch

    return torch.export.export(module, (image,), strict=False)
