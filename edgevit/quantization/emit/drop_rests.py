"""Multiply each input once, for engines that pay more for a second product than it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgevit.files import scratch_folder, sha256_of
from edgevit.quantization.emit.rewrite import write
from edgevit.quantization.linears import open_graph
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.rewrites.fine import drop_rests


@contextmanager
def without_rests(model: Path, plan: QuantizationPlan) -> Iterator[tuple[Path, QuantizationPlan]]:
    """Give a copy of the prepared ``model`` without what ``rewrites.fine`` has added to it, and the plan for that.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the copy cannot be written.

    """
    plan.check_model(model)
    with scratch_folder() as scratch:
        path = scratch / "single.onnx"
        with open_graph(model) as onnx_model:
            dropped = frozenset(drop_rests(onnx_model.graph))
            if dropped:
                write(onnx_model, (), path)
        linears = tuple(linear for linear in plan.linears if linear.name not in dropped)
        single = msgspec.structs.replace(plan, model_sha256=sha256_of(path), linears=linears) if dropped else plan
        yield (path if dropped else model), single
