"""Choose which convolutions of a hybrid run in integers with an engine: those that are faster so, and accurate enough.

Integer convolutions pay with some engines and not with others: onnxruntime's depthwise kernel takes several
times as long as its float one. So the forms are built, run in turns on this machine and compared with float32, first of
the whole model, then of its stages; what did not pay stays float in that dialect. The plan keeps them all: another
dialect, or machine, may choose otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends import backend_class, get_backend
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Precision
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.errors import DoesNotPayError, GraphError
from edgevit.graph.convolutions import find_convolutions, stages_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import DIALECTS, dialect_called
from edgevit.quantization.float_fallback import note_float_in
from edgevit.quantization.plan import QuantizationPlan, StageVerdict
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.convolution_forms import RacedForm, Reference, Workbench
from edgevit.stages.convolution_stages import (
    MOST_STAGES,
    ByStage,
    choose_stages,
    race_stages,
)
from edgevit.stages.deviation import Allowance
from edgevit.stages.settings_race import MARGIN, time_in_turns, winner
from edgevit.targets import Target

_NO_DEPTHWISE = "all but depthwise ones"
_BETTER_IN_FLOAT = "{} is better off with it in float: "


class _ChosenForm(NamedTuple):
    """What was chosen for the whole model: ``form``, None where all are float, what to say, and why some are float.

    ``base`` is the form whose stages are worth a look, and ``apart`` why convolutions are float that are float in it.
    """

    form: RacedForm | None
    say: str
    reasons: Mapping[str, str]
    base: RacedForm
    apart: Mapping[str, str]


def choose_convolutions(
    bundle: Bundle,
    float32: VerifiedFile,
    target: Target,
    precision: Precision,
    ptq: PtqModel,
    scratch: Path,
    reference: Reference | None = None,
    progress: Progress = SILENT,
) -> PtqModel:
    """Return ``ptq`` with a plan that has those convolutions float in the dialect of ``target`` that do not pay there.

    They are judged by ``reference``, the golden images if there is none. The plan stays as it is where the choice was
    made before, a verdict on a limit holds for it, or the engine is not here.
    """
    plan, dialect = ptq.plan, target.dialect
    names = plan.integer_convolutions()
    if not names or dialect in plan.raced or plan.limit_in(dialect) is not None:
        return ptq
    if not dialect_called(dialect).convolutions:
        return _noted(ptq, dialect, dict.fromkeys(names, _no_form(dialect)))
    engine = backend_class(target.backend)
    elsewhere = target.device != "CPU" or engine.builds_on_device or not engine.available()
    if elsewhere or engine.unbuildable_reason(target.build_options(precision)) is not None:
        return ptq
    judge = _golden(bundle) if reference is None else reference
    backend = get_backend(target.backend)
    bench = Workbench(bundle.manifest, float32, target, precision, ptq, backend, judge, scratch)
    progress.note(f"Racing convolutions in integers and in float with {target.backend}")
    with ExitStack() as stack:
        forms: list[RacedForm] = []
        sessions: list[Session] = []
        for integers, floats in _candidates(ptq, names).items():
            session, deviation = stack.enter_context(bench.open(floats))
            forms.append(RacedForm(integers, floats, deviation))
            sessions.append(session)
        times = time_in_turns(sessions, bench.image)
    choice = _chosen(forms, times, target.backend)
    return _by_stage(bench, choice, Allowance(forms[0].deviation), progress)


def _by_stage(bench: Workbench, choice: _ChosenForm, allowance: Allowance, progress: Progress) -> PtqModel:
    """Return the model with what was chosen noted in its plan: stage by stage, where that is better than ``choice``."""
    ptq, dialect, engine = bench.ptq, bench.target.dialect, bench.target.backend
    names = frozenset(ptq.plan.integer_convolutions())
    found = find_convolutions(ptq.model.graph)
    stages = stages_of([each for each in found if each.name in names], most=MOST_STAGES)
    if len(stages) < 2:
        progress.note(choice.say)
        return _noted(ptq, dialect, choice.reasons)
    trials = race_stages(bench, stages, names - choice.base.floats, names, progress)
    better = choose_stages(bench, trials, names, allowance, choice.base, choice.form)
    if better is None:
        progress.note(choice.say)
    else:
        progress.note(f"Convolutions in INT8 with {engine}, by stage: {better.say()}")
    reasons = choice.reasons if better is None else _reasons(better, choice, allowance, engine)
    verdicts = tuple(
        StageVerdict(dialect=dialect, where=each.stage.where, names=each.stage.names, reason=each.say())
        for each in trials
    )
    chosen = _noted(ptq, dialect, reasons)
    return replace(chosen, plan=msgspec.structs.replace(chosen.plan, stages=(*chosen.plan.stages, *verdicts)))


def _reasons(better: ByStage, choice: _ChosenForm, allowance: Allowance, engine: str) -> dict[str, str]:
    """Return why convolutions are float where stages were chosen: as in all stages, or by their own."""
    reasons = dict(choice.apart)
    for trial in better.trials:
        if trial not in better.integers:
            why = f"{_BETTER_IN_FLOAT.format(engine)}{better.float_reason(trial, allowance)}"
            reasons |= dict.fromkeys(trial.names, why)
    return {name: reasons[name] for name in sorted(better.form.floats)}


def check_integers(plan: QuantizationPlan, target: Target, float32: str) -> None:
    """Check that ``plan`` leaves a layer in integers for ``target``, beside what is float in its dialect alone.

    ``float32`` is the variant to use where none is left: in INT8 it would be the same under another name.

    Raises:
        DoesNotPayError: if the engine is better off with all of them in float, or needs them so to keep a limit.
        GraphError: if the dialect has no form for any of them in integers.
    """
    dialect = target.dialect
    here = {
        layer.of: each.reason
        for layer in (*plan.linears, *plan.convolutions)
        for each in layer.float_in
        if each.dialect == dialect
    }
    if set(plan.integer_layers()) - here.keys():
        return
    if not plan.linears and not dialect_called(dialect).convolutions:
        others = " or ".join(name for name in DIALECTS if dialect_called(name).convolutions)
        raise GraphError(
            f"nothing of the model would run in integers: {_no_form(dialect)}",
            remedy=f"use {float32}, or --dialect {others}",
        )
    reasons = list(here.values()) or [each.reason for each in plan.float_layers()] or ["none can be quantized"]
    better = _BETTER_IN_FLOAT.format(target.backend)
    lost = [reason.removeprefix(better) for reason in reasons if reason.startswith(better)]
    ((why, _),) = Counter(lost or reasons).most_common(1)
    raise DoesNotPayError(
        f"INT8 does not pay with {target.backend}: {why if lost else f'all layers are float ({why})'}",
        remedy=f"use {float32}",
    )


def _no_form(dialect: str) -> str:
    return f"the dialect {dialect} has no form for convolutions in integers"


def _noted(ptq: PtqModel, dialect: str, reasons: Mapping[str, str]) -> PtqModel:
    plan = note_float_in(ptq.plan, dialect, reasons)
    return replace(ptq, plan=msgspec.structs.replace(plan, raced=(*plan.raced, dialect)))


def _candidates(ptq: PtqModel, names: Collection[str]) -> dict[str, frozenset[str]]:
    """Return which convolutions are float in each form, by what the others are called; all in float comes first."""
    planned = {each.name: each for each in ptq.plan.convolutions if each.name in names}
    depthwise = frozenset(name for name, each in planned.items() if each.depthwise)
    first = frozenset(list(planned)[:1])
    forms = {
        "": frozenset(planned),
        "all": frozenset[str](),
        _NO_DEPTHWISE: depthwise,
        "all but depthwise ones and the first": depthwise | first,
    }
    seen: dict[frozenset[str], str] = {}
    for name, floats in forms.items():
        seen.setdefault(floats, name)
    return {name: floats for floats, name in seen.items()}


def _golden(bundle: Bundle) -> Reference:
    golden = bundle.golden()
    return Reference(np.stack([bundle.manifest.preprocess(image) for image in golden.images]), golden.logits)


def _chosen(forms: Sequence[RacedForm], times: NDArray[np.float64], engine: str) -> _ChosenForm:
    """Choose what is fastest by ``times`` (rounds, forms), of what is accurate enough; all in float comes first."""
    allowance = Allowance(forms[0].deviation)
    accurate = [index for index, form in enumerate(forms) if index == 0 or allowance.holds(form.deviation)]

    def most_integers(those: Sequence[int]) -> int:
        """Return the first of what is as fast as the fastest: forms follow one another from most integers to fewest."""
        ratios = np.median(times / times[:, [those[winner(times[:, those])]]], axis=0)
        return next(index for index in those if ratios[index] <= 1 + MARGIN)

    def against(others: Iterable[int], best: int) -> str:
        """Say what speaks for ``best``: what was accurate enough was slower, or the accuracy of the others."""
        ratios = np.median(times / times[:, [best]], axis=0)
        told = min(others, key=lambda index: (index not in accurate, ratios[index]))
        return _against(forms[told], forms[best], float(ratios[told]), accurate=told in accurate)

    def reasons(best: int) -> dict[str, str]:
        with_it = {name: [i for i, form in enumerate(forms) if name not in form.floats] for name in forms[best].floats}
        return {name: f"{_BETTER_IN_FLOAT.format(engine)}{against(with_it[name], best)}" for name in sorted(with_it)}

    won = accurate[winner(times[:, accurate])]
    best = most_integers(accurate[1:]) if won else 0
    base = _base(forms, most_integers(range(1, len(forms))), accurate)
    apart = reasons(base)
    if base not in accurate:
        why = (
            f"{_BETTER_IN_FLOAT.format(engine)}INT8 of all had {forms[1].deviation.say()}, and depthwise ones do little"
        )
        apart = dict.fromkeys(apart, why)
    if not best:
        said = f"Convolutions stay float32 with {engine}: {against(range(1, len(forms)), 0)}"
        return _ChosenForm(None, said, reasons(0), forms[base], apart)
    gained = f"{1 / np.median(times[:, 0] / times[:, best]):.2f} of the time that it takes with them in float"
    said = f"Convolutions in INT8 with {engine}: {forms[best].integers}; {gained}, {forms[best].deviation.say()}"
    return _ChosenForm(forms[best], said, reasons(best), forms[base], apart)


def _base(forms: Sequence[RacedForm], fastest: int, accurate: Collection[int]) -> int:
    """Return the form whose stages are worth a look: the ``fastest``, or one without depthwise convolutions.

    Where the fastest is too far from float32, that is the better one to begin with: depthwise convolutions cost as much
    accuracy as others, and have next to no multiply-adds.
    """
    if fastest in accurate:
        return fastest
    return next((index for index, form in enumerate(forms) if form.integers == _NO_DEPTHWISE), fastest)


def _against(form: RacedForm, best: RacedForm, ratio: float, *, accurate: bool) -> str:
    """Say what speaks against ``form``: its time, which is ``ratio`` of that of ``best``, or its accuracy."""
    if not accurate:
        return f"INT8 had {form.deviation.say()}, and {best.deviation.say()} without"
    return f"INT8 took {ratio:.2f} of the time"
