"""``edgevit validate``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group
from rich.text import Text

import edgevit
from edgevit.api.results import ValidationResult
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Data, MaxDrop, MinCosine, Root, StrictImages, Variants
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE


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
    with progress() as bars:
        found = edgevit.validate(
            bundle,
            data=data,
            variants=variant or (),
            max_drop=max_drop,
            min_cosine=min_cosine,
            root=root,
            strict=strict,
            progress=bars,
        )
    columns = ("variant", "size", "top1", "change", "agreement", "verdict")
    table = variants_table(found.bundle, found.names, columns)
    return Result(
        data=found.to_dict(),
        text=Group(with_unreadable(table, found.unreadable), Text(f"\nnext: {_following(bundle, found)}")),
        exit_code=0 if found.passed else 1,
    )


def _following(path: Path, found: ValidationResult) -> str:
    """Return what to type next: a variant that lost too much is not worth timing."""
    if found.passed:
        return f"edgevit benchmark {path}"
    classes = found.bundle.manifest.model.classes
    limit = f"--max-drop {MAX_DROP:g}" if classes else f"--min-cosine {MIN_COSINE:g}"
    return f"edgevit quantize {path} --data IMAGES {limit}, which returns layers to float until it is kept"
