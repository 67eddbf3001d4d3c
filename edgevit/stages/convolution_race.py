"""Choose which convolutions of a hybrid run in integers with an engine: those that are faster so, and accurate enough.

Integer convolutions pay with some engines and not with others: onnxruntime's depthwise kernel takes several
times as long as its float one. So the forms are built, run in turns on this machine and compared with float32, and
what did not pay
stays float in that dialect. The plan keeps them all: another dialect, or machine, may choose otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends import backend_class, get_backend
from edgevit.backends.backend import Backend
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Precision
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.errors import DoesNotPayError, GraphError
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import DIALECTS, dialect_called
from edgevit.quantization.float_fallback import float_in, note_float_in
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.engines import lower_for
from edgevit.stages.precisions import write_source
from edgevit.stages.settings_race import MARGIN, race, winner
from edgevit.statistics import mean_kl, sqnr_db
from edgevit.targets import Target

#: What convolutions in integers may cost: as much as INT8 costs a ViT, KL in nats or SQNR in dB, or so much more in dB
#: than the Linear layers alone do.
_MOST_KL, _LEAST_SQNR, _MOST_LOST = 0.002, 24.0, 3.0

_BETTER_IN_FLOAT = "{} is better off with it in float: "


@dataclass(frozen=True, slots=True)
class Reference:
    """Preprocessed images (N, C, H, W), and float32's outputs for them."""

    images: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Contender:
    """Convolutions that are float, what to call the others, and how near the model stays to float32."""

    integers: str
    floats: frozenset[str]
    kl: float | None
    sqnr: float | None

    def say(self) -> str:
        """Return the accuracy in words."""
        noise = "no noise" if self.sqnr is None else f"SQNR {self.sqnr:.1f} dB"
        return noise if self.kl is None else f"KL {self.kl:.2g} nats, {noise}"


class _Choice(NamedTuple):
    """What to say of a choice, and why convolutions are float."""

    say: str
    reasons: Mapping[str, str]


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
    progress.note(f"Racing convolutions in integers and in float with {target.backend}")
    with ExitStack() as stack:
        forms: list[_Contender] = []
        sessions: list[Session] = []
        for integers, floats in _candidates(ptq, names).items():
            folder = scratch / f"convolutions-{dialect}-{len(forms)}"
            tried = float_in(_noted(ptq, dialect, dict.fromkeys(floats, "tried")), dialect)
            session = stack.enter_context(_open(float32, precision, target, tried, folder, backend))
            forms.append(_judged(integers, floats, session, judge, bundle))
            sessions.append(session)
        times = race(sessions, judge.images[:1])
    choice = _chosen(forms, times, target.backend)
    progress.note(choice.say)
    return _noted(ptq, dialect, choice.reasons)


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
        "all but depthwise ones": depthwise,
        "all but depthwise ones and the first": depthwise | first,
    }
    seen: dict[frozenset[str], str] = {}
    for name, floats in forms.items():
        seen.setdefault(floats, name)
    return {name: floats for floats, name in seen.items()}


def _open(
    float32: VerifiedFile, precision: Precision, target: Target, ptq: PtqModel, folder: Path, backend: Backend
) -> Session:
    folder.mkdir()
    source = write_source(float32, precision, target, ptq, folder.with_suffix(".onnx"))
    model = backend.build(
        lower_for(source.file, target, backend.version()).path, folder, target.build_options(precision)
    )
    return backend.open(model[0], threads=0, settings=target.choices_for(precision)[0])


def _golden(bundle: Bundle) -> Reference:
    golden = bundle.golden()
    return Reference(np.stack([bundle.manifest.preprocess(image) for image in golden.images]), golden.logits)


def _judged(
    integers: str, floats: frozenset[str], session: Session, reference: Reference, bundle: Bundle
) -> _Contender:
    outputs = np.concatenate([session.infer(image[None]) for image in reference.images])
    if not np.isfinite(outputs).all():
        return _Contender(integers, floats, None, -np.inf)
    manifest = bundle.manifest
    kl = mean_kl(reference.outputs, outputs, independent=manifest.independent) if manifest.classes else None
    return _Contender(integers, floats, kl, sqnr_db(reference.outputs, outputs))


def _is_accurate(form: _Contender, linears_alone: _Contender) -> bool:
    if form.kl is not None and form.kl <= _MOST_KL:
        return True
    if form.sqnr is None or form.sqnr >= _LEAST_SQNR:
        return True
    return linears_alone.sqnr is not None and form.sqnr >= linears_alone.sqnr - _MOST_LOST


def _chosen(forms: Sequence[_Contender], times: NDArray[np.float64], engine: str) -> _Choice:
    """Choose what is fastest by ``times`` (rounds, forms), of what is accurate enough; all in float comes first."""
    accurate = [index for index, form in enumerate(forms) if index == 0 or _is_accurate(form, forms[0])]
    fastest = accurate[winner(times[:, accurate])]
    ratios = np.median(times / times[:, [fastest]], axis=0)
    # Forms follow one another from most integers to fewest: what is as fast, and has more, is preferred.
    best = next((index for index in accurate[1:] if ratios[index] <= 1 + MARGIN), 0) if fastest else 0
    ratios = np.median(times / times[:, [best]], axis=0)

    def against(others: Iterable[int]) -> str:
        # What was accurate enough was slower; else the accuracy of the others tells why.
        told = min(others, key=lambda index: (index not in accurate, ratios[index]))
        return _against(forms[told], forms[best], float(ratios[told]), accurate=told in accurate)

    reasons = {}
    for name in sorted(forms[best].floats):
        with_it = [index for index in range(len(forms)) if name not in forms[index].floats]
        reasons[name] = f"{_BETTER_IN_FLOAT.format(engine)}{against(with_it)}"
    if not best:
        return _Choice(f"Convolutions stay float32 with {engine}: {against(range(1, len(forms)))}", reasons)
    gained = f"{1 / ratios[0]:.2f} of the time that it takes with them in float"
    return _Choice(
        f"Convolutions in INT8 with {engine}: {forms[best].integers}; {gained}, {forms[best].say()}", reasons
    )


def _against(form: _Contender, best: _Contender, ratio: float, *, accurate: bool) -> str:
    """Say what speaks against ``form``: its time, which is ``ratio`` of that of ``best``, or its accuracy."""
    if not accurate:
        return f"INT8 had {form.say()}, and {best.say()} without"
    return f"INT8 took {ratio:.2f} of the time"
