"""The one table of a bundle, as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from edgevit.bundle.manifest import ConvolutionStage, Fallback, Manifest, OutputAccuracy, Variant
from edgevit.report import formats
from edgevit.report.arithmetic import few_integers
from edgevit.report.consistency import consistent
from edgevit.report.verdict import outcome


class Row(NamedTuple):
    """The formatted cells of one variant; plain text, free of control characters but not of markup of any kind.

    Embedding models, and those whose logits are decisions of their own, have other figures in the places of ``top1``,
    ``change`` and ``agreement``: see ``headings``.
    """

    variant: str
    size: str
    top1: str
    change: str
    agreement: str
    p50: str
    speedup: str
    verdict: str


HEADINGS = Row("variant", "size", "top-1 (95 %)", "change", "agree", "p50", "speed-up (95 %)", "verdict")

_EMBEDDING_HEADINGS = HEADINGS._replace(top1="recall@1 (95 %)", change="cosine (worst 1 %)", agreement="neighbour")

#: Where each logit is a decision of its own; ``agreement`` stands beside how far the logits are from float32's.
_DECISION_HEADINGS = HEADINGS._replace(top1="right (95 %)", agreement="decisions (logits)")

#: Of several outputs the one that is worst in it: what its kind is measured by, its cosine, its distance.
_OUTPUT_HEADINGS = HEADINGS._replace(top1="worst output", change="cosine (worst 1 %)", agreement="SQNR")

#: Marks a figure whose measurement was disturbed; ``remarks`` says by what.
DOUBT = "?"


def headings(manifest: Manifest) -> Row:
    """Return what stands above the rows of a bundle."""
    if manifest.typed_outputs:
        return _OUTPUT_HEADINGS
    if manifest.independent:
        return _DECISION_HEADINGS
    return HEADINGS if manifest.classes else _EMBEDDING_HEADINGS


def rows(manifest: Manifest) -> list[Row]:
    """Return one row per variant, in the manifest's order; what was not measured is a dash."""
    return [_row(variant) for variant in consistent(manifest).variants]


#: Layers with the same reason that have a line each.
_EACH = 4


def remarks(manifest: Manifest, names: Collection[str] | None = None) -> list[str]:
    """Return what a reader of the table must know: why a variant failed, and why a figure is in doubt.

    Of ``names`` alone, if they are given. What holds for several variants is said once.
    """
    found: dict[str, list[str]] = {}
    sets = {(each.accuracy.data_sha256, each.accuracy.images) for each in manifest.variants if each.accuracy}
    for variant in consistent(manifest).variants:
        if len(sets) > 1 and variant.accuracy is not None and (names is None or variant.name in names):
            seen = f"{variant.accuracy.images:,} images of {variant.accuracy.data}"
            said = f"measured on {seen}, and others on other images: compare such rows alone"
            found.setdefault(said, []).append(variant.name)
        if names is None or variant.name in names:
            for said in _remarks(variant):
                found.setdefault(said, []).append(variant.name)
    return [formats.printable(f"{', '.join(those)}: {said}", limit=600) for said, those in found.items()]


def _remarks(variant: Variant) -> Iterator[str]:
    result, latency = outcome(variant), variant.latency
    if result.tone in {"bad", "doubt"}:
        yield f"{result.word}: {result.detail}"
    if latency is not None and latency.invalid_reason and latency.invalid_reason not in result.detail:
        yield f"speed in doubt: {latency.invalid_reason}"
    if variant.accuracy is not None and variant.limit is not None and not variant.limit.passed:
        yield f"limit missed: {variant.limit.reason}"
    few = few_integers(variant)
    if few is not None:
        yield f"warning: {few}"


def float_layers(variants: Iterable[Variant]) -> list[str]:
    """Return lines on the layers that are float on purpose, with the variants and the reason.

    Each has a line of its own, unless many have the same reason.
    """
    found: dict[Fallback, list[str]] = {}
    for variant in variants:
        for each in variant.fallback:
            found.setdefault(each, []).append(variant.name)
    alike: dict[tuple[str, str], list[str]] = {}
    for each, names in found.items():
        alike.setdefault((", ".join(names), each.reason), []).append(each.layer)
    return [
        formats.printable(f"{names}: {layers} stay{'' if ' more' in layers else 's'} float: {reason}", limit=600)
        for (names, reason), those in alike.items()
        for layers in several(those)
    ]


def convolution_stages(variants: Iterable[Variant]) -> list[str]:
    """Return a line for each variant whose convolutions were raced by stage: which stages are in integers."""
    return [
        formats.printable(
            f"{variant.name}: convolutions by stage: {', '.join(map(_stage, variant.convolution_stages))}"
        )
        for variant in variants
        if variant.convolution_stages
    ]


def padded_tokens(variants: Iterable[Variant]) -> list[str]:
    """Return a line for each variant whose tokens are padded: to how many, and what it took of the time."""
    return [
        formats.printable(
            f"{variant.name}: {padding.tokens} tokens are padded to {padding.padded}: "
            f"{padding.share:.2f} of the time where it was built"
        )
        for variant in variants
        if (padding := variant.token_padding) is not None
    ]


def _stage(stage: ConvolutionStage) -> str:
    of, count = stage.convolutions, stage.integer_convolutions
    said = "in float" if not count else "in integers" if count == of else f"{count} of {of} in integers"
    return f"{stage.where} {said}"


