"""The two backends: TensorRT for the GPU at hand, TensorRT-RTX for any GPU that it compiles for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit import system
from edgevit.backends.backend import Backend, TargetFields
from edgevit.backends.base import ANY_DEVICE, BatchProfile, BuildOptions
from edgevit.backends.kernel_report import KERNELS, KernelReport
from edgevit.backends.tensorrt import bindings as installed
from edgevit.backends.tensorrt import build_memory, engine_info, probe
from edgevit.backends.tensorrt.bindings import NAMES, Bindings, Flavour, load_bindings
from edgevit.backends.tensorrt.builder import Engine, EngineBuild, build_engine, inspect_engine
from edgevit.backends.tensorrt.contradictions import (
    LEGACY,
    STRONGLY_TYPED,
    float8_contradictions,
    version_contradictions,
)
from edgevit.backends.tensorrt.cuda import CudaDevice, open_driver
from edgevit.backends.tensorrt.engine_info import ENGINE, SIDECAR, SOURCE, EngineInfo
from edgevit.backends.tensorrt.engine_report import report_of_inspection, report_of_log
from edgevit.backends.tensorrt.log import DetailedLog
from edgevit.backends.tensorrt.session import TensorRTSession
from edgevit.backends.tensorrt.settings import DEFAULTS, build_settings, parse_settings
from edgevit.backends.tensorrt.trtexec import Trtexec, build_with_trtexec, find_trtexec
from edgevit.backends.triton import TritonModel
from edgevit.bundle.measured import Transfers
from edgevit.bundle.model_files import metadata_of_onnx
from edgevit.errors import BundleError, MissingDependencyError
from edgevit.files import atomic_folder, atomic_path, cache_folder, sha256_of, write_atomically
from edgevit.graph.node_facts import PRODUCTS, Product, noted_products
from edgevit.progress import SILENT, Progress

#: How many images an engine takes where nobody has said; it is tuned for one.
_USUAL_BATCH = BatchProfile(min=1, opt=1, max=16)
_MIB = 1 << 20


class _TensorRTBase(Backend):
    """What both have in common."""

    flavour: ClassVar[Flavour]
    precisions = ("fp16", "int8", "fp8")
    formats = (".engine", ".onnx")
    devices = ("GPU",)
    nvidia = True
    settings = DEFAULTS
    builds_on_device = True
    several_outputs = False

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Return why no engine runs here, as a sentence with what to do; None if they do."""
        return probe.unavailable_reason(cls.flavour)

    @classmethod
    def unbuildable_reason(cls, options: BuildOptions) -> str | None:
        """Return why no engine is built here for the device of ``options``; None if it is tried."""
        return probe.unbuildable_reason(cls.flavour, options)

    @classmethod
    def unsupported_reason(cls, model: Path, settings: Mapping[str, str]) -> str | None:
        """Return why the file ``model`` is not for this machine; None if it is, or opening it says more."""
        return probe.engine_mismatch_reason(cls.flavour, model, settings)

    @classmethod
    def check_settings(cls, given: Mapping[str, str]) -> None:
        """Check that it can be given the settings ``given``.

        Raises:
            BundleError: if it does not have one of them, or one has a value that it cannot have.

        """
        parse_settings(cls.flavour, given)

    @classmethod
    def contradictions(cls, target: TargetFields) -> Iterator[tuple[str, str]]:
        """Yield the keys of ``target`` that TensorRT has something against, and what."""
        yield from float8_contradictions(target)

    @classmethod
    def how_to_install(cls) -> str:
        """Return what installs the bindings on this machine."""
        return installed.bindings_install_command(cls.flavour)

    @classmethod
    def how_to_install_version(cls, versions: str | None) -> str:
        """Return what installs one of ``versions``, which come with the device's system."""
        return f"install {cls.name} {versions}"

    @classmethod
    def built_report(cls, model: Path) -> KernelReport | None:
        """Return the report that the build of ``model`` left; None where it left none.

        Raises:
            BundleError: if it is damaged.

        """
        path = model.with_name(KERNELS)
        return KernelReport.load(path) if path.is_file() else None

    @classmethod
    def unreported_reason(cls, model: Path) -> str:
        """Return why there is no report of the kernels of ``model``."""
        if model.suffix == ".engine":
            return "what built the engine does not tell"
        return "it is ONNX, of which an engine is built on the device"

    def __init__(self) -> None:
        self._driver = self._find()

    def _find(self) -> Bindings | Trtexec:
        """Return what builds: the Python bindings, else trtexec."""
        try:
            return load_bindings(self.flavour)
        except MissingDependencyError:
            found = find_trtexec()
            if found is None:
                raise
            return found

    def version(self) -> str:
        """Return the version of TensorRT."""
        return self._driver.version

    def build(
        self, model: Path, folder: Path, options: BuildOptions = ANY_DEVICE, *, progress: Progress = SILENT
    ) -> list[Path]:
        """Build an engine of the ONNX file ``model``: ``folder/model.engine``, what it is, and the file itself.

        Raises:
            InputError: if this version, or this machine, cannot build what ``options`` ask for.
            GraphError: if TensorRT does not take the model.
            MissingError: if there is no GPU where one is needed, or not enough memory.
            StorageError: if the files cannot be written.

        """
        settings = parse_settings(self.flavour, options.settings)
        capability = probe.target_capability(self.flavour, options)
        plan = self._plan_memory(model, options, progress)
        job = EngineBuild(
            model=model,
            compute_capability=capability,
            batch=options.batch or _USUAL_BATCH,
            precision=options.precision,
            workspace_mb=plan,
            settings=settings,
        )
        engine, report = self._build(job, progress)
        return _write(self._info(job, engine), engine, report, model, folder)

    def _build(self, job: EngineBuild, progress: Progress) -> tuple[Engine, KernelReport | None]:
        """Return the engine, and what is known of its kernels; trtexec does not tell."""
        if isinstance(self._driver, Trtexec):
            return build_with_trtexec(self._driver, job, progress=progress), None
        log = DetailedLog()
        engine = build_engine(self._driver, job, log=log, progress=progress)
        try:
            return engine, self._report(self._driver, engine, log, _products_of(job.model))
        except BundleError as error:  # the engine is good all the same
            progress.note(f"There is no report of the kernels: {error.message}")
            return engine, None

    def _report(self, bindings: Bindings, engine: Engine, log: DetailedLog, products: list[Product]) -> KernelReport:
        return report_of_inspection(inspect_engine(bindings, engine.content), log.lines, products)

    def _plan_memory(self, model: Path, options: BuildOptions, progress: Progress) -> int | None:
        """Say what memory the build may take, and return how much workspace, in MiB; None leaves it to TensorRT."""
        free = system.memory().available_mb
        with CudaDevice(open_driver()) as device:
            on_gpu = device.free_bytes() // _MIB
        plan = build_memory.plan_memory(
            model.stat().st_size, options.workspace_mb, on_gpu if free is None else min(free, on_gpu)
        )
        progress.note(f"Building with {NAMES[self.flavour]} {self.version()}: {plan.sentence()}")
        return plan.workspace_mb

    def _info(self, job: EngineBuild, engine: Engine) -> EngineInfo:
        return EngineInfo(
            flavour=self.flavour,
            version=self.version(),
            driver="trtexec" if isinstance(self._driver, Trtexec) else "python",
            compute_capability=job.compute_capability,
            batch=engine.batch,
            precision=job.precision,
            settings=build_settings(job.settings),
            engine_sha256=hashlib.sha256(engine.content).hexdigest(),
            source_sha256=sha256_of(job.model),
        )

    def open(
        self,
        model: Path,
        *,
        threads: int,  # noqa: ARG002
        settings: Mapping[str, str],
        batch: int = 1,  # noqa: ARG002
        progress: Progress = SILENT,
    ) -> TensorRTSession:
        """Load an engine on the GPU at hand; with the setting ``rebuild``, build it again where it does not fit.

        Raises:
            BundleError: if a file is missing or damaged, or a setting is not one of this backend's.
            MissingDependencyError: if there is no GPU, or the engine is not for it or for this version.

        """
        chosen = parse_settings(self.flavour, settings)
        driver = open_driver()
        bindings = self._bindings()
        if model.suffix != ".engine":
            raise MissingDependencyError(
                f"{model} is no engine yet: {NAMES[self.flavour]} builds it on the device that runs it",
                remedy="run 'edgevit build BUNDLE --target TARGET --precision PRECISION' on this machine",
            )
        info = engine_info.read_info(model)
        reason = engine_info.incompatible_reason(info, bindings, CudaDevice(driver).compute_capability, chosen)
        if reason is None:
            return TensorRTSession(bindings, driver, model, chosen)
        if chosen.rebuild != "yes":
            raise MissingDependencyError(
                f"{model} does not run here: {reason}",
                remedy="run 'edgevit build BUNDLE --target TARGET --precision PRECISION' on this machine, or allow "
                "it to be built again when it is loaded with the setting rebuild=yes",
            )
        engine = self._rebuilt(model, info, bindings.version, CudaDevice(driver).compute_capability, progress)
        return TensorRTSession(bindings, driver, engine, chosen)

    def transfer_times(
        self, model: Path, *, settings: Mapping[str, str], images: NDArray[np.float32]
    ) -> Transfers | None:
        """Return what copies and computing take, by CUDA events."""
        with self.open(model, threads=0, settings=settings) as session:
            return session.transfers(images)

    def _bindings(self) -> Bindings:
        if isinstance(self._driver, Trtexec):
            raise MissingDependencyError(
                "trtexec builds engines; to run one, TensorRT's Python bindings are needed",
                remedy="install the bindings of the same version, such as 'sudo apt install python3-libnvinfer'",
            )
        return self._driver

    def _rebuilt(self, model: Path, info: EngineInfo, version: str, capability: str, progress: Progress) -> Path:
        """Return the engine that was built here from the same ONNX file; it is built if it has not been yet."""
        source = engine_info.check_source(info, model)
        options = BuildOptions(
            settings=info.settings, batch=info.batch, compute_capability=capability, precision=info.precision
        )
        wanted = msgspec.json.encode([info.source_sha256, version, options])
        place = cache_folder() / self.flavour / "engines" / hashlib.sha256(wanted).hexdigest()
        try:
            engine_info.read_info(place / ENGINE)
        except BundleError:  # not there yet, or damaged
            progress.note(f"Building an engine of {source} for this machine, to be kept in {place}")
            with atomic_folder(place) as draft:
                self.build(source, draft, options, progress=progress)
        return place / ENGINE


