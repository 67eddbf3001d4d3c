"""``edgevit.quantize``."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgevit.api.arguments import number, optional_path
from edgevit.api.bundles import opened
from edgevit.api.images import Images, images_of
from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.evaluation.gate import check_integer_share
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.recipes import Recipe, load_recipe
from edgevit.runtime.arguments import BundleLike, flag, path_given, whole_number, word
from edgevit.stages.budgets import TokenBudget, token_budget_given
from edgevit.stages.chosen import precision_called, targets_for_dialect
from edgevit.stages.fallback import AccuracyCriteria
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize as stage
from edgevit.stages.quantize_merged import quantize_merged
from edgevit.stages.quantize_student import quantize_student
from edgevit.stages.results import BuildResult
from edgevit.stages.rules import Rules
from edgevit.targets import Target


def quantize(
    bundle: BundleLike,
    *,
    data: Images | None = None,
    precision: Precision = "int8",
    dialect: str = "auto",
    recipe: Recipe | str | os.PathLike[str] = "default",
    max_drop: float | None = None,
    max_kl: float | None = None,
    min_cosine: float | None = None,
    min_integer_share: float | None = None,
    sensitivity: bool = False,
    token_budget: TokenBudget | None = None,
    student: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> BuildResult:
    """Add variants in INT8 or another precision to ``bundle``, and show that they run on their engines' kernels.

    The bundle changes only once all variants are built and checked. With a limit, layers return to float until it is
    kept; ``BuildResult.passed`` says whether it was.

    Args:
        bundle: What ``edgevit.export`` made.
        data: Calibration images, for int8, fp8 and fp16: a folder, a CSV file, a built-in name, or images (uint8
            arrays (H, W, 3), Pillow images, paths or bytes). EdgeViT prepares them as the model wants them.
        precision: "int8", "int8-dynamic", "int8-weights", "int4-weights", "fp16" or "fp8".
        dialect: Whose kernels to reach: "onnxruntime", "openvino", "portable", "tensorrt" or "tensorrt-legacy"; "auto"
            is all that are here.
        recipe: How to calibrate: a name (``edgevit recipes``), a TOML file, or an ``edgevit.recipes.Recipe``.
        max_drop: Return layers to float until INT8 loses at most so many points of top-1 on images held out.
        max_kl: The same for images without labels, and for logits among other outputs: KL(float32 || INT8) in nats.
        min_cosine: The same for embedding models: mean cosine with float32's features.
        min_integer_share: Share of the multiply-adds, in 0..1, that each INT8 variant must run in integers to pass; the
            recipe's without it.
        sensitivity: Measure what each layer costs alone in INT8, and rank the layers.
        token_budget: Merge tokens that are alike, so that this share of the multiply-adds is left; "auto" is the
            smallest share that keeps the limit (without one, KL 0.01 or a cosine of 0.99) and is faster here.
        student: A run of ``edgevit train --token-budget``: its weights, and the tokens that it was trained to merge.
        samples: How many calibration images to draw; the recipe's number without it.
        seed: Draws the calibration images.
        root: Folder that the paths in a CSV start from.
        strict: Stop at the first image that cannot be read.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        InputError: if arguments do not go together, or there are no images where the precision needs them.
        DataError: if the images cannot be used.
        BundleError: if the bundle is damaged.
        VerificationError, GraphError, MissingDependencyError: if no variant can be made; the bundle is as it was.

    """
    wanted = precision_called(word("precision", precision))
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(path_given("recipe", recipe))
    share = number("min_integer_share", min_integer_share, least=0, most=1)
    check_integer_share(share, [wanted])
    samples = chosen.samples if samples is None else whole_number("samples", samples, least=1)
    seed = chosen.seed if seed is None else whole_number("seed", seed, least=0)
    folder, strict = optional_path("root", root), flag("strict", strict)
    images = None
    if data is not None:
        images = images_of(data, "train", root=folder, samples=samples, seed=seed, strict=strict)
    targets = targets_for_dialect(word("dialect", dialect))
    budget, report = token_budget_given(token_budget), progress_to(progress)
    run, ranked = optional_path("student", student), flag("sensitivity", sensitivity)
    limits = AccuracyCriteria(
        number("max_drop", max_drop, least=0, most=100),
        number("max_kl", max_kl, least=0),
        number("min_cosine", min_cosine, least=0, most=1),
    )
    whole = opened(bundle, to_change=True)
    rules = Rules.of(chosen, wanted, classes=whole.manifest.classes, typed=whole.manifest.typed_outputs)
    rules = replace(rules, criteria=replace(limits or rules.criteria, costs=ranked))
    if run is not None:
        made = _of_student(whole, images, targets, run, budget, wanted, rules, report)
    elif budget is None:
        made = stage(whole, images, targets, wanted, rules=rules, progress=report)
    else:
        made = quantize_merged(whole, images, targets, budget, wanted, rules=rules, progress=report)
    return replace(made, min_integer_share=chosen.min_integer_share if share is None else share)


def _of_student(
    bundle: Bundle,
    images: DataSource | None,
    targets: Mapping[str, Target],
    run: Path,
    budget: TokenBudget | None,
    precision: Precision,
    rules: Rules,
    progress: Progress,
) -> BuildResult:
    if budget is not None or precision != "int8":
        raise InputError(
            "a student is quantized to int8, by the token budget that it was trained for",
            remedy="leave --token-budget and --precision out",
        )
    return quantize_student(bundle, images, targets, run, rules=rules, progress=progress)
