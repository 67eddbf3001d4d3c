"""``edgevit inspect --kernels``: how the engine of each variant executes the model."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgevit.backends import ON_DEVICE
from edgevit.backends.base import LinearKernel
from edgevit.backends.tensorrt.report import KERNELS, KernelReport, read_report
from edgevit.backends.variants import open_variant
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingError
from edgevit.progress import SILENT, Progress


class VariantKernels(msgspec.Struct, frozen=True, kw_only=True):
    """How one variant is executed: its Linear layers, and for TensorRT all kernels; or why that is not known."""

    variant: str
    backend: str
    linears: tuple[LinearKernel, ...] = ()
    report: KernelReport | None = None
    unknown: str | None = None


def kernels(bundle: Bundle, names: Sequence[str] = (), progress: Progress = SILENT) -> list[VariantKernels]:
    """Return how each of the variants ``names`` is executed, all of them if there are none.

    An engine of TensorRT is known by the report that its build left; the others are opened and asked.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
    """
    variants = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    tracked = progress.track(variants, total=len(variants), label="Asking the engines")
    return [_built(bundle, each) if each.backend in ON_DEVICE else _opened(bundle, each) for each in tracked]


def _built(bundle: Bundle, variant: Variant) -> VariantKernels:
    path = bundle.verify_files(variant.name).with_name(KERNELS)
    if any(file.path.endswith(f"/{KERNELS}") for file in variant.files):
        report = read_report(path)
        return VariantKernels(variant=variant.name, backend=variant.backend, linears=report.linears, report=report)
    engine = variant.files[0].path.endswith(".engine")
    reason = (
        "what built the engine does not tell" if engine else "it is ONNX, of which an engine is built on the device"
    )
    return VariantKernels(variant=variant.name, backend=variant.backend, unknown=reason)


def _opened(bundle: Bundle, variant: Variant) -> VariantKernels:
    try:
        with open_variant(bundle, variant.name) as session:
            linears = tuple(session.linear_kernels())
    except MissingError as error:  # one engine that is not here must not hide what the others do
        reason = f"{error.message} (try: {error.remedy})"
        return VariantKernels(variant=variant.name, backend=variant.backend, unknown=reason)
    return VariantKernels(variant=variant.name, backend=variant.backend, linears=linears)
