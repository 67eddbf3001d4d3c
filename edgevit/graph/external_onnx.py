"""From an ONNX file that others have exported to the float32 file of a bundle, which gives the same logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError, VerificationError
from edgevit.files import atomic_path
from edgevit.graph.interface import Interface
from edgevit.graph.metadata import INPUT, OUTPUT, describe
from edgevit.graph.node_facts import forget
from edgevit.graph.onnx_file import OnnxFile, shown_line
from edgevit.graph.passes.canonicalize import Canonicalize
from edgevit.graph.passes.clear_value_metadata import ClearValueMetadata
from edgevit.graph.passes.dynamic_batch import BATCH, DynamicBatch
from edgevit.graph.passes.fuse_layer_norm import FuseLayerNorm
from edgevit.graph.passes.name_uniquely import NameUniquely
from edgevit.graph.running import ENGINE_ERRORS, TOLERANCE, ExportCheck, growing_batches, one_by_one, run
from edgevit.graph.shapes import SIZES
from edgevit.models.origin import WeightsOrigin
from edgevit.models.spec import GraphSpec, OutputActivation
from edgevit.progress import SILENT, Progress

_DYNAMIC = (
    "export it again with a dynamic batch: dynamo=True with dynamic_shapes=({0: torch.export.Dim('batch')},), "
    "or dynamo=False with dynamic_axes={'INPUT': {0: 'batch'}}"
)
_LOGITS = "export it again without its last Softmax; EdgeViT makes probabilities of logits itself"
_UNLIKE: tuple[type[Exception], ...] = (*ENGINE_ERRORS, ValueError)  # also where answers do not fit together
_REFUSED: tuple[type[Exception], ...] = (GraphError, VerificationError, *ENGINE_ERRORS)
_LEAST = 1e-3  # a probability whose logarithm an engine gives as exactly as a logit
_HALF = 2e-2  # of the largest logit, that computing in float16 or bfloat16 may cost the file that was given
_NOT_ITSELF = "report it with what wrote the file, and what `edgevit doctor` prints; nothing was exported"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """A model that is known by its graph alone, and what was said of it; as ``Checkpoint`` is for weights.

    ``source`` says where it came from; ``notes`` what was assumed on the way and should be said aloud;
    ``activation`` what makes probabilities of its logits; ``origin`` is the file, and the license that is named
    beside it.
    """

    file: OnnxFile
    interface: Interface
    spec: GraphSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    activation: OutputActivation = "softmax"
    origin: WeightsOrigin = field(default_factory=WeightsOrigin)

    @property
    def cut(self) -> OutputActivation | None:
        """What the file makes probabilities of its logits by, which the bundle leaves to the runtime."""
        return self.interface.activation if self.spec.classes else None

    def sha256(self) -> str:
        """Return the SHA-256 of the file, with those that its weights lie in."""
        return self.file.sha256


def write_verified(
    model: OnnxModel, path: Path, images: NDArray[np.float32], *, progress: Progress = SILENT
) -> ExportCheck:
    """Write ``model`` to ``path`` as all float32 files of bundles are, and compare that file with the one given.

    It has one input, ``images`` (batch, C, H, W), of any batch, one output, ``logits`` (batch, classes), and names for
    all nodes. Both files are run by onnxruntime on ``images`` (N, C, H, W). The file appears at ``path`` only once it
    has passed; else what was there before is still there.

    Raises:
        GraphError: if the model takes one image only and cannot be made to take more, cannot be run, or gives
            probabilities.
        VerificationError: if the file does not give what the one given does.
        StorageError: if the file cannot be written.

    """
    expected = _given_logits(model, images)
    with atomic_path(path) as draft:
        for canonical in (True, False):
            progress.note(f"Writing {path.name}")
            try:
                _write(model, draft, canonical=canonical)
                progress.note(f"Comparing {path.name} with {model.file.path.name} on {len(images)} images")
                return _compare(model, draft, images, expected)
            except _REFUSED:
                if not canonical:  # what the rewriting has misread may do as it is
                    raise
    raise AssertionError  # one of the two has returned or raised


def _given_logits(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    face = model.interface
    batches = one_by_one(images) if face.batch == 1 else growing_batches(images)
    try:
        parts = list(run(model.file.path, batches, images=face.input, answers=face.output))
    except ENGINE_ERRORS as error:
        raise GraphError(
            f"onnxruntime cannot run {model.file.path} on several images: {shown_line(str(error))}", remedy=_DYNAMIC
        ) from error
    if any(part.shape[1:] != (model.spec.outputs,) for part in parts) or sum(map(len, parts)) != len(images):
        raise GraphError(f"{model.file.path} does not give one answer for each image", remedy=_DYNAMIC)
    logits: NDArray[np.float32] = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise GraphError(
            f"{model.file.path} gives values that are not finite", remedy="check the weights and the preprocessing"
        )
    cut = model.interface.activation is not None and model.spec.classes
    if model.spec.classes > 1 and not cut and (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
        raise GraphError(f"{model.file.path} gives probabilities, not logits", remedy=_LOGITS)
    return logits


def _write(model: OnnxModel, path: Path, *, canonical: bool) -> None:
    try:
        graph = _in_bundle_form(model, canonical=canonical)
        describe(graph, model.spec, model.preprocess, model.labels, model.activation)
        ir.save(graph, path)
        onnx.checker.check_model(str(path), full_check=True)
    except (
        ir.passes.PassError,
        ir.serde.SerdeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise GraphError(
            f"{model.file.path} cannot be rewritten: {shown_line(str(error))}",
            remedy="export it again with torch.onnx.export(..., dynamo=True)",
        ) from error


def _in_bundle_form(model: OnnxModel, *, canonical: bool) -> ir.Model:
    """Return the model with one input and one output, of fixed sizes but for the batch, and names for all nodes.

    With ``canonical``, attention, Linear layers and activation functions have the form of EdgeViT's own exports.
    """
    graph = ir.serde.from_proto(model.file.model)
    forget(graph.graph)
    common.RemoveInitializersFromInputsPass()(graph)
    (images,) = graph.graph.inputs
    answers = [value for value in graph.graph.outputs if value.name == model.interface.output][:1]
    if model.cut is not None:
        answers = [value for node in graph.graph for value in node.outputs if value.name == model.interface.logits]
    graph.graph.outputs.clear()
    graph.graph.outputs.extend(answers)
    for node in graph.graph:
        for value in node.outputs:  # what the file says of them need not be so; all is found again
            value.shape = None
    size = (model.spec.channels, *model.spec.image_size)
    images.shape = ir.Shape([model.interface.batch or BATCH, *size])
    tidy: list[ir.passes.PassBase] = [
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
    ]
    fixed: list[ir.passes.PassBase] = [DynamicBatch()] if model.interface.batch == 1 else []
    rewritten = [Canonicalize((1,) if model.interface.batch == 1 else SIZES)] if canonical else []
    ir.passes.Sequential(
        *tidy,
        *rewritten,
        *fixed,
        FuseLayerNorm(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        ClearValueMetadata(),
        NameUniquely(),
        common.TopologicalSortPass(),
        common.ShapeInferencePass(),
    )(graph)
    graph.graph.outputs[0].shape = ir.Shape([BATCH, model.spec.outputs])
    return graph


def _compare(model: OnnxModel, path: Path, images: NDArray[np.float32], expected: NDArray[np.float32]) -> ExportCheck:
    """Compare the file at ``path`` with what is ``expected`` of it, one image at a time and several at once.

    Where the file given makes probabilities, their logarithms are compared. What it computes in float16 differs.
    """
    try:
        found = np.concatenate(list(run(path, growing_batches(images), images=INPUT, answers=OUTPUT)))
        if model.cut is not None:
            found, expected = _compared(_probabilities(found, model.cut)), _compared(expected)
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        problem = f"logits differ by up to {difference:.3g}"
    except _UNLIKE as error:
        difference, problem = np.inf, shown_line(str(error))
    allowed = _tolerance(model.file) * max(1.0, float(np.abs(expected).max()))
    if difference <= allowed:
        return ExportCheck(max_difference=difference, images=len(images))
    if model.interface.batch == 1:
        raise GraphError(
            f"{model.file.path} takes one image at a time, and could not be made to take more: {problem}",
            remedy=_DYNAMIC,
        )
    raise VerificationError(f"the file for the bundle is not {model.file.path} any more: {problem}", remedy=_NOT_ITSELF)


def _probabilities(logits: NDArray[np.float32], activation: OutputActivation) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0, -values))
    return np.exp(values - np.logaddexp.reduce(values, axis=1, keepdims=True))


def _compared(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return what differs between probabilities as much as it does between logits; an engine rounds the least."""
    both = np.concatenate([probabilities, 1 - probabilities], axis=1, dtype=np.float64)
    return np.log(np.maximum(both, _LEAST)).astype(np.float32)


def _tolerance(file: OnnxFile) -> float:
    """Return how far a logit may lie from that of the file given, in parts of the largest."""
    return _HALF if {"float16", "bfloat16"} & set(file.floats) else TOLERANCE
