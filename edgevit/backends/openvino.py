"""OpenVINO on the CPU, and on Intel's GPUs and NPUs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import openvino_triton
from edgevit.backends.backend import Backend
from edgevit.backends.base import ANY_DEVICE, BuildOptions
from edgevit.backends.openvino_attention import repeat_score_rows
from edgevit.backends.openvino_core import core_of
from edgevit.backends.openvino_float32 import keep_float32
from edgevit.backends.openvino_ir import add_model_info, note_of, set_batch, take_pixels, write_valid_xml
from edgevit.backends.openvino_session import OpenVINOSession
from edgevit.backends.openvino_settings import DEFAULTS, GROUP_SIZE, ModelCache, check_device, checked, properties
from edgevit.backends.pixels import PIXELS, normalised_by, to_be_normalised
from edgevit.backends.profiles import RUNS, WARMUP, openvino_times
from edgevit.backends.triton import TritonModel
from edgevit.bundle.manifest import Precision
from edgevit.bundle.pack import PackedModel
from edgevit.data.preprocess import Preprocess
from edgevit.dependencies import require
from edgevit.errors import BundleError, GraphError, StorageError
from edgevit.files import storage_errors
from edgevit.progress import SILENT, Progress

_PRECISION = "INFERENCE_PRECISION_HINT"
_IMPORTING = threading.Lock()  # what ``_without_telemetry`` changes is the process's, not the thread's


class OpenVINO(Backend):
    """Backend for OpenVINO; its own file format is the IR: ``model.xml`` and ``model.bin``.

    What can be set, and why it is set as it is where nothing is said, stands with ``openvino_settings.DEFAULTS``.
    """

    name = "openvino"
    extra = "openvino"
    package = "openvino"
    distributions = ("openvino",)
    nicknames = ("ov",)
    dialects = ("openvino", "portable")
    formats = (".xml", ".onnx")
    devices = ("CPU", "GPU", "NPU")
    silent_devices = ("GPU", "NPU")
    settings = DEFAULTS
    float_activations: ClassVar[Mapping[str, str]] = {GROUP_SIZE: DEFAULTS[GROUP_SIZE]}
    built_since: ClassVar[Mapping[Precision, str]] = {"int4-weights": "2025.3"}

    @classmethod
    def check_settings(cls, given: Mapping[str, str]) -> None:
        """Check that OpenVINO can be given the settings ``given``.

        Raises:
            BundleError: if it does not have one of them, or one has a value that it cannot have.

        """
        checked(given)

    @classmethod
    def reads_memory(cls, names: Sequence[str], settings: Mapping[str, str]) -> bool:
        """Return whether the model is one file, or an IR; what is compiled is cached by the files that it was in."""
        first = Path(names[0])
        alone = len(names) == 1 or (first.suffix == ".xml" and set(names[1:]) == {first.with_suffix(".bin").name})
        return alone and settings.get("CACHE", DEFAULTS["CACHE"]) != "on"

    @classmethod
    def device_settings(cls, device: str) -> dict[str, str]:
        """Return the settings that choose ``device``; a CPU is taken by itself."""
        return {} if device == cls.devices[0] else {"DEVICE": device}

    @classmethod
    def triton_model(cls, model: Path, settings: Mapping[str, str]) -> TritonModel | str:
        """Return how Triton's OpenVINO backend runs ``model``, an IR, on the CPU."""
        return openvino_triton.triton_model(model, settings)

    def __init__(self) -> None:
        with _IMPORTING, _without_telemetry():
            self._engine = require("openvino", extra=self.extra)
        failures = self._engine.frontend
        self._errors = (RuntimeError, failures.GeneralFailure, failures.OpConversionFailure)

    def version(self) -> str:
        """Return OpenVINO's version, such as 2026.4.1."""
        return str(self._engine.get_version()).partition("-")[0]

    def build(
        self,
        model: Path,
        folder: Path,
        options: BuildOptions = ANY_DEVICE,
        *,
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> list[Path]:
        """Convert the ONNX file ``model`` to ``folder/model.xml`` and ``.bin``.

        All constants stay as they are: an FP16 file holds float16, and is no larger than it must be. The patch
        embedding in front of quantized layers is marked as float32 for a CPU, see ``openvino_float32``.

        Raises:
            BundleError: if a setting is unknown or cannot be what it is.
            GraphError: if OpenVINO cannot read the model, or cannot be given the batch or input that is asked for.
            InputError: if the device cannot take such a batch.
            StorageError: if the files cannot be written.

        """
        try:
            converted = self._converted(model, options)
        except self._errors as error:
            raise GraphError(
                f"OpenVINO cannot read {model}: {_reason(error)}", remedy="export or quantize the model again"
            ) from error
        path = folder / "model.xml"
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._engine.save_model(converted, path, compress_to_fp16=False)
                write_valid_xml(path)
                if checked(options.settings)["DEVICE"] == "CPU":
                    keep_float32(path)
            except self._errors as error:  # the same for all that can go wrong with a file
                raise StorageError(
                    f"cannot write {path}: OpenVINO says '{_reason(error)}'",
                    remedy="free some space on that disk, and make the folder writable for you",
                ) from error
        return [path, path.with_suffix(".bin")]

    def open(
        self,
        model: Path,
        *,
        threads: int,
        settings: Mapping[str, str],
        batch: int = 1,
        progress: Progress = SILENT,  # noqa: ARG002
    ) -> OpenVINOSession:
        """Load and compile an IR or ONNX file, for the latency of one request at a time unless a setting says other.

        A processor without BF16 computes in float32, which is more exact, where the settings say bf16: a bundle may
        come from another machine.

        Raises:
            BundleError: if it is missing or damaged, takes more than images, or a setting is unknown or refused.
            MissingDependencyError: if this machine lacks the device, or its driver.
            StorageError: if what is compiled is to be kept, and cannot be.

        """
        return self._opened(model, threads, settings, batch)

    def open_packed(
        self, model: PackedModel, *, threads: int, settings: Mapping[str, str], batch: int = 1
    ) -> OpenVINOSession:
        """Load and compile an IR or ONNX file that is in memory.

        Raises:
            BundleError, MissingDependencyError: as ``open``.

        """
        return self._opened(model, threads, settings, batch)

    def operator_times(
        self, model: Path, *, threads: int, settings: Mapping[str, str], images: NDArray[np.float32]
    ) -> Mapping[str, float]:
        """Return the milliseconds by kind of operator, from OpenVINO's counters."""
        with self._opened(model, threads, settings, len(images), PERF_COUNT="YES") as session:
            runs = [session.profiled(images) for _ in range(WARMUP + RUNS)]
        return openvino_times(runs[WARMUP:])

    def _opened(
        self, source: Path | PackedModel, threads: int, settings: Mapping[str, str], batch: int, **more: str
    ) -> OpenVINOSession:
        model = source if isinstance(source, Path) else source.path
        asked, given = checked(settings), {**properties(settings, threads), **more}
        core = core_of(self._engine)
        if asked["DEVICE"] != "CPU":  # asking for the others starts their drivers
            check_device(asked["DEVICE"], core.available_devices)
        with self._complaining(f"load {model}"):
            if asked["DEVICE"] == "CPU" and given.get(_PRECISION) == "bf16" and not _has_bf16(core):
                given[_PRECISION] = "f32"
            read = self._read(source)
        cache = None
        if asked["CACHE"] == "on":
            cache = ModelCache(model, {**given, "DEVICE": asked["DEVICE"], "VERSION": self.version()})
            given["CACHE_DIR"] = str(cache.folder)

        def compile_model(each: Any) -> Any:  # noqa: ANN401
            with self._complaining(f"load {model}"):
                compiled = core.compile_model(each, asked["DEVICE"], given)
            if cache is not None:
                cache.note()
            return compiled

        running = partial(self._complaining, f"run {model}")
        alone = asked["NUM_STREAMS"] == "1" or (asked["NUM_STREAMS"], asked["PERFORMANCE_HINT"]) == ("HINT", "LATENCY")
        first = batch if alone else 1  # of what several requests share each may get one image
        return OpenVINOSession(read, compile_model, source, _preprocess_in(read, model), running, first)

    @contextmanager
    def _complaining(self, what: str) -> Iterator[None]:
        """Make what OpenVINO has against a file a BundleError that says ``what`` it cannot do."""
        try:
            yield
        except self._errors as error:
            raise BundleError(f"OpenVINO cannot {what}: {_reason(error)}", remedy="build this variant again") from error

    def _converted(self, model: Path, options: BuildOptions) -> Any:  # noqa: ANN401
        """Return an ONNX file as OpenVINO's model, with the batch and the input of ``options``."""
        settings = checked(options.settings)
        converted = self._read(model)
        set_batch(self._engine, converted, options.batch, settings["DEVICE"])
        if settings["INPUT"] == PIXELS:
            preprocess = to_be_normalised(note_of(converted, "preprocess"), model)
            converted = take_pixels(self._engine, converted, preprocess)
        add_model_info(self._engine, converted)
        return converted

    def _read(self, model: Path | PackedModel) -> Any:  # noqa: ANN401 - the engine is imported at run time
        """Return what a file holds, in a form that the kernels of all processors compute rightly."""
        read = self._parsed(model)
        repeat_score_rows(self._engine, read)
        return read

    def _parsed(self, model: Path | PackedModel) -> Any:  # noqa: ANN401
        """Read a file with the parser for its format; `Core.read_model` tries those of five more on a damaged one.

        Of parsers only `Core.read_model` gives them memory; weights are not copied there, and stay where they are.
        """
        if not isinstance(model, Path):
            weights = [
                self._engine.Tensor(np.frombuffer(each, np.uint8), shared_memory=True) for each in model.beside.values()
            ]
            return core_of(self._engine).read_model(bytes(model.content), *weights)
        parser = self._engine.frontend.FrontEndManager().load_by_framework("ir" if model.suffix == ".xml" else "onnx")
        return parser.convert(parser.load(model))


def _preprocess_in(converted: Any, model: Path) -> Preprocess | None:  # noqa: ANN401
    """Return how the model in the file ``model`` normalises uint8 pixels; None if it takes what is normalised."""
    if not any(entry.get_element_type().get_type_name() == "u8" for entry in converted.inputs):
        return None
    return normalised_by(note_of(converted, "preprocess"), model)


def _has_bf16(core: Any) -> bool:  # noqa: ANN401
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's message that is not empty; those before it name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Make OpenVINO find its telemetry package missing while it is imported, so that it calls out to nobody.

    Importing OpenVINO reports that to its maker, unless the user has opted out with a file in their home; without the
    package it uses a stub instead.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
