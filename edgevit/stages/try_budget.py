"""INT8 with merged tokens, in ``race`` and ``pipeline``: the others go on where it cannot be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, DataError, EdgeViTError, MissingDataError, StorageError
from edgevit.progress import Progress
from edgevit.recipes import GateLimits, Recipe
from edgevit.stages.budgets import TokenBudget
from edgevit.stages.fallback import AccuracyCriteria
from edgevit.stages.images import DataSource
from edgevit.stages.quantize_merged import quantize_merged
from edgevit.stages.rules import Rules
from edgevit.targets import Target

#: The precision of the variants whose tokens are merged.
MERGED: Precision = "int8"
#: What no variant can help: the user's images, the bundle, or the disk.
NOT_OF_A_VARIANT = (BundleError, DataError, MissingDataError, StorageError)


def try_budget(
    bundle: Bundle,
    images: DataSource,
    targets: Mapping[str, Target],
    budget: TokenBudget,
    *,
    recipe: Recipe,
    limits: GateLimits,
    progress: Progress,
) -> tuple[Bundle, Mapping[str, EdgeViTError]]:
    """Add INT8 for ``targets`` with tokens merged by ``budget``; return what is not made, by name, with the reason.

    With "auto" it is as near to float32 as ``limits`` ask for, else as ``recipe`` does.

    Raises:
        BundleError, DataError, MissingDataError, StorageError: as ``quantize_merged``; the bundle is as it was.
    """
    manifest = bundle.manifest
    rules = Rules.of(recipe, MERGED, classes=manifest.classes, typed=manifest.typed_outputs)
    if budget == "auto":
        criteria = AccuracyCriteria(limits.max_drop, limits.max_kl, limits.min_cosine)
        rules = replace(rules, criteria=criteria) if criteria.limited else rules
    try:
        made = quantize_merged(bundle, images, targets, budget, rules=rules, progress=progress)
    except NOT_OF_A_VARIANT:
        raise
    except EdgeViTError as error:
        progress.note(f"Leaving out a token budget of {budget}: {error.message}")
        # With "auto" variants with all tokens may have been added before.
        return Bundle.open(bundle.path), {f"{MERGED}, token budget {budget}": error}
    return made.bundle, made.failed