class TensorRT(_TensorRTBase):
    """Backend for TensorRT 8.6 to 11; its own file format is the engine, for one version and one kind of GPU."""

    name = "tensorrt"
    extra = "tensorrt"
    package = "tensorrt"
    distributions = ("tensorrt",)
    nicknames = ("trt",)
    dialects = (STRONGLY_TYPED, LEGACY)
    flavour = "tensorrt"

    @classmethod
    def triton_model(cls, model: Path, settings: Mapping[str, str]) -> TritonModel | str:  # noqa: ARG003
        """Return how Triton's TensorRT backend runs the engine ``model``, if it is one.

        Raises:
            BundleError: if what lies beside the engine is damaged.

        """
        if model.suffix != ".engine":
            return "it is no engine yet: TensorRT builds it on the device"
        info = engine_info.read_info(model)
        if info.batch.min > 1:
            return f"it takes no fewer than {info.batch.min} images at once"
        return TritonModel(
            backend=cls.name,
            platform="tensorrt_plan",
            files={"model.plan": model},
            described_by=engine_info.check_source(info, model),
            on_gpu=True,
            largest_batch=info.batch.max,
            notes=(
                f"a Triton with TensorRT {info.version} runs it, on a GPU of compute capability "
                f"{info.compute_capability}",
            ),
        )

    @classmethod
    def contradictions(cls, target: TargetFields) -> Iterator[tuple[str, str]]:
        """Yield the keys of ``target`` that TensorRT has something against, and what."""
        yield from super().contradictions(target)
        yield from version_contradictions(target)


