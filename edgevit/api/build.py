"""``edgevit.build``."""

import os

from edgevit.api.bundles import opened
from edgevit.bundle.manifest import PLANNED, Precision
from edgevit.errors import InputError
from edgevit.paths import path_given
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, word
from edgevit.stages.budgets import TokenBudget, token_budget_given
from edgevit.stages.build import build as stage
from edgevit.stages.chosen import precision_called
from edgevit.stages.results import BuildResult
from edgevit.targets import Target, load_target


def build(
    bundle: BundleLike,
    *,
    target: str | os.PathLike[str],
    precision: Precision | None = None,
    token_budget: float | None = None,
    progress: Progress | ProgressCallback | None = None,
) -> BuildResult:
    """Compile one precision of ``bundle`` for a target, and check that it runs on the kernels of its engine.

    Args:
        bundle: A bundle that ``edgevit.export`` made: its path, or a ``Bundle``. INT8 and FP16 need
            ``edgevit.quantize`` first.
        target: What to build for: a name that ``edgevit targets`` lists, or the path of a TOML file.
        precision: "float32", "fp16", "fp8", "int8", "int8-dynamic", "int8-weights" or "int4-weights". By default, the
            first that the target lists; with a token budget, int8.
        token_budget: A token budget that ``edgevit.quantize`` has merged tokens for, such as 0.8.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        InputError: if there is no such target, or it does not take that precision.
        BundleError: if the bundle is damaged, or lacks the calibration that INT8 or FP16 needs.
        VerificationError: if most quantized layers run in float; the bundle stays as it was.
        MissingDependencyError: if the engine, a version of it for this target, or the device is missing on this
            machine.

    """
    name = path_given("target", target)
    profile = load_target(name)
    budget = token_budget_given(token_budget)
    wanted = _first(profile, budget) if precision is None else precision_called(word("precision", precision))
    report = progress_to(progress)
    if budget == "auto":
        raise InputError(
            "a build takes a token budget that the bundle was quantized with",
            remedy="find one first: edgevit quantize BUNDLE --data IMAGES --token-budget auto",
        )
    return stage(opened(bundle, to_change=True), name, profile, wanted, token_budget=budget, progress=report)


def _first(target: Target, budget: TokenBudget | None) -> Precision:
    """Return what ``target`` is built in where nothing is asked for: with a budget, what can merge tokens."""
    merging = () if budget is None else PLANNED
    return next((each for each in merging if each in target.precisions), target.precisions[0])
