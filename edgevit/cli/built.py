"""What ``quantize`` and ``build`` print."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group
from rich.text import Text

from edgevit.backends import available_backends, backend_class
from edgevit.backends.variants import unsupported_reason
from edgevit.bundle.manifest import INTEGER_PRECISIONS, PLANNED, Variant
from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.errors import DoesNotPayError, EdgeViTError
from edgevit.report.arithmetic import in_integers
from edgevit.report.table import float_layers
from edgevit.shell import quoted
from edgevit.stages.results import BuildResult
from edgevit.targets import load_target, other_machine_reason, split_name, target_names

#: Nodes that are named one by one; a model has hundreds.
_LISTED = 5


def next_command(bundle: Bundle, names: Sequence[str], command: str) -> str:
    """Say to type ``command`` next: on the device that variants ``names`` are for, if none of them is for this one.

    What is yet to be built there comes first.
    """
    variants = [bundle.variant(name) for name in names]
    if not variants or any(_is_for_here(bundle, variant) for variant in variants):
        return f"next: {command}"
    building = [
        f"edgevit build {quoted(bundle.path)} --target {quoted(variant.target)} --precision {variant.precision}"
        + (f" --token-budget {variant.token_merging.budget}" if variant.token_merging else "")
        for variant in variants
        if _is_unbuilt(variant)
    ]
    there = f"next: copy {bundle.path} to the device; there: {', then '.join([*building, command])}"
    return there if building else f"{there} (or here, with --host DEVICE)"


def _is_for_here(bundle: Bundle, variant: Variant) -> bool:
    if variant.backend not in available_backends() or unsupported_reason(bundle, variant) is not None:
        return False
    known = split_name(variant.target)[0] in target_names()
    return not known or other_machine_reason(load_target(variant.target), platform.machine()) is None


def _is_unbuilt(variant: Variant) -> bool:
    """Return whether there is only the ONNX file that an engine is built from on the device."""
    return backend_class(variant.backend).builds_on_device and variant.files[0].path.endswith(".onnx")


def built(made: BuildResult, ending: str) -> Result:
    """Show new variants: what they are called, where they lie, how large they are, and how their layers run."""
    bundle, variants = made.bundle, made.variants
    lines = [
        f"{variant.name}: {in_integers(variant.kernels)}"
        for variant in variants
        if variant.kernels is not None and variant.precision in INTEGER_PRECISIONS
    ]
    lines += [f"{name} stays float32: {why}" for name, why in list(made.float32_nodes.items())[:_LISTED]]
    if len(made.float32_nodes) > _LISTED:
        lines.append(f"and {len(made.float32_nodes) - _LISTED} more nodes stay float32: see --json")
    kept = float_layers(variants)
    lines += kept[:_LISTED]
    if len(kept) > _LISTED:
        lines.append(f"and {len(kept) - _LISTED} more layers stay float: edgevit inspect {quoted(bundle.path)}")
    lines += _limits(variants)
    lines += (f"{name}: share missed: {why}" for name, why in made.shares_missed.items())
    lines += _refused(made)
    lines += not_made(made.failed)
    summary = f"{made.seconds:.1f} s, {made.peak_rss_mb:.0f} MiB of memory at most"
    tables = [variants_table(bundle, made.names, ("variant", "size"))] if made.names else []
    return Result(
        data=made.to_dict(),
        text=with_unreadable(Group(*tables, *(Text(line) for line in (*lines, summary, "", ending))), made.unreadable),
        exit_code=0 if made.passed else 1,
    )


def not_made(failed: Mapping[str, EdgeViTError]) -> list[str]:
    """Return lines on the variants that could not be made, and those that do not pay."""
    return [
        line
        for name, error in failed.items()
        for line in (
            [f"{name} is not made: {error.message}; {error.remedy}"]
            if isinstance(error, DoesNotPayError)
            else [f"{name} could not be made: {error.message}", f"    try: {error.remedy}"]
        )
    ]


def _refused(made: BuildResult) -> Iterator[str]:
    """Say for each variant that ``load`` refuses why it does, and what to try."""
    for name, problem in made.refused.items():
        yield f"{name} is refused when it is loaded, as it does not answer as float32 does: {problem}"
        if made.bundle.variant(name).precision in PLANNED:
            yield "    try: images for calibration that are like those that the model will see, or more of them"
        else:
            yield "    try: another precision"


def _limits(variants: Sequence[Variant]) -> Iterator[str]:
    """Say for each variant whether its limit was kept, and what to try if not."""
    for variant in variants:
        if variant.limit is not None:
            word = "within the limit" if variant.limit.passed else "limit missed"
            yield f"{variant.name}: {word}: {variant.limit.reason}"
    if any(variant.limit is not None and not variant.limit.passed for variant in variants):
        yield "    try: more calibration images (--samples), --recipe search, a wider limit, or --precision fp16"
