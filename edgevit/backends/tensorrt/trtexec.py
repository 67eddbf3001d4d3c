"""Builds an engine with NVIDIA's program ``trtexec``, where TensorRT has no Python bindings."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.bindings import is_strongly_typed, version_numbers
from edgevit.backends.tensorrt.builder import Engine, EngineBuild
from edgevit.backends.tensorrt.timing_cache import timing_cache_path
from edgevit.dependencies import require
from edgevit.errors import GraphError, MissingDependencyError, MissingError, StorageError
from edgevit.files import scratch_folder
from edgevit.progress import SILENT, Progress

#: Where JetPack and NVIDIA's Debian packages put it, which is on nobody's PATH.
_PLACES = (Path("/usr/src/tensorrt/bin/trtexec"),)
_BANNER = re.compile(r"\[TensorRT v(\d{4,6})\]")
_OLDEST = (8, 6)
_PROBE_S = 60
_WIDE = 10_000  # 8601 is 8.6.1, and 101601 is 10.16.1


@dataclass(frozen=True, slots=True)
class Trtexec:
    """The program at ``path``, and the version of TensorRT that it is of."""

    path: Path
    version: str


def find_trtexec() -> Trtexec | None:
    """Return the program on the PATH, or where NVIDIA's packages put it; None if there is none that can be used."""
    for place in (shutil.which("trtexec"), *_PLACES):
        if place is not None and Path(place).is_file() and (version := _version(Path(place))):
            return Trtexec(Path(place), version)
    return None


def _version(path: Path) -> str | None:
    try:
        done = subprocess.run([path, "--help"], capture_output=True, text=True, errors="replace", timeout=_PROBE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return version_in(done.stdout + done.stderr)


def version_in(output: str) -> str | None:
    """Return the version that the first lines of the program tell; None if none does, or it is too old."""
    found = _BANNER.search(output)
    if found is None:
        return None
    number = int(found[1])
    major, rest = divmod(number, 1000 if number < _WIDE else _WIDE)
    version = f"{major}.{rest // 100}.{rest % 100}"
    return version if version_numbers(version) >= _OLDEST else None


def build_with_trtexec(program: Trtexec, job: EngineBuild, *, progress: Progress = SILENT) -> Engine:
    """Build an engine for the GPU at hand, which must be ``job``'s.

    Raises:
        GraphError: if TensorRT does not take the model; the message is its last error.
        MissingError: if there is not enough memory.
        MissingDependencyError: if the program does not start.
        StorageError: if the engine cannot be written.

    """
    name, sizes, fixed = _input(job.model)
    batch = BatchProfile(min=fixed, opt=fixed, max=fixed) if fixed else job.batch
    kept = timing_cache_path("tensorrt", program.version, job.compute_capability)
    with scratch_folder() as folder:
        engine = folder / "model.engine"
        command = [str(program.path), f"--onnx={job.model}", f"--saveEngine={engine}", *flags(job, program.version)]
        if not fixed:
            shapes = {"min": batch.min, "opt": batch.opt, "max": batch.max}
            command += [f"--{each}Shapes={name}:{_shape(count, sizes)}" for each, count in shapes.items()]
        command.append(f"--timingCacheFile={_writable(kept, folder)}")
        progress.note("trtexec builds the engine, which takes some minutes and shows nothing until it is done")
        _run(command, engine)
        return Engine(engine.read_bytes(), batch)


def flags(job: EngineBuild, version: str) -> list[str]:
    """Return trtexec's options for what ``job`` asks for."""
    settings = job.settings
    chosen = ["--skipInference", "--profilingVerbosity=detailed", "--maxAuxStreams=0"]  # streams: see builder.py
    if is_strongly_typed("tensorrt", version):
        # From 11 on there is no other kind.
        chosen += ["--stronglyTyped"] if version_numbers(version) < (11,) else []
    else:
        chosen += ["--fp16"] if job.precision in ("fp16", "int8") else []
        chosen += ["--int8"] if job.precision == "int8" else []
    chosen += ["--noTF32"] if job.precision == "float32" else []
    chosen += [f"--memPoolSize=workspace:{job.workspace_mb}"] if job.workspace_mb is not None else []
    if settings.optimization_level != "default":
        chosen.append(f"--builderOptimizationLevel={settings.optimization_level}")
    if settings.hardware_compatibility != "none":
        level = {"ampere+": "ampere+", "same-compute-capability": "sameComputeCapability"}
        chosen.append(f"--hardwareCompatibilityLevel={level[settings.hardware_compatibility]}")
    return chosen + (["--versionCompatible"] if settings.version_compatible == "yes" else [])


def _input(model: Path) -> tuple[str, list[int], int]:
    """Return the name of the input, its sizes, and the number of images, 0 where any number goes."""
    onnx = require("onnx", extra="quantize")
    try:
        onnx.checker.check_model(str(model))
        graph = onnx.load(model).graph
    except (OSError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise GraphError(f"{model.name} is no ONNX file: {reason}", remedy="quantize or build it again") from error
    if len(graph.input) != 1:
        raise GraphError(
            f"{model.name} has {len(graph.input)} inputs, not one", remedy="give a model that `edgevit export` made"
        )
    images, *sizes = (axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim)
    return graph.input[0].name, sizes, images


def _shape(count: int, sizes: list[int]) -> str:
    return "x".join(map(str, (count, *sizes)))


def _writable(kept: Path, folder: Path) -> Path:
    """Return where timings can be read and written: ``kept``, or for this once in ``folder``."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return folder / kept.name
    return kept


def _run(command: list[str], engine: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise MissingDependencyError(
            f"{command[0]} does not start: {error.strerror}", remedy="install TensorRT again, with its Python bindings"
        ) from error
    if done.returncode == 0 and engine.is_file():
        return
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
    reason = errors[-1].rpartition("[E]")[2].strip() if errors else f"it ended with {done.returncode}"
    message = f"trtexec cannot build the engine: {reason}"
    if "memory" in reason.lower():
        raise MissingError(
            message, remedy="close other programs, or set a smaller workspace_mb in the target's profile"
        )
    if "space" in reason.lower() or "save" in reason.lower():
        raise StorageError(message, remedy="free some space there, or set TMPDIR to a folder on another disk")
    raise GraphError(message, remedy="use the dialect of this version: tensorrt from 10.12 on, tensorrt-legacy before")
