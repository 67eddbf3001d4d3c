"""``edgevit inspect --kernels``: how the engine of each variant executes the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial

import msgspec

from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.base import LinearKernel
from edgevit.backends.kernel_report import KERNELS, KernelReport
from edgevit.backends.variants import open_variant
from edgevit.bundle.manifest import Kernels, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingError
from edgevit.graph.linears import open_graph
from edgevit.graph.multiply_adds import Counted, count_multiply_adds
from edgevit.progress import SILENT, Progress
from edgevit.quantization.kernel_check import kernels_of, with_arithmetic


class ConvolutionKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A convolution by its name in the float32 graph, its multiply-adds for one image, and whether they are integer."""

    name: str
    macs: int
    integer: bool


class VariantKernels(msgspec.Struct, frozen=True, kw_only=True):
    """How one variant is executed: its Linear layers and convolutions, and all kernels if the build told; or why not.

    ``kernels`` and ``integer_share`` are of an engine that was asked; the multiply-adds are those of the manifest, of
    float32 those of its graph.
    """

    variant: str
    backend: str
    linears: tuple[LinearKernel, ...] = ()
    convolutions: tuple[ConvolutionKernel, ...] = ()
    kernels: Kernels | None = None
    integer_share: float | None = None
    report: KernelReport | None = None
    unknown: str | None = None


def kernels(bundle: Bundle, names: Sequence[str] = (), progress: Progress = SILENT) -> list[VariantKernels]:
    """Return how each of the variants ``names`` is executed, all of them if there are none.

    An engine that is built on a device is known by the report that its build left; the others are opened and asked.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
    """
    variants = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    counted = cache(partial(_counted, bundle))
    tracked = progress.track(variants, total=len(variants), label="Asking the engines")
    return [_of_build(bundle, each) if _is_built(each) else _opened(bundle, each, counted) for each in tracked]


def _is_built(variant: Variant) -> bool:
    return variant.backend in BACKENDS and backend_class(variant.backend).builds_on_device


def _of_build(bundle: Bundle, variant: Variant) -> VariantKernels:
    backend = backend_class(variant.backend)
    model = bundle.verify_files(variant.name, backend.formats)
    listed = any(file.path.endswith(f"/{KERNELS}") for file in variant.files)
    report = backend.built_report(model) if listed else None
    if report is None:
        reason = backend.unreported_reason(model)
        return VariantKernels(variant=variant.name, backend=variant.backend, unknown=reason)
    return VariantKernels(variant=variant.name, backend=variant.backend, linears=report.linears, report=report)


def _counted(bundle: Bundle) -> Counted:
    with open_graph(bundle.verify_float32().path) as model:
        return count_multiply_adds(model)


def _opened(bundle: Bundle, variant: Variant, counted: Callable[[], Counted]) -> VariantKernels:
    try:
        with open_variant(bundle, variant.name) as session:
            linears, products = tuple(session.linear_kernels()), session.integer_products()
            found = _with_arithmetic(variant, kernels_of(linears), counted, products)
            convolutions = _convolutions(found, counted, products, {linear.layer for linear in linears})
    except MissingError as error:  # one engine that is not here must not hide what the others do
        reason = f"{error.message} (try: {error.remedy})"
        return VariantKernels(variant=variant.name, backend=variant.backend, unknown=reason)
    return VariantKernels(
        variant=variant.name,
        backend=variant.backend,
        linears=linears,
        convolutions=convolutions,
        kernels=found,
        integer_share=found.integer_share,
    )


def _convolutions(
    found: Kernels, counted: Callable[[], Counted], products: Collection[str], linears: Collection[str]
) -> tuple[ConvolutionKernel, ...]:
    """Return the convolutions that are ``counted`` in float32; one that has become a Linear layer is among these.

    There are none where ``found`` has none.
    """
    if found.arithmetic is not None and all(each.kind != "Conv" for each in found.arithmetic):
        return ()
    return tuple(
        ConvolutionKernel(name=each.name, macs=each.macs, integer=each.name in products or each.output in products)
        for each in counted().nodes
        if each.kind == "Conv" and each.name not in linears
    )


def _with_arithmetic(
    variant: Variant, found: Kernels, counted: Callable[[], Counted], products: Collection[str]
) -> Kernels:
    """Return what was ``found`` of ``variant`` with its multiply-adds.

    The manifest notes them of what was built. Of the exported float32 file it does not: they are counted.

    Raises:
        MissingDependencyError: if a package that reads the file is not installed.
    """
    noted = None if variant.kernels is None else variant.kernels.arithmetic
    if noted is not None or variant.precision != "float32":
        return msgspec.structs.replace(found, arithmetic=noted)
    return with_arithmetic(found, counted(), products)
