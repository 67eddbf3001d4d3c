"""``edgevit.race``."""

import os
from collections.abc import Sequence
from dataclasses import replace

from edgevit.api.arguments import listed, names, number, optional_path, recipe_given
from edgevit.api.bundles import opened
from edgevit.api.hosts import OnHosts, on_hosts
from edgevit.api.images import Images, images_of
from edgevit.bundle.manifest import Precision
from edgevit.errors import InputError
from edgevit.evaluation.load import Load
from edgevit.paths import path_given
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.recipes import GateLimits, Recipe
from edgevit.runtime.arguments import BundleLike, flag, threads_given, whole_number, word
from edgevit.stages.budgets import TokenBudget, token_budget_given
from edgevit.stages.chosen import precision_called
from edgevit.stages.race import Race
from edgevit.stages.race import race as stage
from edgevit.stages.race_result import RaceResult
from edgevit.targets import load_target

_DEFAULT = Load()


def race(
    bundle: BundleLike,
    *,
    data: Images,
    target: str | os.PathLike[str],
    labels: Sequence[int | str] | None = None,
    precisions: Sequence[Precision] = (),
    token_budgets: Sequence[TokenBudget] = (),
    calibration_data: Images | None = None,
    recipe: Recipe | str | os.PathLike[str] = "default",
    samples: int | None = None,
    max_drop: float | None = None,
    max_kl: float | None = None,
    min_cosine: float | None = None,
    min_miou: float | None = None,
    min_delta1: float | None = None,
    min_box_agreement: float | None = None,
    max_abs_rel: float | None = None,
    min_speedup: float | None = None,
    max_p99: float | None = None,
    max_size: float | None = None,
    max_memory: float | None = None,
    max_energy: float | None = None,
    batch: int = _DEFAULT.batch,
    threads: int = _DEFAULT.threads,
    duration: float = _DEFAULT.duration_s,
    energy_from: str = _DEFAULT.energy_from,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    hosts: Sequence[str] = (),
    python: str | None = None,
    keep: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> RaceResult:
    """Find the fastest variant for ``target`` that is shown to be accurate enough on this machine.

    Precisions of the target that the bundle lacks are made first. A variant passes if it is shown to keep every limit,
    at 95 % confidence, and fails if it is shown to miss one. Otherwise it is "not shown"; it estimates how many images
    you need. ``edgevit.load`` picks the winner afterwards.

    Args:
        bundle: A bundle that ``edgevit.export`` made: its path, or a ``Bundle``.
        data: A folder, a CSV file, a built-in name, or an iterable of images: uint8 arrays (H, W, 3), Pillow images,
            paths or bytes.
        target: What to race for: a name that ``edgevit targets`` lists, or the path of a TOML file.
        labels: One label for each image in a list: a class name or its index. Without labels, answers are compared with
            float32's where it is confident.
        precisions: Race only these precisions, and float32; by default, all that the target takes.
        token_budgets: Also race INT8 with tokens merged by each of these budgets, such as 0.8 or "auto" (see
            ``edgevit.quantize``).
        calibration_data: Images to calibrate missing variants with; by default, the training part of ``data``.
        recipe: How to calibrate: a name that ``edgevit recipes`` lists, the path of a TOML file, or an
            ``edgevit.recipes.Recipe``. Limits that you do not give are the recipe's; the defaults below hold where the
            recipe has none.
        samples: Number of images to draw from ``data``; by default, all.
        max_drop: Largest loss of a classifier's top-1 that passes, in points; by default, 0.5.
        max_kl: Largest mean KL divergence of a classifier's probabilities from float32's that passes, in nats; by
            default, no limit. Given without ``max_drop``, it replaces that.
        min_cosine: Smallest mean cosine with float32's that passes, for an embedding model's features, tokens and
            feature maps; by default, 0.99.
        min_miou: Smallest mean IoU of masks with float32's that passes; by default, 0.95.
        min_delta1: Smallest share of depths within a factor of 1.25 of float32's that passes; by default, 0.98.
        min_box_agreement: Smallest F1 of boxes that match one of float32's (IoU of 0.5, same class) that passes; by
            default, 0.9.
        max_abs_rel: Largest mean relative difference of depths from float32's (AbsRel) that passes; by default, no
            limit.
        min_speedup: Smallest speed-up over float32 that passes; by default, 1. 0 sets no limit.
        max_p99: Largest 99th percentile of latency that passes, in ms; by default, no limit.
        max_size: Largest size of a variant's files that passes, in MB; by default, no limit.
        max_memory: Most resident memory while it runs that passes, in MB; by default, no limit.
        max_energy: Most energy of an inference above idle that passes, in mJ; by default, no limit.
        batch: Images per timed inference.
        threads: Number of threads of a timed inference; 0 uses all cores.
        duration: Seconds of timing for each variant.
        energy_from: Where to read energy, as in ``edgevit.benchmark``.
        root: Folder that relative paths in a CSV file start from; by default, the folder of the CSV file.
        strict: Stop at the first image that cannot be read; by default, such images are left out.
        hosts: Measure on these devices instead of this machine: USER@HOST, HOST, USER@HOST:PORT, or names from
            ``edgevit devices``. The bundle keeps their figures under their names.
        python: Path of the Python interpreter to use there. By default, an environment is made with what the engines
            need.
        keep: Leave what was sent and installed there for the next run.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        HostError: if the only host cannot be measured on. If one of several cannot, the result says so.
        InputError: if a limit means nothing for this model, or the target does not take a precision.
        DataError: if images or labels cannot be used.
        BundleError: if the bundle is damaged.
        MissingDependencyError: if no variant can run here.

    """
    given, where = locals(), OnHosts.given(hosts, python, keep=keep)
    chosen = recipe_given(recipe)
    folder, strict, report = optional_path("root", root), flag("strict", strict), progress_to(progress)
    images = images_of(
        data, "test", labels=labels, root=folder, samples=samples, strict=strict, progress=report
    ).checked()
    if calibration_data is None:
        calibration = replace(images, split="train", samples=chosen.samples, seed=chosen.seed)
    else:
        calibration = images_of(
            calibration_data,
            "train",
            root=folder,
            samples=chosen.samples,
            seed=chosen.seed,
            strict=strict,
            progress=report,
        )
    name = path_given("target", target)
    profile = load_target(name)
    job = Race(
        name=name,
        target=profile,
        images=images,
        calibration=calibration,
        recipe=chosen,
        load=Load(
            batch=whole_number("batch", batch, least=1),
            threads=threads_given(threads),
            duration_s=number("duration", duration, least=0) or 0.0,
            energy_from=path_given("energy_from", word("energy_from", energy_from)),
        ),
        limits=GateLimits(
            max_drop=number("max_drop", max_drop, least=0, most=100),
            max_kl=number("max_kl", max_kl, least=0),
            min_cosine=number("min_cosine", min_cosine, least=0, most=1),
            min_miou=number("min_miou", min_miou, least=0, most=1),
            min_delta1=number("min_delta1", min_delta1, least=0, most=1),
            min_box_agreement=number("min_box_agreement", min_box_agreement, least=0, most=1),
            max_abs_rel=number("max_abs_rel", max_abs_rel, least=0),
            min_speedup=number("min_speedup", min_speedup, least=0),
            max_p99_ms=number("max_p99", max_p99, least=0),
            max_size_mb=number("max_size", max_size, least=0),
            max_memory_mb=number("max_memory", max_memory, least=0),
            max_energy_mj=number("max_energy", max_energy, least=0),
        ).or_else(chosen.gate),
        precisions=tuple(precision_called(each) for each in names("precisions", precisions)),
        token_budgets=_budgets(token_budgets),
    )
    if where is not None and job.token_budgets:
        raise InputError(
            "tokens are merged on this machine, and raced elsewhere",
            remedy="run edgevit quantize --token-budget first, and race with --host without the budget",
        )
    if where is not None:
        noted, found = on_hosts("race", opened(bundle), where, given, images=images, race=job, progress=report)
        return RaceResult(
            bundle=noted, target=name, data=images.name, images=0, entrants=(), winner=None, left_out={}, hosts=found
        )
    return stage(opened(bundle, to_change=True), job, progress=report)


def _budgets(given: Sequence[TokenBudget]) -> tuple[TokenBudget, ...]:
    budgets = (token_budget_given(each) for each in listed("token_budgets", given))
    return tuple(dict.fromkeys(each for each in budgets if each is not None))
