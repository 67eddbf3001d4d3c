"""The headline of a report: the fastest variant that passed, or what is missing until there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgevit.bundle.manifest import Manifest
from edgevit.evaluation.gate import limit_option
from edgevit.report.verdict import outcome
from edgevit.shell import quoted


def headline(manifest: Manifest) -> str | None:
    """Return the name of the fastest variant that passed everything, if one did."""
    passed = {
        variant.name: variant.latency.p50_ms
        for variant in manifest.variants
        if variant.latency and variant.latency.p50_ms is not None and outcome(variant).word == "passed"
    }
    return min(passed, key=passed.__getitem__) if passed else None


def missing(manifest: Manifest, place: Path | None = None) -> dict[str, Any]:
    """Return why there may be no headline: a sentence, and the commands that measure what has not been measured.

    They name the bundle at ``place``; by default, as it is usually called. What was not measured, or is in doubt,
    is not called slow.
    """
    bundle = quoted(place or f"{manifest.name}.edgevit")
    validate, benchmark = f"edgevit validate {bundle} --data IMAGES", f"edgevit benchmark {bundle}"
    others = [variant for variant in manifest.variants if variant.precision != "float32"]
    if not others:
        return {
            "text": "There is only float32 yet: no variant to compare with it.",
            "commands": [f"edgevit quantize {bundle} --data IMAGES"],
        }
    accuracy, speed = (any(getattr(variant, name) for variant in others) for name in ("accuracy", "latency"))
    if not accuracy and not speed:
        return {"text": "Not measured yet: neither accuracy nor speed.", "commands": [validate, benchmark]}
    if not accuracy:
        return {"text": "Accuracy is not measured yet.", "commands": [validate]}
    if not speed:
        return {"text": "Speed is not measured yet.", "commands": [benchmark]}
    words = [outcome(variant).word for variant in others]
    if any("in doubt" in word for word in words):
        timed = [variant.latency for variant in manifest.variants if variant.latency and variant.latency.p50_ms]
        doubted = sum(not latency.valid for latency in timed)
        named = "the speed of one variant is" if doubted == 1 else f"the speeds of {doubted} variants are"
        return {
            "text": f"Whether a variant is faster than float32 is not known: {named} in doubt.",
            "commands": [f"{benchmark} --duration 30"],
        }
    kept = [variant for variant in others if variant.accuracy is None or variant.accuracy.passed]
    if not kept:
        return {
            "text": "No variant keeps the limit on accuracy: more images to validate on tell chance from loss, and "
            "returning layers to float makes up for loss.",
            "commands": [validate, f"edgevit quantize {bundle} --data IMAGES {limit_option(manifest.classes)}"],
        }
    commands = [validate] if any(variant.accuracy is None for variant in kept) else []
    commands += [benchmark] if any(variant.latency is None for variant in kept) else []
    return {"text": "No variant has been shown to be both accurate and faster than float32.", "commands": commands}
