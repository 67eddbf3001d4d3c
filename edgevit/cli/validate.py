"""``edgevit validate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

import edgevit
from edgevit.cli.console import Result, progress
from edgevit.cli.hosts import result_of_hosts
from edgevit.cli.options import (
    BundlePath,
    Data,
    HostPython,
    Hosts,
    Keep,
    MaxAbsRel,
    MaxDrop,
    MinBoxAgreement,
    MinCosine,
    MinDelta1,
    MinIntegerShare,
    MinMiou,
    Root,
    StrictImages,
    Variants,
)
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.data.sources import load_dataset
from edgevit.errors import EdgeViTError
from edgevit.evaluation.accuracy_details import MOST_FLIPS
from edgevit.evaluation.gate import images_needed, limit_option
from edgevit.report.formats import printable
from edgevit.report.table import output_figures
from edgevit.shell import as_options, quoted
from edgevit.stages.results import ValidationResult


def validate(
    bundle: BundlePath,
    *,
    data: Data,
    variant: Variants = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Number of images to draw.", show_default="all")] = None,
    max_drop: MaxDrop = None,
    min_cosine: MinCosine = None,
    min_miou: MinMiou = None,
    min_delta1: MinDelta1 = None,
    min_box_agreement: MinBoxAgreement = None,
    max_abs_rel: MaxAbsRel = None,
    min_integer_share: MinIntegerShare = None,
    thumbnails: Annotated[
        int, typer.Option(min=0, max=MOST_FLIPS, help="Small pictures of images whose answer changed to keep.")
    ] = MOST_FLIPS,
    root: Root = None,
    strict: StrictImages = False,
    hosts: Hosts = None,
    python: HostPython = None,
    keep: Keep = False,
) -> Result:
    """Measure every variant's accuracy against float32; exit 1 if one loses too much."""
    given = {
        "root": root,
        "variant": variant,
        "max_drop": max_drop,
        "min_cosine": min_cosine,
        "min_miou": min_miou,
        "min_delta1": min_delta1,
        "min_box_agreement": min_box_agreement,
        "max_abs_rel": max_abs_rel,
        "min_integer_share": min_integer_share,
        "thumbnails": None if thumbnails == MOST_FLIPS else thumbnails,
        "strict": strict,
    }
    with progress() as bars:
        found = edgevit.validate(
            bundle,
            data=data,
            variants=variant or (),
            samples=samples,
            max_drop=max_drop,
            min_cosine=min_cosine,
            min_miou=min_miou,
            min_delta1=min_delta1,
            min_box_agreement=min_box_agreement,
            max_abs_rel=max_abs_rel,
            min_integer_share=min_integer_share,
            thumbnails=thumbnails,
            root=root,
            strict=strict,
            hosts=hosts or (),
            python=python,
            keep=keep,
            progress=bars,
        )
    if found.hosts:
        return result_of_hosts(found, found.hosts, ("size", "top1", "change", "agreement", "verdict"))
    columns = ("variant", "size", "top1", "change", "agreement", "verdict")
    table = variants_table(found.bundle, found.names, columns)
    return Result(
        data=found.to_dict(),
        text=Group(
            with_unreadable(Group(table, Text(_measured_on(found))), found.unreadable),
            *(Text(line) for line in output_figures(map(found.bundle.variant, found.names))),
            *(Text(printable(f"{name}: {said}")) for name, each in found.details.items() if (said := each.say())),
            *(Text(f"{name}: share missed: {why}") for name, why in found.shares_missed.items()),
            Text(f"\nnext: {_following(found, bundle, data, samples, given)}"),
        ),
        exit_code=0 if found.passed else 1,
    )


def _measured_on(found: ValidationResult) -> str:
    return f"measured on {found.images} image{'s' * (found.images != 1)} of {found.data}"


def _following(
    found: ValidationResult, bundle: Path, data: str, samples: int | None, given: Mapping[str, object]
) -> str:
    """Return what to type next: more images where one decides; a variant that lost too much is not worth timing.

    ``given`` are the other options, which stay as they are.
    """
    lost = [accuracy for accuracy in found.accuracies.values() if not accuracy.passed]
    if found.passed or not lost:
        return f"edgevit benchmark {quoted(bundle)}"
    needed = images_needed(lost[0].images, lost[0].max_drop)  # all have the same images and limit
    if needed and any(f"validate on {needed} or more" in accuracy.reason for accuracy in lost):
        begin, same = f"edgevit validate {quoted(bundle)}", as_options(given)
        root = given.get("root")
        if samples is not None and samples < needed <= _images_in(data, root if isinstance(root, Path) else None):
            return f"{begin} --data {quoted(data)} --samples {needed}{same}"
        same = as_options({**given, "root": None})  # of other images
        return f"{begin} --data IMAGES{same}, with {needed} of them or more"
    limit = as_options({name: given.get(name) for name in ("max_drop", "min_cosine")})
    limit = limit or f" {limit_option(found.bundle.manifest.classes)}"
    return f"edgevit quantize {quoted(bundle)} --data IMAGES{limit}, which returns layers to float until it is kept"


def _images_in(data: str, root: Path | None) -> int:
    """Return how many images can be drawn; none where only some have labels, as then fewer than are drawn count."""
    try:
        dataset = load_dataset(data, split="test", root=root, labelled=False)
    except EdgeViTError:  # they are gone again
        return 0
    labelled = int((dataset.labels >= 0).sum())
    return len(dataset) if labelled in (0, len(dataset)) else 0
