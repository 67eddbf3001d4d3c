"""Builds an engine with the Python bindings, those of any version from 8.6 on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.bindings import NAMES, Bindings
from edgevit.backends.tensorrt.log import Log, make_logger
from edgevit.backends.tensorrt.monitor import BuildProgress, make_monitor
from edgevit.backends.tensorrt.settings import TensorRTSettings
from edgevit.backends.tensorrt.timing_cache import load_timings, save_timings, timing_cache_path
from edgevit.bundle.manifest import Precision
from edgevit.errors import GraphError, InputError, MissingDependencyError, MissingError
from edgevit.progress import SILENT, Progress

_MIB = 1 << 20


class EngineBuild(msgspec.Struct, frozen=True, kw_only=True):
    """What to build.

    ``compute_capability`` is the GPU's: for TensorRT the one at hand, for TensorRT-RTX any that it compiles for.
    ``batch`` is for a model that takes any number of images. ``precision`` is a flag of the build where it is not in
    the file's types. ``workspace_mb`` None leaves it to TensorRT.
    """

    model: Path
    compute_capability: str
    batch: BatchProfile = BatchProfile()
    precision: Precision | None = None
    workspace_mb: int | None = None
    settings: TensorRTSettings = TensorRTSettings()


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine, and the number of images that it takes: a model's own where that is fixed."""

    content: bytes
    batch: BatchProfile


def build_engine(
    bindings: Bindings, job: EngineBuild, *, log: Log | None = None, progress: Progress = SILENT
) -> Engine:
    """Build an engine; ``log`` keeps what TensorRT says of it: with a ``DetailedLog``, of each kernel.

    TensorRT needs a GPU, and its driver started (``cuda.open_driver``); TensorRT-RTX needs neither.

    Raises:
        InputError: if this version cannot do what the job asks for.
        GraphError: if it does not take the model; the message names the node.
        MissingError: if there is not enough memory.
        MissingDependencyError: if it does not start.

    """
    trt = bindings.trt
    log = log or Log()
    logger = make_logger(bindings, log)
    with _starting(bindings, log):
        builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(bindings))
    parser = trt.OnnxParser(network, logger)  # both are kept until the engine is there: weights are the parser's
    if not parser.parse_from_file(str(job.model)):
        raise _rejected(bindings, parser, job.model)
    config = builder.create_builder_config()
    _configure(bindings, config, job)
    batch = _set_batch(builder, network, config, job)
    kept = timing_cache_path(bindings.flavour, bindings.version, job.compute_capability)
    _load_timings(bindings, config, kept)
    content = _build(bindings, builder, network, config, log, progress)
    _save_timings(bindings, config, kept, progress)
    return Engine(content, batch)


def inspect_engine(bindings: Bindings, content: bytes) -> str:
    """Return all that TensorRT's inspector tells of an engine's kernels, as JSON; that takes a GPU.

    Raises:
        GraphError: if the engine cannot be loaded again.

    """
    trt = bindings.trt
    log = Log()
    logger = make_logger(bindings, log)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise _failed(bindings, log)
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


@contextmanager
def _starting(bindings: Bindings, log: Log) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, TypeError) as error:  # TypeError: the bindings' for a null pointer
        raise MissingDependencyError(
            f"{NAMES[bindings.flavour]} {bindings.version} does not start: {log.reason()}",
            remedy="see whether nvidia-smi works, and whether this version of TensorRT fits the driver",
        ) from error


def _network_flags(bindings: Bindings) -> int:
    trt = bindings.trt
    if bindings.strongly_typed:
        return int(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return int(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))


def _rejected(bindings: Bindings, parser: Any, model: Path) -> GraphError:  # noqa: ANN401 - the engine's, here and below
    reasons = []
    for index in range(parser.num_errors):
        parser_error = parser.get_error(index)
        where = f"node {parser_error.node()}"
        if bindings.has("ParserError.node_name") and parser_error.node_name():
            where = f"'{parser_error.node_name()}' ({parser_error.node_operator()})"
        reasons.append(f"{where}: {' '.join(parser_error.desc().split())}")
    found = "; ".join(reasons[:3]) or "it is no ONNX file"
    return GraphError(
        f"{NAMES[bindings.flavour]} {bindings.version} does not take {model.name}: {found}",
        remedy="quantize or build it with the dialect of this version: tensorrt from 10.12 on, tensorrt-legacy before",
    )


def _configure(bindings: Bindings, config: Any, job: EngineBuild) -> None:  # noqa: ANN401
    trt = bindings.trt
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector could not tell types from an engine
    # Products side by side gain nothing on batch 1, and what synchronises their streams is launched like a kernel.
    config.max_aux_streams = 0
    if job.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_mb * _MIB)
    if job.settings.optimization_level != "default":
        config.builder_optimization_level = int(job.settings.optimization_level)
    if job.precision == "float32":
        config.clear_flag(trt.BuilderFlag.TF32)  # what is called float32 is float32
    _set_precision(bindings, config, job)
    _set_compatibility(bindings, config, job.settings)
    _set_device(bindings, config, job)


