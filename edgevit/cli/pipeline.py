"""``edgevit pipeline``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.text import Text

from edgevit.bundle.manifest import PRECISIONS, Variant
from edgevit.bundle.store import Bundle
from edgevit.cli import completion, values
from edgevit.cli.built import not_made
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    ActivationOption,
    CalibrationData,
    Data,
    EnergyFrom,
    HeadsOption,
    ImageSize,
    L2Normalize,
    MaxAbsRel,
    MaxDrop,
    MinBoxAgreement,
    MinCosine,
    MinDelta1,
    MinMiou,
    OnnxOutputs,
    OutputsOption,
    Overwrite,
    RawWeights,
    RecipeIntegerShare,
    RecipeName,
    Root,
    SourceArgument,
    StrictImages,
    Targets,
    TimedBatch,
    TimedDuration,
    TimedThreads,
    TokenBudgets,
    collector,
)
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.cli.verdicts import conclusion, next_step
from edgevit.evaluation.load import Load
from edgevit.graph.interface import onnx_outputs_in
from edgevit.models.requested import requests_in
from edgevit.recipes import GateLimits, load_recipe
from edgevit.report.table import output_figures
from edgevit.report.verdict import outcome
from edgevit.shell import quoted
from edgevit.stages.chosen import chosen_targets, precision_called
from edgevit.stages.pipeline import PipelineJob
from edgevit.stages.pipeline import pipeline as stage
from edgevit.stages.race_result import winner_of
from edgevit.stages.report import PAGE
from edgevit.stages.results import failures, integer_share, path_of, really_failed, without_pay

_DEFAULT = Load()


def pipeline(
    source: SourceArgument,
    *,
    data: Data,
    output: OutputsOption,
    target: Targets = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Beside float32; can be given again: {', '.join(PRECISIONS)}.",
            show_default="int8",
            autocompletion=completion.precisions,
        ),
    ] = None,
    token_budget: TokenBudgets = None,
    calibration_data: CalibrationData = None,
    recipe: RecipeName = "default",
    max_drop: MaxDrop = None,
    min_cosine: MinCosine = None,
    min_miou: MinMiou = None,
    min_delta1: MinDelta1 = None,
    min_box_agreement: MinBoxAgreement = None,
    max_abs_rel: MaxAbsRel = None,
    min_integer_share: RecipeIntegerShare = None,
    batch: TimedBatch = _DEFAULT.batch,
    threads: TimedThreads = _DEFAULT.threads,
    duration: TimedDuration = _DEFAULT.duration_s,
    energy_from: EnergyFrom = _DEFAULT.energy_from,
    image_size: ImageSize = None,
    heads: HeadsOption = None,
    activation: ActivationOption = None,
    l2_normalize: L2Normalize = False,
    raw_weights: RawWeights = False,
    onnx_output: OnnxOutputs = None,
    root: Root = None,
    strict: StrictImages = False,
    overwrite: Overwrite = False,
) -> Result:
    """Export, quantize, validate, benchmark, name the winner and report; exit 1 if a variant loses too much."""
    place, outputs = values.bundle_and_outputs(output)
    job = PipelineJob(
        source=source,
        data=data,
        output=place,
        outputs=requests_in(outputs),
        onnx_outputs=onnx_outputs_in(values.onnx_outputs(onnx_output)),
        targets=chosen_targets(target),
        recipe=load_recipe(recipe),
        load=Load(batch=batch, threads=threads, duration_s=duration, energy_from=energy_from),
        gate=GateLimits(
            max_drop=max_drop,
            min_cosine=min_cosine,
            min_miou=min_miou,
            min_delta1=min_delta1,
            min_box_agreement=min_box_agreement,
            max_abs_rel=max_abs_rel,
        ),
        min_integer_share=min_integer_share,
        precisions=tuple(dict.fromkeys(precision_called(name) for name in precision or ["int8"])),
        token_budgets=tuple(values.token_budgets_called(token_budget)),
        calibration_data=calibration_data,
        unreadable=collector(strict=strict),
        root=root,
        image_size=values.image_size(image_size),
        heads=heads,
        activation=values.activation_called(activation),
        l2_normalize=l2_normalize,
        raw_weights=raw_weights,
        existing="replace" if overwrite else "refuse",
    )
    with progress() as bars:
        bundle, failed, missed, entrants = stage(job, progress=bars)
    variants = bundle.manifest.variants
    names = [variant.name for variant in variants]
    page = bundle.verify_extra(PAGE).path
    shares = (f"{name}: share missed: {why}" for name, why in missed.items())
    lines = (
        *output_figures(variants),
        *shares,
        *not_made(failed),
        conclusion(entrants, max((each.accuracy.images for each in variants if each.accuracy), default=0)),
        f"Report: {page}",
        f"next:   edgevit predict {quoted(place)} IMAGE; {next_step(place, entrants)}",
    )
    table = with_unreadable(variants_table(bundle, names), job.unreadable.names)
    return Result(
        data={
            "bundle": place,
            "report": page,
            "variants": [_entry(bundle, name) for name in names],
            "failed": failures(failed),
            "does_not_pay": without_pay(failed),
            "shares_missed": missed,
            "winner": winner_of(entrants),
        },
        text=Group(table, *(Text(line) for line in lines)),
        exit_code=0 if not really_failed(failed) and not missed and all(map(_passed, variants)) else 1,
    )


def _passed(variant: Variant) -> bool:
    kept = variant.limit is None or variant.limit.passed
    return kept and (variant.accuracy is None or variant.accuracy.passed)  # None: it cannot be run here, as was said


def _entry(bundle: Bundle, name: str) -> dict[str, object]:
    variant = bundle.variant(name)
    entry: dict[str, object] = msgspec.to_builtins(variant)
    shown = {"path": path_of(bundle, variant), "verdict": outcome(variant).word}
    return entry | shown | {"integer_share": integer_share(variant)}
