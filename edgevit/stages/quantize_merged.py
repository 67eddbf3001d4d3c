"""``edgevit quantize --token-budget``: INT8 of a model whose tokens are merged, by a budget or up to a limit."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import DoesNotPayError, EdgeViTError, InputError, VerificationError
from edgevit.evaluation.gate import MIN_COSINE
from edgevit.files import scratch_folder
from edgevit.numerals import exactly
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.criteria import describe_loss, holds
from edgevit.quantization.token_merging.losses import check_graph_mergeable
from edgevit.stages.budgets import TokenBudget
from edgevit.stages.build import Compiled, check_merges, variant_name
from edgevit.stages.fallback import HELD_OUT, AccuracyCriteria, HeldOut, evaluation_images
from edgevit.stages.images import DataSource
from edgevit.stages.precisions import calibrating
from edgevit.stages.quantize import ENGINES_OWN, quantize
from edgevit.stages.results import BuildResult
from edgevit.stages.rules import Rules
from edgevit.stages.settings_race import MARGIN, time_in_turns
from edgevit.stages.token_budget import BUDGETS, Offer, ScheduleSearch
from edgevit.statistics import median_interval
from edgevit.system import peak_rss_mb
from edgevit.targets import Target

#: What merging may cost with "auto" where no limit is given: KL in nats. Of features it is ``MIN_COSINE``.
MAX_KL = 0.01
#: Rounding takes its share of a limit, too: so much of it is left to merging.
_LEFT_TO_MERGING = 0.8
_LARGEST = 0.99  # budget
_TRIED = 3  # budgets that are quantized at the most
_RACES = 3


def quantize_merged(
    bundle: Bundle,
    images: DataSource | None,
    targets: Mapping[str, Target],
    budget: TokenBudget,
    precision: Precision = "int8",
    *,
    rules: Rules,
    progress: Progress = SILENT,
) -> BuildResult:
    """Add a variant for each of ``targets`` with tokens merged, so that ``budget`` of the multiply-adds is left.

    With "auto" it is the smallest budget that keeps the limits of ``rules``, or ``MAX_KL`` and ``MIN_COSINE`` without
    any; a variant is added only if it is faster than the one without merged tokens, which is made first, and is among
    the new ones, if it is missing. Those that are not faster are among the ``failed``.

    Raises:
        InputError: if there are no images, the precision is not one that is planned, or the budget is too small.
        GraphError: if tokens cannot be merged in the model.
        VerificationError: if merging alone breaks a limit that was given with a budget.
        All that ``quantize`` raises; the bundle is as it was then, but for what "auto" has made with all tokens.

    """
    started = time.monotonic()
    check_merges(precision, 1.0)
    if images is None:
        again = f"{calibrating(bundle, precision)} --token-budget {budget}"
        raise InputError("merging tokens needs calibration images", remedy=again)
    rules = replace(rules, targets=tuple(targets.values()))
    whole: BuildResult | None = None
    if budget == "auto":
        check_graph_mergeable(bundle.verify_float32().path)  # before anything is made that would only be compared with
        whole = _with_all_tokens(bundle, images, targets, precision, rules, progress)
        bundle = whole.bundle
        # Where there is none to be faster than, none is added.
        targets = {name: each for name, each in targets.items() if _has(bundle, variant_name(each, precision))}
        rules = replace(rules, targets=tuple(targets.values()))
    with scratch_folder() as scratch:
        progress.note("Looking for how many tokens each block can merge")
        search = ScheduleSearch(bundle, bundle.verify_float32(), images, rules, scratch, progress)
        merging = _Merging(bundle, images, targets, precision, rules, search, progress)
        made = merging.auto() if budget == "auto" else merging.fixed(budget)
    if whole is not None:
        made = replace(
            made,
            names=(*whole.names, *made.names),
            failed={**whole.failed, **made.failed},
            sensitivity={**whole.sensitivity, **made.sensitivity},
            unreadable=made.unreadable or whole.unreadable,
        )
    return replace(made, seconds=time.monotonic() - started, peak_rss_mb=peak_rss_mb())


def _with_all_tokens(
    bundle: Bundle,
    images: DataSource,
    targets: Mapping[str, Target],
    precision: Precision,
    rules: Rules,
    progress: Progress,
) -> BuildResult:
    """Add the variants without merged tokens that are missing; those that cannot be made are among the ``failed``.

    Raises:
        All that ``quantize`` raises, if there is none for any of ``targets``.

    """
    missing = {name: each for name, each in targets.items() if not _has(bundle, variant_name(each, precision))}
    none = BuildResult(bundle=bundle, names=(), seconds=0.0, peak_rss_mb=0.0)
    if not missing:
        return none
    try:
        return quantize(bundle, images, missing, precision, rules=rules, progress=progress)
    except ENGINES_OWN as error:
        if len(missing) == len(targets):
            raise
        failed = {variant_name(each, precision): error for each in missing.values()}
        for name in failed:
            progress.note(f"{name} cannot be made: {error.message}")
        return replace(none, failed=failed)


def _has(bundle: Bundle, name: str) -> bool:
    return any(variant.name == name for variant in bundle.manifest.variants)


@dataclass(frozen=True, slots=True)
class _Merging:
    """What both ways to choose a budget share."""

    bundle: Bundle
    images: DataSource
    targets: Mapping[str, Target]
    precision: Precision
    rules: Rules
    search: ScheduleSearch
    progress: Progress

    def fixed(self, budget: float) -> BuildResult:
        """Add the variants for ``budget``."""
        offer = self.search.offer(budget)
        if offer is None:
            larger = next((each for each in (*BUDGETS, _LARGEST) if each > budget and self.search.offer(each)), None)
            raise InputError(
                f"a token budget of {budget:g} is too small for this model: each block can merge half of its tokens",
                remedy="leave --token-budget out: merging saves next to nothing in this model"
                if larger is None
                else f"give a larger one: --token-budget {larger:g}, say",
            )
        if self.rules.criteria.limited:
            self._check_limit(offer)
        return self._quantized(offer)

    def _check_limit(self, offer: Offer) -> None:
        """Check that merging leaves room within the limit; layers that return to float could not make it up."""
        judges = self._judges(self.rules.criteria)
        loss = self._loss(offer, judges)
        if judges.limit is not None and not holds(judges.limit, loss):
            raise VerificationError(
                f"merging tokens by a budget of {offer.merging.budget:g} costs too much before anything is rounded: "
                f"{describe_loss(judges.limit, loss)}, {judges.limit.say_allowed()}",
                remedy="give a larger budget, or let it be found: --token-budget auto",
            )

    def auto(self) -> BuildResult:
        """Add the variants for the smallest budget that keeps the limit and is faster."""
        criteria = self._criteria()
        judges = self._judges(criteria)
        offers = self._faster()
        if not offers:
            return self._declined("no budget is expected to make it faster: what merging takes is more than it saves")
        kept = offers[bisect_left(offers, 1, key=lambda offer: int(self._keeps(offer, judges))) :]
        if not kept:
            return self._declined(f"no budget keeps the limit: {self._said(offers[-1], judges)}")
        rules = replace(self.rules, criteria=criteria)
        made = self._declined("")
        for offer in kept[:_TRIED]:
            made = self._quantized(offer, rules, self._refused)
            if made.names or all(isinstance(error, DoesNotPayError) for error in made.failed.values()):
                return made
        return self._declined("; ".join(error.message for error in made.failed.values()))

    def _faster(self) -> list[Offer]:
        """Return the offers, of the smallest budgets first, that are expected to be faster than no merging."""
        offers = (self.search.offer(budget) for budget in BUDGETS)
        return [offer for offer in offers if offer is not None and offer.time < 1 - MARGIN]

    def _keeps(self, offer: Offer, judges: HeldOut) -> bool:
        loss = self._loss(offer, judges)
        return judges.limit is not None and loss <= _LEFT_TO_MERGING * judges.limit.allowed

    def _said(self, offer: Offer, judges: HeldOut) -> str:
        assert judges.limit is not None  # noqa: S101 - auto always has one
        said = describe_loss(judges.limit, self._loss(offer, judges))
        return f"with {exactly(offer.merging.budget)} {said}, {judges.limit.say_allowed()}"

    def _criteria(self) -> AccuracyCriteria:
        """Return the limits that were given, or one that fits the model."""
        criteria, manifest = self.rules.criteria, self.bundle.manifest
        if criteria.limited:
            return criteria
        if manifest.classes:
            return replace(criteria, max_kl=MAX_KL)
        return replace(criteria, min_cosine=MIN_COSINE)

    def _judges(self, criteria: AccuracyCriteria) -> HeldOut:
        manifest = self.bundle.manifest
        _, apart = self.images.load_apart(HELD_OUT, self.progress)
        held_out = evaluation_images(criteria, apart, manifest, self.progress)
        return HeldOut.of(criteria, manifest, self.bundle.verify_float32(), held_out, self.images.unreadable)

    def _loss(self, offer: Offer, judges: HeldOut) -> float:
        assert judges.limit is not None  # noqa: S101 - the callers have one
        return self.search.models.loss(offer.merging.schedule, judges.evaluator, judges.limit)

    def _quantized(
        self,
        offer: Offer,
        rules: Rules | None = None,
        refused: Callable[[Mapping[str, Compiled]], Mapping[str, EdgeViTError]] | None = None,
    ) -> BuildResult:
        merging = offer.merging
        merges = ", ".join(f"block {block}: {count}" for block, count in enumerate(merging.schedule) if count)
        self.progress.note(
            f"A budget of {merging.budget:g} leaves {100 * merging.share:.0f} % of the multiply-adds; "
            f"tokens are merged in {merges or 'no block'}"
        )
        return quantize(
            self.bundle,
            self.images,
            self.targets,
            self.precision,
            rules=rules or self.rules,
            merging=merging,
            refused=refused,
            progress=self.progress,
        )

    def _refused(self, made: Mapping[str, Compiled]) -> Mapping[str, EdgeViTError]:
        """Return those that miss the limit or are not faster than the variant without merged tokens, and why."""
        found: dict[str, EdgeViTError] = {}
        for name, compiled in made.items():
            if compiled.limit is not None and not compiled.limit.passed:
                found[name] = VerificationError(
                    f"{name} misses the limit: {compiled.limit.reason}", remedy="give a wider limit, or merge nothing"
                )
            elif (reason := self._slower(compiled)) is not None:
                found[name] = DoesNotPayError(reason, remedy=f"use {variant_name(compiled.target, self.precision)}")
        return found

    def _slower(self, compiled: Compiled) -> str | None:
        """Return by how much ``compiled`` is not faster than the variant without merged tokens; None if it is."""
        name = variant_name(compiled.target, self.precision)
        if compiled.kernels is None or not _has(self.bundle, name):
            return None  # it runs elsewhere
        plain = self.bundle.variant(name)
        file = self.bundle.verify_files(name)
        backend = get_backend(compiled.target.backend)
        image = self.bundle.manifest.preprocess(self.bundle.golden().images[0])[None]
        with (
            backend.open(file, threads=0, settings=plain.settings) as before,
            backend.open(compiled.model, threads=0, settings=compiled.settings) as after,
        ):
            times: NDArray[np.float64] = np.concatenate([time_in_turns([before, after], image) for _ in range(_RACES)])
        ratios = times[:, 1] / times[:, 0]
        low, high = median_interval(ratios.tolist())
        said = f"{np.median(ratios):.2f} of the time of {name} ({low:.2f} to {high:.2f})"
        if high < 1:
            self.progress.note(f"{compiled.name} takes {said} here")
            return None
        return f"merging tokens is not shown to be faster with {compiled.target.backend} here: it takes {said}"

    def _declined(self, reason: str) -> BuildResult:
        """Return that nothing was made, and why."""
        failed: dict[str, EdgeViTError] = {}
        for target in self.targets.values():
            plain = variant_name(target, self.precision)
            failed[f"{plain} with merged tokens"] = DoesNotPayError(reason, remedy=f"use {plain}")
        return BuildResult(bundle=self.bundle, names=(), seconds=0.0, peak_rss_mb=0.0, failed=failed)
