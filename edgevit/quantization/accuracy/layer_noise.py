"""How much noise INT8 has added by each layer: its output there against what it is in float.

A model is rewritten before it is quantized, so that the outputs of its layers are not those of the float32 file: they
are rotated and scaled. What INT8 is compared with is its float twin: the same form, with the weights as they were
before rounding, and nothing rounded. It gives float32's answers, which is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.bundle.reading import VerifiedFile
from edgevit.errors import GraphError
from edgevit.graph.linears import find_linears, open_graph
from edgevit.graph.node_facts import PRODUCTS, Role, layer_of, noted_products, role_of
from edgevit.graph.running import largest_difference, run_all_outputs
from edgevit.graph.taps import TappedModel
from edgevit.graph.weights import let_go
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.noise import LayerNoise
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit import emit, scheme_of
from edgevit.quantization.emit.rewrite import WeightBits
from edgevit.quantization.float_fallback import float_in, revert_to_float
from edgevit.quantization.ptq import FloatModel, PtqModel, unrounded_weights
from edgevit.quantization.rewrites.passes import Options
from edgevit.recipes import Rewrites, load_recipe, recipe_names

_TOLERANCE = 1e-3  # of the largest output, as rewrites are checked with
_BITS: WeightBits = 8


def float_twin(
    ptq: PtqModel, float32: VerifiedFile, table: CalibrationTable, dialect: str, images: NDArray[np.float32], path: Path
) -> Path:
    """Write the float twin of what ``dialect`` is given of ``ptq`` to ``path``, and return that.

    The recipe that a plan was made by is not noted in it: those that come with EdgeViT are tried, and that is taken
    whose twin gives what the ``float32`` file gives for ``images`` (N, C, H, W).

    Raises:
        GraphError: if none does, as after a recipe of one's own, or if the ``table`` is of other images than the plan.
        BundleError: if the table or the plan is of another model.

    """
    if table.images_sha256 != ptq.plan.images_sha256:
        raise GraphError(
            "the layers cannot be shown in float: the bundle was calibrated again since, on other images",
            remedy="quantize these variants again to see the error of each layer",
        )
    given = [image[None] for image in images[:1]]
    expected = run_all_outputs(float32.path, given)
    names = {linear.of: "shown in float" for linear in (*ptq.plan.linears, *ptq.plan.convolutions)}
    for rewrites in _candidates(ptq):
        source = FloatModel.read(float32.path, float32.sha256)
        options = Options(scheme_of(dialect), table.images, ptq.plan.observer, rewrites)
        weights = unrounded_weights(source.model, table, options)
        let_go(source.model)
        if not {linear.of for linear in ptq.plan.linears} <= set(weights):
            continue
        plan = msgspec.structs.replace(ptq.plan, attentions=())
        twin = revert_to_float(PtqModel(ptq.model, plan, weights), names)
        emit(twin, dialect, path, weight_bits=_BITS)
        let_go(twin.model)
        found = run_all_outputs(path, given)
        if largest_difference(found, expected, least=1e-6) <= _TOLERANCE:
            return path
    raise GraphError(
        "the layers cannot be shown in float: the recipe of the calibration is none of those that come with EdgeViT",
        remedy="quantize with --recipe default, fast or search to see the error of each layer",
    )


def write_unfused(ptq: PtqModel, engine: str, dialect: str, path: Path, *, attention: bool) -> Path:
    """Write what the ``engine``'s dialect quantizes in the form of ``dialect``, which fuses nothing, to ``path``.

    With ``attention`` its products are in integers, where the dialect has them so.
    """
    plan = ptq.plan if attention else msgspec.structs.replace(ptq.plan, attentions=())
    emit(float_in(replace(ptq, plan=plan), engine), dialect, path, weight_bits=_BITS)
    return path


def layer_noise(
    ptq: PtqModel, twin: Path, integers: Path, engine: str, images: NDArray[np.float32], progress: Progress = SILENT
) -> tuple[LayerNoise, ...]:
    """Return the noise of each Linear layer in the file ``integers`` against its ``twin``, in the order they run.

    Both are of ``ptq``, and are run on ``images`` (N, C, H, W), one at a time.

    Raises:
        GraphError: if they do not have the same layers.

    """
    values = _outputs(ptq, twin)
    names = [name for several in values.values() for name in several]
    one, other = TappedModel(twin, names), TappedModel(integers, names)
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for image in progress.track(images, total=len(images), label="Comparing layers"):
        expected, found = one.run(image[None]), other.run(image[None])
        for name in names:
            if expected[name].shape != found[name].shape:
                raise GraphError(f"{name} has another shape in INT8", remedy="quantize the model again")
            signal[name] += float(np.square(expected[name], dtype=np.float64).sum())
            noise[name] += float(np.square(expected[name].astype(np.float64) - found[name]).sum())
    kept = _kept_float(ptq, engine)
    return tuple(
        LayerNoise(
            layer=layer,
            sqnr_db=_decibels(sum(signal[name] for name in several), sum(noise[name] for name in several)),
            kept_float=kept.get(layer),
        )
        for layer, several in values.items()
    )


def _candidates(ptq: PtqModel) -> Iterable[Rewrites]:
    seen = []
    for name in sorted(recipe_names(), key=lambda name: name != "default"):
        rewrites = load_recipe(name).rewrites
        if ptq.plan.trials:
            rewrites = msgspec.structs.replace(rewrites, alpha=ptq.plan.trials[0].alpha)
        if rewrites.alpha != "auto" and rewrites not in seen:
            seen.append(rewrites)
            yield rewrites


def _outputs(ptq: PtqModel, twin: Path) -> dict[str, list[str]]:
    """Return the names of the values that each layer gives in the file ``twin``: several where it was cut apart."""
    sums = {layer_of(node): str(node.outputs[0].name) for node in ptq.model.graph if role_of(node) is Role.RESIDUAL_SUM}
    residual = {node.name for node in ptq.model.graph if role_of(node) is Role.RESIDUAL}
    found: dict[str, list[str]] = {}
    with open_graph(twin) as model:
        made = {str(value.name) for node in model.graph for value in node.outputs}
        layers = {each.node: each.layer for each in noted_products(model.metadata_props.get(PRODUCTS))}
        for name, node in _products(model.graph):
            layer = layers.get(name, name)
            if name in residual:
                continue
            total = sums.get(layer)
            value = total if total in made else node
            found.setdefault(layer, [])
            if value not in found[layer]:
                found[layer].append(value)
    if not found:
        raise GraphError("the model has no Linear layers", remedy="the error of each layer is of Linear layers only")
    return found


def _products(graph: ir.Graph) -> Sequence[tuple[str, str]]:
    """Return for each Linear layer of a graph the name of its product, and of the value that it gives."""
    return [(each.name, str(each.output.name)) for each in find_linears(graph)]


def _kept_float(ptq: PtqModel, engine: str) -> dict[str, str]:
    reasons = {each.layer: each.reason for each in ptq.plan.float_layers()}
    for linear in ptq.plan.linears:
        reasons.update((linear.of, each.reason) for each in linear.float_in if each.dialect == engine)
    return reasons


def _decibels(signal: float, noise: float) -> float | None:
    return None if not noise or not signal else float(10 * np.log10(signal / noise))
