"""``edgevit validate``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group
from rich.text import Text

import edgevit
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Data, MaxDrop, MinCosine, Root, StrictImages, Variants
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.evaluation.gate import limit_option
from edgevit.stages.results import ValidationResult


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
    limit = limit_option(found.bundle.manifest.model.classes)
    return f"edgevit quantize {path} --data IMAGES {limit}, which returns layers to float until it is kept"
