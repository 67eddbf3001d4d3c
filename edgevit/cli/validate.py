"""``edgevit validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Group
from rich.text import Text

from edgevit.bundle.manifest import Accuracy
from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Data, MaxDrop, MinCosine, Root, StrictImages, Variants, collector
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE
from edgevit.stages.images import ImageSource
from edgevit.stages.validate import validate as stage


def validate(
    bundle: BundlePath,
    *,
    data: Data,
    variant: Variants = None,
    max_drop: MaxDrop = None,
    min_cosine: MinCosine = None,
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Measure every variant's accuracy against float32; exit 1 if one loses too much."""
    unreadable = collector(strict=strict)
    images = ImageSource(data, "test", unreadable, root=root)
    with progress() as bars:
        result, names = stage(
            Bundle.open(bundle),
            images,
            variants=variant or (),
            max_drop=max_drop,
            min_cosine=min_cosine,
            progress=bars,
        )
    measured = [(result.variant(name), accuracy) for name in names if (accuracy := result.variant(name).accuracy)]
    columns = ("variant", "size", "top1", "change", "agreement", "verdict")
    return Result(
        data={
            "data": data,
            "images": measured[0][1].images,
            "unreadable": sorted(unreadable.images),
            "variants": [
                {"name": found.name, "precision": found.precision, "backend": found.backend}
                | msgspec.to_builtins(accuracy)
                for found, accuracy in measured
            ],
        },
        text=Group(
            with_unreadable(variants_table(result, names, columns), unreadable),
            Text(f"\nnext: {_following(bundle, result, [accuracy for _, accuracy in measured])}"),
        ),
        exit_code=0 if all(accuracy.passed for _, accuracy in measured) else 1,
    )


def _following(path: Path, bundle: Bundle, accuracies: Sequence[Accuracy]) -> str:
    """Return what to type next: a variant that lost too much is not worth timing."""
    if all(accuracy.passed for accuracy in accuracies):
        return f"edgevit benchmark {path}"
    limit = f"--max-drop {MAX_DROP:g}" if bundle.manifest.model.classes else f"--min-cosine {MIN_COSINE:g}"
    return f"edgevit quantize {path} --data IMAGES {limit}, which returns layers to float until it is kept"
