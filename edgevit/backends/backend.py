"""An inference engine as the rest of EdgeViT sees it: what its class tells without it, and what it does once loaded."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgevit import dependencies
from edgevit.backends.base import ANY_DEVICE, BuildOptions, Session, merge_settings
from edgevit.backends.triton import TritonModel
from edgevit.bundle.manifest import Precision
from edgevit.bundle.measured import Transfers
from edgevit.bundle.pack import PackedModel
from edgevit.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgevit.backends.kernel_report import KernelReport

#: What an engine takes whose files are ONNX, or are converted from it on any machine.
ONNX_PRECISIONS: tuple[Precision, ...] = ("float32", "fp16", "int8", "int8-dynamic", "int8-weights", "int4-weights")


class TargetFields(Protocol):
    """What a backend looks at in a target, which is ``edgevit.targets.Target``."""

    @property
    def dialect(self) -> str:
        """The form of its files."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that can be made for it."""

    @property
    def compute_capability(self) -> str | None:
        """The one of its NVIDIA GPU."""

    @property
    def versions(self) -> str | None:
        """The versions of the engine that serve it, as in PEP 440."""


class Backend(ABC):
    """An inference engine. Its class tells what it takes and whether it is here; an object has the engine imported.

    An engine is added by one module with such a class and one line in ``edgevit.backends.BACKENDS``. What most engines
    have in common is said here already: they run on the CPU and are built on any machine.
    """

    name: ClassVar[str]
    #: Name of the optional dependency group that brings it, and of the package that Python imports.
    extra: ClassVar[str]
    package: ClassVar[str]
    #: The packages, as they are installed, whose versions can change a figure.
    distributions: ClassVar[tuple[str, ...]]
    #: What people call it beside its name.
    nicknames: ClassVar[tuple[str, ...]] = ()
    #: The forms of a quantized file that it runs in integers (``edgevit.quantization.emit``); the first is its own.
    dialects: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[Precision, ...]] = ONNX_PRECISIONS
    #: How the names of the files end that it opens; it takes no others for models.
    formats: ClassVar[tuple[str, ...]] = (".onnx",)
    #: Where it runs; the first is meant where nothing is said.
    devices: ClassVar[tuple[str, ...]] = ("CPU",)
    #: Those on which it does not tell how it executes a model: the answers are compared instead.
    silent_devices: ClassVar[tuple[str, ...]] = ()
    #: What ``open`` may be given, with what it takes where it is not given. What was used belongs into
    #: ``Variant.settings``: without it, a measurement cannot be repeated.
    settings: ClassVar[Mapping[str, str]] = {}
    #: Whether it needs a device of its own, which need not be this machine: what cannot be built here is built there,
    #: and what cannot be run here is left out. Others are missing only until they are installed.
    builds_on_device: ClassVar[bool] = False
    #: Whether it builds for a device that is elsewhere all the same.
    cross_compiles: ClassVar[bool] = False
    #: Whether it gives several outputs, and others than one row of numbers for each image.
    several_outputs: ClassVar[bool] = True
    #: Whether it runs on an NVIDIA GPU, whose clocks and energy then count.
    nvidia: ClassVar[bool] = False
    #: Whether dynamic INT8 is operators of its own, which are written into the file; else it is a setting.
    dynamic_operators: ClassVar[bool] = False
    #: With a setting: that which keeps it from rounding activations at all.
    float_activations: ClassVar[Mapping[str, str]] = {}
    #: The first versions that build a precision, where earlier ones only run it.
    built_since: ClassVar[Mapping[Precision, str]] = {}

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Return why it runs no model on this machine, and what to do; None if it does. It is not imported for that."""
        if importlib.util.find_spec(cls.package) is None:
            return f"the Python package '{cls.package}' is not installed ({cls.how_to_install()})"
        return None

    @classmethod
    def available(cls) -> bool:
        """Say whether it runs models on this machine."""
        return cls.unavailable_reason() is None

    @classmethod
    def unbuildable_reason(cls, options: BuildOptions) -> str | None:  # noqa: ARG003
        """Return why it must build on the device, and not here; None if it is tried here."""
        return None

    @classmethod
    def unsupported_reason(cls, model: Path, settings: Mapping[str, str]) -> str | None:  # noqa: ARG003
        """Return why ``model``, one of its files, is not for this machine; None if it may be."""
        return None

    @classmethod
    def reads_memory(cls, names: Sequence[str], settings: Mapping[str, str]) -> bool:  # noqa: ARG003
        """Return whether ``open_packed`` takes a model that is made of the files ``names``, the first to be opened."""
        return False

    @classmethod
    def check_settings(cls, given: Mapping[str, str]) -> None:
        """Check that it can be given the settings ``given``.

        Raises:
            BundleError: if it does not have one of them, or one has a value that it cannot have.

        """
        merge_settings(cls.name, cls.settings, given)

    @classmethod
    def device_settings(cls, device: str) -> dict[str, str]:  # noqa: ARG003
        """Return the settings that choose one of its ``devices``."""
        return {}

    @classmethod
    def contradictions(cls, target: TargetFields) -> Iterator[tuple[str, str]]:
        """Yield the keys of ``target`` that this engine has something against, and what."""
        if target.compute_capability:
            yield "compute_capability", f"{cls.name} does not run on an NVIDIA GPU"

    @classmethod
    def how_to_install(cls) -> str:
        """Return the command that installs the engine."""
        return dependencies.how_to_install(cls.extra)

    @classmethod
    def how_to_install_version(cls, versions: str | None) -> str:
        """Return what installs one of ``versions`` of the engine."""
        return f'pip install "{cls.name}{versions or ""}"'

    @classmethod
    def first_version(cls, opset: int, operators: Collection[str]) -> str | None:  # noqa: ARG003
        """Return the first version that runs an ONNX file of ``opset``, made of these standard operators.

        None where the file does not decide that.
        """
        return None

    @classmethod
    def reads(cls, opset: int, operators: Collection[str], version: str) -> bool:  # noqa: ARG003
        """Say whether ``version`` of the engine reads an ONNX file of ``opset``, made of these standard operators."""
        return True

    @classmethod
    def built_report(cls, model: Path) -> KernelReport | None:  # noqa: ARG003
        """Return how ``model``, one of its files, is executed, as its build found; None where the build did not tell.

        Raises:
            BundleError: if what the build left is damaged.

        """
        return None

    @classmethod
    def unreported_reason(cls, model: Path) -> str:  # noqa: ARG003
        """Return why there is no ``built_report`` of ``model``."""
        return "what built it does not tell"

    @classmethod
    def triton_model(cls, model: Path, settings: Mapping[str, str]) -> TritonModel | str:  # noqa: ARG003
        """Return how Triton runs ``model``, one of its files, by a backend of its own; else why it does not.

        ``settings`` are what the variant is opened with.

        Raises:
            BundleError: if what lies beside the file is damaged.

        """
        return f"Triton has no backend for {cls.name}"

    @abstractmethod
    def version(self) -> str:
        """Return the version of the engine."""

    @abstractmethod
    def build(
        self, model: Path, folder: Path, options: BuildOptions = ANY_DEVICE, *, progress: Progress = SILENT
    ) -> list[Path]:
        """Turn the ONNX file ``model`` into this backend's own files in ``folder``; the first is the one to open.

        Raises:
            InputError: if the engine cannot do what ``options`` ask for.
            GraphError: if the engine cannot take the model.
            StorageError: if the files cannot be written.

        """

    def operator_times(
        self,
        model: Path,  # noqa: ARG002
        *,
        threads: int,  # noqa: ARG002
        settings: Mapping[str, str],  # noqa: ARG002
        images: NDArray[np.float32],  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Return the milliseconds that one run on preprocessed ``images`` (B, C, H, W) spends in each kind of operator.

        They are the engine's own figures, by its own names; while it takes them it is a little slower. Empty where it
        has none.

        Raises:
            BundleError: as ``open`` does.
        """
        return {}

    def transfer_times(
        self,
        model: Path,  # noqa: ARG002
        *,
        settings: Mapping[str, str],  # noqa: ARG002
        images: NDArray[np.float32],  # noqa: ARG002
    ) -> Transfers | None:
        """Return what copies and computing of preprocessed ``images`` (B, C, H, W) take; None where none are made.

        Raises:
            BundleError: as ``open`` does.
            MissingDependencyError: as ``open`` does.
        """
        return None

    @abstractmethod
    def open(
        self,
        model: Path,
        *,
        threads: int,
        settings: Mapping[str, str],
        batch: int = 1,
        progress: Progress = SILENT,
    ) -> Session:
        """Load a file that ``build`` made; ``threads`` 0 leaves their number to the backend.

        The session takes any number of images; one that must be prepared for a number is so for ``batch`` of them at
        first. ``progress`` shows what takes long, such as an engine that is built again.

        Raises:
            BundleError: if the file is missing or damaged, or a setting is not one of this backend's.

        """

    def open_packed(self, model: PackedModel, *, threads: int, settings: Mapping[str, str], batch: int = 1) -> Session:
        """Load what ``build`` made from memory, as ``open`` does; for backends that have ``reads_memory``.

        Raises:
            BundleError: as ``open``.

        """
        raise NotImplementedError(f"{self.name} reads files, not {model.path} in memory")
