"""How near to float32's the outputs of a model must be that gives other ones than logits or features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from edgevit.bundle.manifest import OutputAccuracy
from edgevit.errors import InputError
from edgevit.evaluation.bootstrap import ImageFigure
from edgevit.evaluation.evidence import Evidence, figure_evidence
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE, GateVerdict
from edgevit.models.outputs import Output, OutputKind
from edgevit.numerals import ROUNDING, exactly, floored, within

#: Of masks: their mean IoU with float32's. Of depth: the share within a factor of 1.25. Of boxes: those that match.
MIN_MIOU = 0.95
MIN_DELTA1 = 0.98
MIN_BOX_AGREEMENT = 0.9

#: Which limit decides on an output of a kind; the cosine on all others.
_DECIDED_BY: dict[OutputKind, str] = {
    "logits": "max_drop",
    "segmentation": "min_miou",
    "depth": "min_delta1",
    "boxes": "min_box_agreement",
    "corners": "min_box_agreement",
}


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """What passes, for the outputs of each kind; None stands for the default.

    ``max_abs_rel``, the mean relative difference of depths, has none: given, it decides beside ``min_delta1``.
    """

    max_drop: float | None = None
    min_cosine: float | None = None
    min_miou: float | None = None
    min_delta1: float | None = None
    min_box_agreement: float | None = None
    max_abs_rel: float | None = None

    def check(self, outputs: tuple[Output, ...]) -> None:
        """Check that each limit that is given decides on one of ``outputs``; none may be of a model without.

        Raises:
            InputError: if one does not.
        """
        used = {decided_by(output.kind) for output in outputs}
        if any(output.kind == "depth" for output in outputs):
            used.add("max_abs_rel")
        if not outputs:
            used = {"max_drop", "min_cosine"}  # which ``gate.check_limits`` looks at
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in used:
                kinds = ", ".join(f"{output.name} ({output.kind})" for output in outputs) or "logits or features"
                raise InputError(
                    f"{_option(field.name)} decides on none of the model's outputs: {kinds}",
                    remedy=f"give {' or '.join(_option(name) for name in sorted(used))}, or leave it out",
                )

    def verdict(self, kind: OutputKind, found: OutputAccuracy) -> GateVerdict:
        """Return the verdict on an output of ``kind`` by what was measured of it."""
        if found.sqnr_db is None and found.cosine_mean is None:
            return GateVerdict(passed=False, reason="some numbers are not finite")
        judge = _JUDGES[decided_by(kind)]
        return judge(self, found)

    def of_cosine(self, found: OutputAccuracy) -> GateVerdict:
        """Judge by the mean cosine."""
        least = MIN_COSINE if self.min_cosine is None else self.min_cosine
        cosine = -1.0 if found.cosine_mean is None else found.cosine_mean
        return _at_least(cosine, least, "mean cosine", lambda value: floored(value, least))

    def of_drop(self, found: OutputAccuracy) -> GateVerdict:
        """Judge logits by how many of their classes change."""
        allowed = MAX_DROP if self.max_drop is None else self.max_drop
        changed = 100 * (1 - (found.agreement or 0.0))
        passed = changed <= allowed + ROUNDING
        said = f"{within(changed, [] if passed else [allowed], 2)} % of answers differ from float32's"
        return GateVerdict(passed, said if passed else f"{said}, {exactly(allowed)} allowed (--max-drop)")

    def of_masks(self, found: OutputAccuracy) -> GateVerdict:
        """Judge masks by their mean IoU."""
        return _at_least(found.miou or 0.0, MIN_MIOU if self.min_miou is None else self.min_miou, "mIoU")

    def of_depth(self, found: OutputAccuracy) -> GateVerdict:
        """Judge depth by the share that is near float32's, and if so wished by how far off all is."""
        least = MIN_DELTA1 if self.min_delta1 is None else self.min_delta1
        verdict = _at_least(found.delta1 or 0.0, least, "delta-1")
        if self.max_abs_rel is None or not verdict.passed or found.abs_rel is None:
            return verdict
        passed = found.abs_rel <= self.max_abs_rel + ROUNDING
        said = f"{verdict.reason}, AbsRel {within(found.abs_rel, [] if passed else [self.max_abs_rel], 4)}"
        return GateVerdict(passed, said if passed else f"{said}, {exactly(self.max_abs_rel)} allowed (--max-abs-rel)")

    def of_boxes(self, found: OutputAccuracy) -> GateVerdict:
        """Judge boxes by how many match one of float32's."""
        least = MIN_BOX_AGREEMENT if self.min_box_agreement is None else self.min_box_agreement
        return _at_least(found.box_agreement or 0.0, least, "box agreement")

    def evidence(self, kind: OutputKind, found: Mapping[str, ImageFigure]) -> list[Evidence]:
        """Return what images show of an output of ``kind``, by figures that are called as in ``OutputAccuracy``."""
        match decided_by(kind):
            case "max_drop":
                allowed = MAX_DROP if self.max_drop is None else self.max_drop
                least = 1 - allowed / 100
                return [figure_evidence(found["agreement"], "share of float32's answers", least=least)]
            case "min_miou":
                least = MIN_MIOU if self.min_miou is None else self.min_miou
                return [figure_evidence(found["miou"], "mIoU with float32", least=least)]
            case "min_delta1":
                least = MIN_DELTA1 if self.min_delta1 is None else self.min_delta1
                shown = [figure_evidence(found["delta1"], "delta-1 with float32", least=least)]
                if self.max_abs_rel is not None:
                    shown.append(figure_evidence(found["abs_rel"], "AbsRel with float32", most=self.max_abs_rel))
                return shown
            case "min_box_agreement":
                least = MIN_BOX_AGREEMENT if self.min_box_agreement is None else self.min_box_agreement
                return [figure_evidence(found["box_agreement"], "box agreement with float32", least=least)]
            case _:
                least = MIN_COSINE if self.min_cosine is None else self.min_cosine
                return [figure_evidence(found["cosine_mean"], "mean cosine with float32", least=least)]


_JUDGES: dict[str, Callable[[OutputLimits, OutputAccuracy], GateVerdict]] = {
    "min_cosine": OutputLimits.of_cosine,
    "max_drop": OutputLimits.of_drop,
    "min_miou": OutputLimits.of_masks,
    "min_delta1": OutputLimits.of_depth,
    "min_box_agreement": OutputLimits.of_boxes,
}


def decided_by(kind: OutputKind) -> str:
    """Return the name of the limit that decides on outputs of ``kind``."""
    return _DECIDED_BY.get(kind, "min_cosine")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _at_least(value: float, least: float, what: str, write: Callable[[float], str] | None = None) -> GateVerdict:
    passed = value >= least - ROUNDING
    written = write(value) if write else within(value, [] if passed else [least], 4)
    said = f"{what} {written} with float32"
    return GateVerdict(passed, said if passed else f"{said}, at least {exactly(least)} wanted")
