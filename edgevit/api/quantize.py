"""``edgevit.quantize``."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgevit.api.arguments import number, optional_path, recipe_given
from edgevit.api.bundles import opened
from edgevit.api.images import Images, images_of
from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.evaluation.gate import check_integer_share
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.recipes import Recipe
from edgevit.runtime.arguments import BundleLike, flag, whole_number, word
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
    """Add variants in INT8 or another precision to ``bundle``, and check that they run on the kernels of their engines.

    The bundle changes only when all variants are built and checked. With a limit on accuracy, layers are returned to
    float until INT8 keeps it; ``BuildResult.passed`` says whether it does. ``BuildResult.refused`` names variants that
    ``edgevit.load`` refuses, as they answer the bundle's golden images otherwise than float32.

    Args:
        bundle: A bundle that ``edgevit.export`` made: its path, or a ``Bundle``.
        data: Calibration images, for int8, fp8 and fp16: a folder, a CSV file, a built-in name, or an iterable of
            images (uint8 arrays (H, W, 3), Pillow images, paths or bytes). Give them as they are: EdgeViT resizes and
            normalises them.
        precision: "int8", "fp16", "fp8", "int8-dynamic", "int8-weights" or "int4-weights". "float32" is refused: it is
            what ``edgevit.export`` wrote.
        dialect: Form of the Q/DQ nodes: "onnxruntime", "openvino", "tensorrt" or "tensorrt-legacy" for the integer
            kernels of that engine, or "portable" for any engine. "auto" writes one for each installed engine.
        recipe: How to calibrate: a name that ``edgevit recipes`` lists, the path of a TOML file, or an
            ``edgevit.recipes.Recipe``.
        max_drop: Return layers to float until INT8 loses at most this many points of top-1 on held-out images. This and
            the next two limits are the recipe's by default.
        max_kl: The same for images without labels, and for logits among other outputs: KL(float32 || INT8) in nats.
        min_cosine: The same for embedding models: mean cosine with float32's features.
        min_integer_share: Smallest share of the multiply-adds, in 0..1, that each INT8 variant must run in integers to
            pass; by default, the recipe's.
        sensitivity: Measure what each layer costs when it alone is in INT8, and rank the layers.
        token_budget: Merge similar tokens until this share of the multiply-adds is left, such as 0.8. "auto" finds the
            smallest share that keeps the limit and is faster here (without a limit, a KL of 0.01 or a cosine of 0.99).
        student: Path of a run of ``edgevit train --token-budget``. Its weights were trained for merged tokens.
        samples: Number of calibration images; by default, the recipe's.
        seed: Random seed for choosing them; by default, the recipe's.
        root: Folder that relative paths in a CSV file start from; by default, the folder of the CSV file.
        strict: Stop at the first image that cannot be read; by default, such images are left out.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        InputError: if arguments do not go together, or the precision needs images and there are none.
        DataError: if the images cannot be used.
        BundleError: if the bundle is damaged.
        VerificationError, GraphError, MissingDependencyError: if no variant can be made; the bundle stays as it was.

    """
    wanted = precision_called(word("precision", precision))
    chosen = recipe_given(recipe)
    share = number("min_integer_share", min_integer_share, least=0, most=1)
    check_integer_share(share, [wanted])
    samples = chosen.samples if samples is None else whole_number("samples", samples, least=1)
    seed = chosen.seed if seed is None else whole_number("seed", seed, least=0)
    folder, strict, report = optional_path("root", root), flag("strict", strict), progress_to(progress)
    images = None
    if data is not None:
        images = images_of(data, "train", root=folder, samples=samples, seed=seed, strict=strict, progress=report)
    targets = targets_for_dialect(word("dialect", dialect))
    budget = token_budget_given(token_budget)
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