class TensorRTRTX(_TensorRTBase):
    """Backend for TensorRT-RTX, which compiles for GPUs that need not be there, and finishes the kernels on them."""

    name = "tensorrt-rtx"
    extra = "tensorrt-rtx"
    package = "tensorrt_rtx"
    distributions = ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
    dialects = (STRONGLY_TYPED,)
    flavour = "tensorrt-rtx"
    cross_compiles = True

    def _find(self) -> Bindings:
        return load_bindings(self.flavour)

    def _report(
        self,
        bindings: Bindings,  # noqa: ARG002 - the engine cannot be asked where its GPU is not
        engine: Engine,  # noqa: ARG002
        log: DetailedLog,
        products: list[Product],
    ) -> KernelReport:
        return report_of_log(log.lines, products)

    def _plan_memory(self, model: Path, options: BuildOptions, progress: Progress) -> int | None:
        """Say what memory the build may take; the workspace is the other GPU's, as is what is free of it."""
        plan = build_memory.plan_elsewhere(model.stat().st_size, system.memory().available_mb)
        progress.note(f"Compiling with {NAMES[self.flavour]} {self.version()}: {plan.sentence()}")
        return options.workspace_mb


def _write(info: EngineInfo, engine: Engine, report: KernelReport | None, model: Path, folder: Path) -> list[Path]:
    """Write an engine, what it is, what is known of its kernels, and the ONNX file that it was built from."""
    paths = [folder / ENGINE, folder / SIDECAR, folder / SOURCE]
    write_atomically(paths[0], engine.content)
    info.save(paths[1])
    with atomic_path(paths[2]) as draft:
        shutil.copyfile(model, draft)
    if report is not None:
        paths.append(folder / KERNELS)
        report.save(paths[-1])
    return paths


def _products_of(model: Path) -> list[Product]:
    """Return the products that the ONNX file ``model`` lists; none where it is one of others."""
    return noted_products(metadata_of_onnx(model).get(PRODUCTS))
