"""onnxruntime on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import (
    ANY_DEVICE,
    BuildOptions,
    LinearKernel,
    check_images,
    join_parts,
    merge_settings,
    split,
)
from edgevit.dependencies import require
from edgevit.errors import BundleError
from edgevit.files import atomic_path, scratch_folder
from edgevit.progress import SILENT, Progress

if TYPE_CHECKING:
    from typing_extensions import Self

_FATAL = 4  # log severity: errors reach the caller as exceptions, and nothing else is news


class OnnxRuntime:
    """Backend for onnxruntime's CPU provider; its own file format is ONNX."""

    name = "onnxruntime"
    extra = "onnxruntime"
    #: "together" or "one-by-one": how the images of a batch go through the model. Where activations are quantized as
    #: they come, a whole batch shares a range, and what is said of an image would depend on those beside it.
    settings: Mapping[str, str] = {"images": "together"}

    def __init__(self) -> None:
        self._engine = require("onnxruntime", extra=self.extra)
        self._engine.disable_telemetry_events()

    def version(self) -> str:
        """Return onnxruntime's version."""
        return str(self._engine.__version__)

    def build(
        self,
        model: Path,
        folder: Path,
        options: BuildOptions = ANY_DEVICE,  # noqa: ARG002
        *,
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> list[Path]:
        """Copy the ONNX file ``model`` to ``folder/model.onnx``; onnxruntime optimises it when it opens it."""
        path = folder / "model.onnx"
        with atomic_path(path) as draft:
            shutil.copyfile(model, draft)
        return [path]

    def open(
        self,
        model: Path,
        *,
        threads: int,
        settings: Mapping[str, str],
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> OnnxRuntimeSession:
        """Load an ONNX file.

        Raises:
            BundleError: if it is missing or damaged, takes more than images, or a setting is unknown.

        """
        return OnnxRuntimeSession(self._engine, model, threads, largest_batch=largest_batch(settings))


def largest_batch(given: Mapping[str, str]) -> int | None:
    """Return how many images the settings ``given`` let through at once, None for any number.

    Raises:
        BundleError: if a setting is unknown, or has a value that it cannot have.

    """
    images = merge_settings(OnnxRuntime.name, OnnxRuntime.settings, given)["images"]
    if images not in ("together", "one-by-one"):
        raise BundleError(f"onnxruntime cannot take images '{images}'", remedy="use together or one-by-one")
    return 1 if images == "one-by-one" else None


class OnnxRuntimeSession:
    """An ONNX model in onnxruntime, which sees at most ``largest_batch`` images at once."""

    def __init__(self, engine: ModuleType, model: Path, threads: int, *, largest_batch: int | None = None) -> None:
        self._largest_batch = largest_batch
        self._engine = engine
        self._model = model
        self._threads = threads
        self._session = self._load(self._options())
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(
                f"{model} has {len(inputs)} inputs and {len(outputs)} outputs, not one of each",
                remedy="give a model that `edgevit export` or `edgevit quantize` made",
            )
        self._input, self._outputs = inputs[0].name, [outputs[0].name]
        self._shape = [size if isinstance(size, int) else None for size in inputs[0].shape]

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of preprocessed images (B, C, H, W)."""
        check_images(images, self._shape)
        logits: list[NDArray[np.float32]] = [
            self._session.run(self._outputs, {self._input: np.ascontiguousarray(part)})[0]
            for part in split(images, self._largest_batch or max(1, len(images)))
        ]
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the graph as onnxruntime has optimised it."""
        require("onnx_ir", extra="quantize")
        from edgevit.backends.onnx_kernels import read_kernels

        with scratch_folder() as folder:
            optimised = folder / "optimised.onnx"
            options = self._options()
            options.optimized_model_filepath = str(optimised)
            self._load(options)
            return join_parts(read_kernels(self._model, optimised))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

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
        if not self._model.is_file():
            raise BundleError(f"{self._model} is missing", remedy="build this variant again")
        try:
            return self._engine.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        except engine_errors() as error:
            raise BundleError(
                f"onnxruntime cannot load {self._model}: {str(error).splitlines()[0]}",
                remedy="build this variant again",
            ) from error


def engine_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises: one class per status code, without a common base of their own."""
    binding = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnxruntime")
    return tuple(kind for kind in vars(binding).values() if isinstance(kind, type) and issubclass(kind, Exception))