def several(layers: Sequence[str]) -> list[str]:
    """Return the names of ``layers``, or of many the first and how many more there are, as one."""
    if len(layers) <= _EACH:
        return list(layers)
    return [f"{', '.join(layers[:2])} and {len(layers) - 2} more"]


def _row(variant: Variant) -> Row:
    top1, change, agreement = _accuracy(variant)
    p50, speedup = _latency(variant)
    return Row(
        variant=formats.printable(variant.name, limit=40),
        size=formats.megabytes(variant.bytes),
        top1=top1,
        change=change,
        agreement=agreement,
        p50=p50,
        speedup=speedup,
        verdict=outcome(variant).word,
    )


def _accuracy(variant: Variant) -> tuple[str, str, str]:
    accuracy = variant.accuracy
    if accuracy is None:
        return formats.NOTHING, formats.NOTHING, formats.NOTHING
    images = accuracy.images
    if accuracy.outputs:
        return _outputs(accuracy.outputs)
    if accuracy.similarity is not None:
        recall, interval = accuracy.similarity.recall_at_1, accuracy.similarity.recall_at_1_ci95
        mean, worst = formats.cosine(accuracy.similarity.cosine_mean), formats.cosine(accuracy.similarity.cosine_p1)
        return _rate(recall, interval, images), f"{mean} ({worst})", formats.percent(accuracy.agreement, images)
    top1 = _rate(accuracy.top1, accuracy.top1_ci95, images)
    agreement = formats.decisions(accuracy) if accuracy.decisions else formats.percent(accuracy.agreement, images)
    return top1, formats.points(accuracy.delta_top1, images), agreement


def _outputs(outputs: tuple[OutputAccuracy, ...]) -> tuple[str, str, str]:
    """Return what the worst of the outputs is measured by, the smallest cosines, and the smallest SQNR."""
    worst = min(outputs, key=lambda output: (output.passed, -1.0 if output.sqnr_db is None else output.sqnr_db))
    if all(output.sqnr_db is None and output.passed for output in outputs):
        worst = outputs[0]
    mean, least = worst.cosine_mean, worst.cosine_p1
    cosine = f"{formats.cosine(mean)} ({formats.cosine(least)})"
    return formats.printable(figure_of(worst), limit=60), cosine, formats.decibels(worst.sqnr_db)


def figure_of(output: OutputAccuracy) -> str:
    """Return an output's name, and the figure that its kind is measured by."""
    match output.kind:
        case "segmentation":
            return f"{output.name}: mIoU {formats.percent(output.miou)}"
        case "depth":
            return f"{output.name}: delta-1 {formats.percent(output.delta1)}"
        case "boxes" | "corners":
            return f"{output.name}: {formats.percent(output.box_agreement)} match"
        case "logits" | "scores":
            return f"{output.name}: {formats.percent(output.agreement)} agree"
        case _:
            return f"{output.name}: cosine {formats.cosine(output.cosine_mean)}"


def output_figures(variants: Iterable[Variant]) -> list[str]:
    """Return a line for each output of each variant that was measured, with all of its figures."""
    return [
        formats.printable(f"{variant.name}: {_all_figures(output)}", limit=400)
        for variant in variants
        if variant.accuracy is not None
        for output in variant.accuracy.outputs
    ]


def _all_figures(output: OutputAccuracy) -> str:
    said = [figure_of(output)]
    if output.cosine_mean is not None and "cosine" not in said[0]:
        said.append(f"cosine {formats.cosine(output.cosine_mean)}")
    if output.cosine_p1 is not None:
        said.append(f"worst 1 % {formats.cosine(output.cosine_p1)}")
    said.append("equal" if output.sqnr_db is None else f"SQNR {formats.decibels(output.sqnr_db)}")
    if output.sqnr_db_p1 is not None:
        said.append(
            f"of tokens {formats.decibels(output.sqnr_db_mean)}, worst 1 % {formats.decibels(output.sqnr_db_p1)}"
        )
    if output.pixel_accuracy is not None:
        said.append(f"pixels {formats.percent(output.pixel_accuracy)}")
    if output.abs_rel is not None:
        said.append(f"AbsRel {output.abs_rel:.4f}")
    if output.box_iou is not None:
        said.append(f"IoU of these {formats.percent(output.box_iou)}")
    if output.score_difference is not None:
        said.append(f"scores differ by {output.score_difference:.4f}")
    return ", ".join(said) + ("" if output.passed else f"; failed: {output.reason}")


def _rate(rate: float | None, interval: tuple[float, float] | None, images: int) -> str:
    if interval is None:
        return formats.NOTHING
    return f"{formats.percent(rate, images)} ({formats.percent_interval(interval, images)})"


def _latency(variant: Variant) -> tuple[str, str]:
    latency = variant.latency
    if latency is None or latency.p50_ms is None:
        return formats.NOTHING, formats.NOTHING
    mark = "" if latency.valid else f" {DOUBT}"
    p50 = formats.milliseconds(latency.p50_ms) + mark
    if variant.precision == "float32":
        return p50, formats.NOTHING
    if latency.speedup_vs_float32 is None:
        return p50, formats.NOTHING + mark
    interval = formats.ratio_interval(latency.speedup_ci95)
    return p50, f"{formats.speed_up(latency.speedup_vs_float32)} ({interval}){mark}"
