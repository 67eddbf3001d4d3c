"""What rounding each Linear layer costs by itself, seen in the model's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.quantization.emit import emit
from edgevit.quantization.emit.rewrite import WeightBits
from edgevit.quantization.float_fallback import float_in, revert_to_float
from edgevit.quantization.plan import LayerSensitivity, SensitivityMetric
from edgevit.quantization.ptq import PtqModel
from edgevit.statistics import mean_kl


class Form(NamedTuple):
    """A dialect of INT8, and the engine that runs it, opened with ``settings``."""

    dialect: str
    backend: str
    settings: dict[str, str]
    weight_bits: WeightBits


def rank_layers(
    ptq: PtqModel,
    evaluator: Evaluator,
    form: Form,
    scratch: Path,
    *,
    measure: SensitivityMetric = "kl",
    progress: Progress = SILENT,
) -> tuple[LayerSensitivity, ...]:
    """Return what each layer that the plan quantizes costs alone: the most sensitive first, of equals the first to run.

    For each layer a model is made as ``form`` says, in which it alone is rounded as in ``ptq``, the others have the
    weights that they had before, and attention is float. It is run on all images of ``evaluator``. ``scratch`` is a
    folder for these models.
    """
    names = ptq.plan.integer_layers()
    emitted = scratch / "alone-int8.onnx"
    costs = []
    for name in progress.track(names, total=len(names), label="Measuring each layer's cost"):
        others = dict.fromkeys((other for other in names if other != name), "not looked at")
        alone = revert_to_float(ptq, others)
        alone = replace(alone, plan=msgspec.structs.replace(alone.plan, attentions=()))
        emit(float_in(alone, form.dialect), form.dialect, emitted, weight_bits=form.weight_bits)
        costs.append(_cost(name, evaluator, emitted, form, measure))
    return tuple(sorted(costs, key=lambda cost: -cost.degradation(measure)))


def _cost(name: str, evaluator: Evaluator, model: Path, form: Form, measure: SensitivityMetric) -> LayerSensitivity:
    outputs = evaluator.outputs(model, form.backend, form.settings)
    if not np.isfinite(outputs).all():
        return LayerSensitivity(layer=name, kl=None, sqnr_db=None, finite=False)
    kl = mean_kl(evaluator.reference, outputs, independent=evaluator.independent) if measure == "kl" else None
    return LayerSensitivity(layer=name, kl=kl, sqnr_db=worst_sqnr_db(evaluator.reference, outputs, evaluator.typed))
