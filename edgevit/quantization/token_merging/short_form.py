"""A few blocks of a model in INT8, to time an engine with."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.graph.linears import find_linears
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.saving import tidy
from edgevit.graph.token_stream import find_token_stream
from edgevit.quantization.arithmetic import WEIGHT_LIMIT
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit.rewrite import rounded_scales
from edgevit.quantization.plan import LinearPlan
from edgevit.quantization.ptq import FloatModel, PtqModel, rewrite_and_plan
from edgevit.quantization.rewrites.passes import Options


def short_form(source: FloatModel, schedule: Sequence[int], table: CalibrationTable, options: Options) -> PtqModel:
    """Return the first blocks of ``source`` with its head, as many as ``schedule`` has, which says what each merges.

    ``table`` is what calibration saw of ``source``, which stays as it is. Weights are rounded to nearest: what an
    engine takes does not depend on their values.
    """
    short = source.model.clone()
    stream = find_token_stream(short.graph)
    end, kept = stream.blocks[-1].output, stream.blocks[len(schedule) - 1].output
    end.replace_all_uses_with(kept, replace_graph_outputs=True)
    tidy(short)
    MergeTokens(schedule)(short)
    rewritten, plan = rewrite_and_plan(short, table, options)
    weights = {layer.name: layer.weight for layer in find_linears(rewritten.graph)}
    linears = tuple(_rounded_to_nearest(linear, weights[linear.name]) for linear in plan.linears)
    return PtqModel(rewritten, msgspec.structs.replace(plan, linears=linears))


def _rounded_to_nearest(linear: LinearPlan, weight: NDArray[np.float32]) -> LinearPlan:
    if linear.quantization is None:
        return linear
    scales = rounded_scales(np.abs(weight).max(axis=0) / np.float32(WEIGHT_LIMIT), np.float32)
    quantization = msgspec.structs.replace(linear.quantization, weight_scales=tuple(scales.tolist()))
    return msgspec.structs.replace(linear, quantization=quantization)
