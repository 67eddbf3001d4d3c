"""onnxruntime on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.backend import Backend
from edgevit.backends.base import (
    ANY_DEVICE,
    BuildOptions,
    LinearKernel,
    as_rows,
    check_images,
    merge_settings,
    split,
)
from edgevit.backends.onnx_versions import QUANTIZE_23, first_version
from edgevit.backends.pixels import INPUTS, PIXELS, as_taken, normalised_by, shape_of_images
from edgevit.backends.profiles import RUNS, WARMUP, onnxruntime_times
from edgevit.backends.triton import TritonModel
from edgevit.bundle.pack import PackedModel
from edgevit.data.preprocess import Preprocess
from edgevit.dependencies import require
from edgevit.errors import BundleError, MissingDependencyError
from edgevit.files import atomic_path, scratch_folder
from edgevit.progress import SILENT, Progress
from edgevit.versions import in_range

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgevit.backends.onnx_kernels import ReadKernels

#: What onnxruntime says of a file that is too new for it.
_TOO_NEW = ("opset", "IR version", "Could not find an implementation")
_FATAL = 4  # log severity: errors reach the caller as exceptions, and nothing else is news

#: What can be set, and to what; the first is taken by itself. ``images`` is how those of a batch go through the model:
#: where activations are quantized as they come, a whole batch shares a range, and what is said of an image would depend
#: on those beside it. INPUT is what the model is built to take, as OpenVINO's is. ``optimize`` off runs the file node
#: by node as it is written: what optimising it changed can be seen then.
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "images": ("together", "one-by-one"),
    "INPUT": INPUTS,
    "optimize": ("on", "off"),
}


class OnnxRuntime(Backend):
    """Backend for onnxruntime's CPU provider; its own file format is ONNX."""

    name = "onnxruntime"
    extra = "onnxruntime"
    package = "onnxruntime"
    distributions = ("onnxruntime", "onnxruntime-gpu")
    nicknames = ("ort", "onnx")
    dialects = ("onnxruntime", "portable")
    settings = {name: values[0] for name, values in _VALUES.items()}  # noqa: RUF012 - see Backend
    dynamic_operators = True

    @classmethod
    def check_settings(cls, given: Mapping[str, str]) -> None:
        """Check that onnxruntime can be given the settings ``given``.

        Raises:
            BundleError: if it does not have one of them, or one has a value that it cannot have.

        """
        checked(given)

    @classmethod
    def reads_memory(cls, names: Sequence[str], settings: Mapping[str, str]) -> bool:  # noqa: ARG003
        """Return whether the model is one file: weights in others are read from the disk."""
        return len(names) == 1

    @classmethod
    def first_version(cls, opset: int, operators: Collection[str]) -> str:
        """Return the first version that runs an ONNX file of ``opset``, made of these standard operators."""
        return first_version(opset, operators)

    @classmethod
    def reads(cls, opset: int, operators: Collection[str], version: str) -> bool:
        """Say whether ``version`` knows these standard operators of ``opset``."""
        return in_range(version, f">={QUANTIZE_23}") or in_range(version, f">={first_version(opset, operators)}")

    @classmethod
    def triton_model(cls, model: Path, settings: Mapping[str, str]) -> TritonModel:
        """Return how Triton's onnxruntime backend runs the ONNX file ``model``."""
        alone = checked(settings)["images"] == "one-by-one"
        return TritonModel(
            backend=cls.name,
            platform="onnxruntime_onnx",
            files={"model.onnx": model},
            described_by=model,
            largest_batch=1 if alone else None,
        )

    def __init__(self) -> None:
        self._engine = require("onnxruntime", extra=self.extra)

    def version(self) -> str:
        """Return onnxruntime's version."""
        return str(self._engine.__version__)

    def build(
        self,
        model: Path,
        folder: Path,
        options: BuildOptions = ANY_DEVICE,
        *,
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> list[Path]:
        """Copy the ONNX file ``model`` to ``folder/model.onnx``; onnxruntime optimises it when it opens it.

        What is to take pixels is not copied, but rewritten.

        Raises:
            BundleError: if a setting is unknown or cannot be what it is.
            GraphError: if the model cannot take pixels.
            MissingDependencyError: if a package that rewrites it is not installed.
            StorageError: if the file cannot be written.

        """
        path = folder / "model.onnx"
        write = _writer(checked(options.settings)["INPUT"])
        with atomic_path(path) as draft:
            write(model, draft)
        return [path]

    def open(
        self,
        model: Path,
        *,
        threads: int,
        settings: Mapping[str, str],
        batch: int = 1,  # noqa: ARG002
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> OnnxRuntimeSession:
        """Load an ONNX file.

        Raises:
            BundleError: if it is missing or damaged, takes more than images, or a setting is unknown.

        """
        return self._opened(model, threads, settings)

    def open_packed(
        self,
        model: PackedModel,
        *,
        threads: int,
        settings: Mapping[str, str],
        batch: int = 1,  # noqa: ARG002
    ) -> OnnxRuntimeSession:
        """Load an ONNX file that is in memory.

        Raises:
            BundleError: as ``open``.

        """
        return self._opened(model, threads, settings)

    def _opened(self, model: Path | PackedModel, threads: int, settings: Mapping[str, str]) -> OnnxRuntimeSession:
        asked = checked(settings)
        largest_batch = 1 if asked["images"] == "one-by-one" else None
        optimize = asked["optimize"] == "on"
        return OnnxRuntimeSession(self._engine, model, threads, largest_batch=largest_batch, optimize=optimize)

    def operator_times(
        self,
        model: Path,
        *,
        threads: int,
        settings: Mapping[str, str],  # noqa: ARG002
        images: NDArray[np.float32],
    ) -> Mapping[str, float]:
        """Return the milliseconds by kind of operator, from onnxruntime's profiler."""
        with scratch_folder() as folder:
            prefix = str(folder / "profile")
            with OnnxRuntimeSession(self._engine, model, threads, profile=prefix) as session:
                for _ in range(WARMUP + RUNS):
                    session.infer(images)
                return onnxruntime_times(session.end_profiling())


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings ``given`` over those that are taken by themselves.

    Raises:
        BundleError: if one is unknown, or has a value that it cannot have.

    """
    settings = merge_settings(OnnxRuntime.name, OnnxRuntime.settings, given)
    for name, values in _VALUES.items():
        if settings[name] not in values:
            raise BundleError(
                f"onnxruntime's setting {name} cannot be '{settings[name]}'", remedy=f"use {' or '.join(values)}"
            )
    return settings


def _writer(taken: str) -> Callable[[Path, Path], object]:
    """Return what writes an ONNX file to another path as one that takes ``taken``."""
    if taken != PIXELS:
        return shutil.copyfile
    require("onnx_ir", extra="quantize")
    from edgevit.backends.onnx_pixels import write_for_pixels

    return write_for_pixels


class OnnxRuntimeSession:
    """An ONNX model in onnxruntime, which sees at most ``largest_batch`` images at once."""

    def __init__(
        self,
        engine: ModuleType,
        model: Path | PackedModel,
        threads: int,
        *,
        largest_batch: int | None = None,
        optimize: bool = True,
        profile: str | None = None,
    ) -> None:
        self._largest_batch = largest_batch
        self._engine = engine
        self._model = model if isinstance(model, Path) else model.path
        self._packed = None if isinstance(model, Path) else model
        self._threads = threads
        from edgevit.graph.running import ENGINE_ERRORS  # which imports onnxruntime

        self._errors = ENGINE_ERRORS
        options = self._options()
        if not optimize:
            options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        self._session = self._load(options)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise BundleError(
                f"{self._model} has {len(inputs)} inputs and {len(outputs)} outputs, not one input",
                remedy="give a model that `edgevit export` or `edgevit quantize` made",
            )
        self._input, self._outputs = inputs[0].name, [output.name for output in outputs]
        shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self._preprocess = self._noted() if inputs[0].type == "tensor(uint8)" else None
        self._shape = shape_of_images(shape, self._preprocess, self._model)

    @property
    def largest_batch(self) -> int | None:
        """How many images it computes at once at the most; None where it takes any number."""
        return self._largest_batch or self._shape[0]

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes), or all outputs, of preprocessed images (B, C, H, W).

        A model that takes uint8 pixels is given those that the images were made of.

        Raises:
            DataError: if the images are not of that shape.
            BundleError: if onnxruntime cannot run the model.

        """
        check_images(images, self._shape)
        try:
            logits: list[NDArray[np.float32]] = [
                as_rows(self._session.run(self._outputs, {self._input: as_taken(part, self._preprocess)}))
                for part in split(images, self._largest_batch or max(1, len(images)))
            ]
        except self._errors as error:
            raise BundleError(
                f"onnxruntime cannot run {self._model}: {str(error).splitlines()[0]}",
                remedy="build this variant again, or give it fewer images at once",
            ) from error
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def end_profiling(self) -> Path:
        """Return the file with what was seen of each operator, where a ``profile`` was asked for."""
        return Path(self._session.end_profiling())

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the graph as onnxruntime has optimised it."""
        return list(self._kernels.linears)

    def integer_products(self) -> frozenset[str]:
        """Return the convolutions and products of two activations that run in integers, read from the same graph."""
        return self._kernels.integer_products

    @cached_property
    def _kernels(self) -> ReadKernels:
        require("onnx_ir", extra="quantize")
        from edgevit.backends.onnx_kernels import read_kernels

        with scratch_folder() as folder:
            optimised = folder / "optimised.onnx"
            options = self._options()
            options.optimized_model_filepath = str(optimised)
            self._load(options)
            written = self._model if self._packed is None else self._packed.write(folder)
            return read_kernels(written, optimised)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

    def _noted(self) -> Preprocess:
        notes = self._session.get_modelmeta().custom_metadata_map
        return normalised_by(notes.get("edgevit.preprocess"), self._model)

    def _options(self) -> Any:  # noqa: ANN401 - the engine is imported at run time
        options = self._engine.SessionOptions()
        options.graph_optimization_level = self._engine.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        # Threads spin while a model runs, which is fast, but not on between runs, where they would take the cores from
        # whatever else the application does.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options

    def _load(self, options: Any) -> Any:  # noqa: ANN401
        model: str | bytes = str(self._model)
        if self._packed is not None:
            model = bytes(self._packed.content)
        elif not self._model.is_file():
            raise BundleError(f"{self._model} is missing", remedy="build this variant again")
        try:
            return self._engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            _refuse_too_new(self._engine.__version__, self._model, str(error))
            raise BundleError(
                f"onnxruntime cannot load {self._model}: {str(error).splitlines()[0]}",
                remedy="build this variant again",
            ) from error


def _refuse_too_new(version: str, model: Path, problem: str) -> None:
    """Say so where an onnxruntime before the ones that know all of EdgeViT's operators does not know what it reads.

    Raises:
        MissingDependencyError: if that is the problem.

    """
    if in_range(version, f"<{QUANTIZE_23}") and any(sign in problem for sign in _TOO_NEW):
        raise MissingDependencyError(
            f"{model} needs onnxruntime >={QUANTIZE_23}, and this is {version}",
            remedy=f'pip install "onnxruntime>={QUANTIZE_23}", or name another variant',
        )
