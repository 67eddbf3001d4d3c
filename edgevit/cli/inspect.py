"""``edgevit inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.console import Group, RenderableType
from rich.text import Text

from edgevit.bundle.devices import measured_on
from edgevit.bundle.manifest import MeasuredDevice, Provenance
from edgevit.bundle.store import Bundle
from edgevit.bundle.summary import summary
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.cli.tables import variants_table
from edgevit.errors import InputError
from edgevit.models.outputs import Output, in_words
from edgevit.models.preprocessing import describe_preprocessing
from edgevit.models.spec import AnySpec, GraphSpec, OutputActivation
from edgevit.report.merged_tokens import merged_tokens
from edgevit.report.table import convolution_stages, float_layers, output_figures, padded_tokens
from edgevit.shell import quoted


def inspect(
    bundle: BundlePath,
    *,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Show instead what each variant's engine makes of the model.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --kernels: every layer and convolution, or kernel, after the summary.")
    ] = False,
    variant: Variants = None,
) -> Result:
    """Show what is in a bundle, and whether its files are whole; exit 1 if one is damaged."""
    if variant and not kernels:
        raise InputError(
            "--variant goes with --kernels", remedy=f"edgevit inspect {quoted(bundle)} --kernels --variant NAME"
        )
    if every and not kernels:
        raise InputError("--all goes with --kernels", remedy=f"edgevit inspect {quoted(bundle)} --kernels --all")
    opened = Bundle.open(bundle)
    return _kernels(opened, variant or (), every=every) if kernels else _contents(opened)


def _kernels(opened: Bundle, names: Sequence[str], *, every: bool) -> Result:
    from edgevit.cli.kernel_tables import kernels_shown  # these read graphs: what is in a bundle is shown without onnx
    from edgevit.stages.kernels import kernels

    with progress() as bars:
        found = kernels(opened, names, bars)
    return Result(data={"variants": found}, text=kernels_shown(found, opened.path, every=every))


def _contents(opened: Bundle) -> Result:
    found = summary(opened)
    lines = [
        f"{found.name}: {_in_words(found.spec, found.activation, found.outputs)}",
        *_origin(found.provenance),
        f"images: {describe_preprocessing(found.preprocess)}",
    ]
    lines += [f"output {output.in_words()}" for output in found.outputs]
    damaged = [f"{variant.name}: {variant.problem}" for variant in found.variants if variant.problem]
    damaged += found.problems
    table = variants_table(opened, [variant.name for variant in opened.manifest.variants])
    those = opened.manifest.variants
    told = [
        *output_figures(those),
        *merged_tokens(opened.manifest),
        *padded_tokens(those),
        *convolution_stages(those),
        *float_layers(those),
    ]
    return Result(
        data=found,
        text=Group(
            *(Text(line) for line in lines),
            table,
            *(Text(line) for line in told),
            *(part for device in found.devices for part in _on_device(opened, device)),
            *(Text(line) for line in damaged),
        ),
        exit_code=1 if damaged else 0,
    )


def _on_device(opened: Bundle, device: MeasuredDevice) -> Iterator[RenderableType]:
    """Yield what was measured on another device, in the table that this machine's figures have."""
    there = device.environment
    yield Text(f"\non {device.name}: {there.cpu}, {there.machine}, {there.cores} cores, {there.measured_at}")
    seen = replace(opened, manifest=measured_on(opened.manifest, device))
    yield variants_table(seen, [each.name for each in device.variants])
    yield from (
        Text(f"{each.name}: answers to the golden images: {each.answers}")
        for each in device.variants
        if each.answers not in (None, "as exported")
    )


def _origin(provenance: Provenance) -> Iterator[str]:
    """Yield where the model is from, and under which license."""
    revision = f" at {provenance.revision}" if provenance.revision else ""
    yield f"from {provenance.source}{revision}, {provenance.created_at}"
    for name, digest in provenance.files.items():
        yield f"{name}: sha256 {digest}"
    if provenance.license is not None:
        yield f"license of the weights: {provenance.license.in_words()}"
    elif provenance.files:
        yield "license of the weights: none is named beside them"


def _in_words(spec: AnySpec, activation: OutputActivation, outputs: Sequence[Output]) -> str:
    size = f"{spec.image_size[0]}x{spec.image_size[1]}{' grey' * (spec.channels == 1)} images"
    answer = f"{spec.classes} classes" if spec.classes else f"an embedding of {spec.outputs} features"
    if outputs:
        answer = f"{len(outputs)} output{'s' * (len(outputs) > 1)}: {in_words(outputs)}"
    elif activation == "sigmoid":
        answer = "a binary classifier" if spec.classes == 1 else f"{spec.classes} labels, each decided by itself"
    if isinstance(spec, GraphSpec):
        return f"an ONNX file of {spec.producer or 'an unknown exporter'}, {size}, {answer}"
    return (
        f"ViT, {size}, patch {spec.patch_size[0]}, width {spec.width}, depth {spec.depth}, {spec.heads} heads, {answer}"
    )