def _set_precision(bindings: Bindings, config: Any, job: EngineBuild) -> None:  # noqa: ANN401
    """Set the flags that say, before 10.12, in what an engine may compute; later it is in the types of the file."""
    trt = bindings.trt
    if bindings.strongly_typed:
        return
    if job.precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if job.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    # In 8.6 several contexts could not share the profile without it.
    config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)  # noqa: FBT003


def _set_compatibility(bindings: Bindings, config: Any, settings: TensorRTSettings) -> None:  # noqa: ANN401
    trt = bindings.trt
    if settings.version_compatible == "yes":
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility == "ampere+":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    elif settings.hardware_compatibility == "same-compute-capability":
        if not bindings.has("HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"):
            raise InputError(
                f"{NAMES[bindings.flavour]} {bindings.version} has no such hardware compatibility",
                remedy="leave the setting 'hardware_compatibility' at none, or use ampere+",
            )
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY


def _set_device(bindings: Bindings, config: Any, job: EngineBuild) -> None:  # noqa: ANN401
    """Say which GPU to compile for, where it need not be the one at hand."""
    if not bindings.has("IBuilderConfig.set_compute_capability"):
        return
    name = f"SM{job.compute_capability.replace('.', '')}"
    value = bindings.find(f"ComputeCapability.{name}")
    if value is None:
        known = [each for each in bindings.values("ComputeCapability") if each.startswith("SM")]
        raise InputError(
            f"{NAMES[bindings.flavour]} {bindings.version} does not compile for compute capability "
            f"{job.compute_capability}",
            remedy=f"it does for {', '.join(known)}: choose another target",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(value, 0)


def _set_batch(builder: Any, network: Any, config: Any, job: EngineBuild) -> BatchProfile:  # noqa: ANN401
    """Say how many images an engine takes, and return it."""
    if (network.num_inputs, network.num_outputs) != (1, 1):
        raise GraphError(
            f"{job.model.name} has {network.num_inputs} inputs and {network.num_outputs} outputs, not one of each",
            remedy="give a model that `edgevit export` or `edgevit quantize` made",
        )
    tensor = network.get_input(0)
    images, *sizes = tuple(tensor.shape)
    if min(sizes, default=-1) < 0:
        raise GraphError(
            f"{job.model.name} takes images of any size ({', '.join(map(str, sizes))})",
            remedy="export the model for one size of images",
        )
    if images > 0:
        return BatchProfile(min=images, opt=images, max=images)
    profile = builder.create_optimization_profile()
    shapes = [(count, *sizes) for count in (job.batch.min, job.batch.opt, job.batch.max)]
    profile.set_shape(tensor.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise GraphError(
            f"{job.model.name} does not take {job.batch.min} to {job.batch.max} images at once",
            remedy="give a smaller batch in the target's profile",
        )
    return job.batch


def _load_timings(bindings: Bindings, config: Any, path: Path) -> None:  # noqa: ANN401
    """Let the build use timings of earlier ones; TensorRT-RTX takes none when it compiles."""
    if bindings.flavour == "tensorrt-rtx":
        return
    cache = config.create_timing_cache(load_timings(path))
    if cache is None or not config.set_timing_cache(cache, False):  # noqa: FBT003 - damaged, or another GPU's
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)  # noqa: FBT003


def _save_timings(bindings: Bindings, config: Any, path: Path, progress: Progress) -> None:  # noqa: ANN401
    if bindings.flavour == "tensorrt-rtx":
        return
    cache = config.get_timing_cache()
    if cache is not None:
        save_timings(path, bytes(cache.serialize()), progress)


def _build(
    bindings: Bindings,
    builder: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    log: Log,
    progress: Progress,
) -> bytes:
    shown = BuildProgress(progress, f"Building with {NAMES[bindings.flavour]}")
    monitor = make_monitor(bindings, shown)
    if bindings.has("IBuilderConfig.progress_monitor"):
        config.progress_monitor = monitor
    host_memory = builder.build_serialized_network(network, config)
    if shown.error is not None:
        raise shown.error
    shown.close()
    if host_memory is None:
        raise _failed(bindings, log)
    return bytes(host_memory)


def _failed(bindings: Bindings, log: Log) -> GraphError | MissingError:
    message = f"{NAMES[bindings.flavour]} {bindings.version} cannot build the engine: {log.reason()}"
    if any("memory" in error.lower() and "alloc" in error.lower() for error in log.errors):
        return MissingError(
            message, remedy="close other programs, or set a smaller workspace_mb in the target's profile"
        )
    return GraphError(message, remedy="build it in another precision, or report this with the model")
