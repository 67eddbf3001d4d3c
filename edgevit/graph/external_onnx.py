"""From an ONNX file that others have exported to the float32 file of a bundle, which gives the same logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from edgevit.graph.metadata import INPUT, OUTPUT, add_metadata
from edgevit.graph.multiply_adds import images_to_compare
from edgevit.graph.node_facts import clear_facts
from edgevit.graph.onnx_file import OnnxFile, shown, shown_line
from edgevit.graph.passes.canonicalize import Canonicalize
from edgevit.graph.passes.clear_value_metadata import ClearValueMetadata
from edgevit.graph.passes.dynamic_batch import BATCH, DynamicBatch
from edgevit.graph.passes.fuse_layer_norm import FuseLayerNorm
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.name_uniquely import NameUniquely
from edgevit.graph.probabilities import logarithms
from edgevit.graph.running import (
    ENGINE_ERRORS,
    TOLERANCE,
    ExportCheck,
    concatenated,
    difference_among_others,
    growing_batches,
    largest_difference,
    one_by_one,
    run_several,
)
from edgevit.graph.shapes import SIZES
from edgevit.models.origin import WeightsOrigin
from edgevit.models.outputs import Output
from edgevit.models.spec import GraphSpec, OutputActivation
from edgevit.progress import SILENT, Progress

_DYNAMIC = (
    "export it again with a dynamic batch: dynamo=True with dynamic_shapes=({0: torch.export.Dim('batch')},), "
    "or dynamo=False with dynamic_axes={'INPUT': {0: 'batch'}}"
)
_EACH_ALONE = (
    "have each layer look at one image by itself: BatchNorm with the running statistics of the training, "
    "and nothing that is computed over the batch or of its size"
)
_LOGITS = "export it again without its last Softmax; EdgeViT makes probabilities of logits itself"
_UNLIKE: tuple[type[Exception], ...] = (*ENGINE_ERRORS, ValueError)  # also where answers do not fit together
_REFUSED: tuple[type[Exception], ...] = (GraphError, VerificationError, *ENGINE_ERRORS)
_HALF = 2e-2  # of the largest logit, that computing in float16 or bfloat16 may cost the file that was given
#: What onnxruntime's probabilities may be off by, see ``logarithms``: its Sigmoid is a quotient of polynomials.
_OFF: dict[OutputActivation, dict[str, float]] = {"softmax": {}, "sigmoid": {"error": 3e-7}}
_HALF_OFF = {"rounding": 2**-7, "error": 1e-6}
_NOT_ITSELF = "report it with what wrote the file, and what `edgevit doctor` prints; nothing was exported"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """A model that is known by its graph alone, and what was said of it; as ``Checkpoint`` is for weights.

    ``source`` says where it came from; ``notes`` what was assumed on the way and should be said aloud;
    ``activation`` what makes probabilities of its logits; ``origin`` is the file, and the license that is named
    beside it; ``outputs`` are there where it gives no row of logits.
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
    outputs: tuple[Output, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What outputs are called in the bundle's file."""
        return tuple(output.name for output in self.outputs) or (OUTPUT,)

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

    It has one input, ``images`` (batch, C, H, W), of any batch, one output, ``logits`` (batch, classes), or those that
    the model has, and names for all nodes. Both files are run by onnxruntime on ``images`` (N, C, H, W); if the model
    is large, on the first of them only, but on eight at least. It must answer for an image alone as among others. The
    file appears at ``path`` only once it has passed; else what was there before is still there.

    Raises:
        GraphError: if the model takes one image only and cannot be made to take more, cannot be run, gives
            probabilities, or answers for an image by what others are in its batch.
        VerificationError: if the file does not give what the one given does.
        StorageError: if the file cannot be written.

    """
    images = images_to_compare(ir.serde.from_proto(model.file.model), images)
    expected = _given(model, images)
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


def _given(model: OnnxModel, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    face = model.interface
    batches = one_by_one(images) if face.batch == 1 else growing_batches(images)
    try:
        answers = concatenated(run_several(model.file.path, batches, images=face.input, answers=face.names))
    except _UNLIKE as error:
        raise GraphError(
            f"onnxruntime cannot run {model.file.path} on several images: {shown_line(str(error))}", remedy=_DYNAMIC
        ) from error
    shapes = [output.shape for output in model.outputs] or [(model.spec.outputs,)]
    if [answer.shape for answer in answers] != [(len(images), *shape) for shape in shapes]:
        raise GraphError(f"{model.file.path} does not give one answer for each image", remedy=_DYNAMIC)
    if not all(np.isfinite(answer).all() for answer in answers):
        raise GraphError(
            f"{model.file.path} gives values that are not finite", remedy="check the weights and the preprocessing"
        )
    for logits in _logits(model, answers):
        if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
            other = "; or give it no labels, --onnx-output NAME=any" if model.outputs else ""
            raise GraphError(f"{model.file.path} gives probabilities, not logits", remedy=_LOGITS + other)
    return answers


def _logits(model: OnnxModel, answers: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield those of the file's ``answers`` that the bundle makes probabilities of by a softmax."""
    if not model.outputs and model.spec.classes > 1 and model.cut is None:
        yield from answers
    for output, answer in zip(model.outputs, answers, strict=False):
        if output.labels and output.size > 1:
            yield answer


def _write(model: OnnxModel, path: Path, *, canonical: bool) -> None:
    try:
        graph = _in_bundle_form(model, canonical=canonical)
        add_metadata(graph, model.spec, model.preprocess, model.labels, model.activation, model.outputs)
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
    clear_facts(graph.graph)
    common.RemoveInitializersFromInputsPass()(graph)
    (images,) = graph.graph.inputs
    answers = {value.name: value for value in graph.graph.outputs}
    names = model.interface.names
    if model.cut is not None:
        answers = {value.name: value for node in graph.graph for value in node.outputs}
        names = (str(model.interface.logits),)
    graph.graph.outputs.clear()
    graph.graph.outputs.extend(answers[name] for name in names)
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
    sizes = (1,) if model.interface.batch == 1 else SIZES
    rewritten = [Canonicalize(sizes, model.names)] if canonical else []
    ir.passes.Sequential(
        *tidy,
        *rewritten,
        *fixed,
        FuseLayerNorm(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        ClearValueMetadata(),
        NameUniquely(model.names),
        common.TopologicalSortPass(),
        InferShapes(),
    )(graph)
    if len(set(graph.graph.outputs)) < len(graph.graph.outputs):
        raise GraphError(
            f"{model.file.path} gives one tensor under several names: {', '.join(map(shown, names))}",
            remedy="name each tensor once with --onnx-output",
        )
    shapes = [output.shape for output in model.outputs] or [(model.spec.outputs,)]
    for answer, shape in zip(graph.graph.outputs, shapes, strict=True):
        answer.shape = ir.Shape([BATCH, *shape])
    return graph


def _compare(
    model: OnnxModel, path: Path, images: NDArray[np.float32], expected: list[NDArray[np.float32]]
) -> ExportCheck:
    """Compare the file at ``path`` with what is ``expected`` of it, one image at a time and several at once.

    Where the file given makes probabilities, their logarithms are compared. What it computes in float16 differs.
    """
    try:
        found = concatenated(run_several(path, growing_batches(images), images=INPUT, answers=model.names))
        if model.cut is not None:
            off = _HALF_OFF if _is_half(model.file) else _OFF[model.cut]
            found, expected = ([each] for each in logarithms(found[0], expected[0], model.cut, **off))
        difference = largest_difference(found, expected)
        among = difference_among_others(path, images, given=INPUT, answers=model.names)
        problem = f"{' or '.join(model.names)} differ by up to {np.maximum(difference, among):.3g}"
    except _UNLIKE as error:
        difference, among, problem = np.inf, 0.0, shown_line(str(error))
    if difference <= _tolerance(model.file) and among <= TOLERANCE:
        return ExportCheck(max_difference=difference, images=len(images))
    if model.interface.batch == 1:
        raise GraphError(
            f"{model.file.path} takes one image at a time, and could not be made to take more: {problem}",
            remedy=_DYNAMIC,
        )
    if not among <= TOLERANCE:
        raise GraphError(
            f"{model.file.path} answers for an image otherwise among others than alone: {problem}",
            remedy=_EACH_ALONE,
        )
    raise VerificationError(f"the file for the bundle is not {model.file.path} any more: {problem}", remedy=_NOT_ITSELF)


def _tolerance(file: OnnxFile) -> float:
    """Return how far a logit may lie from that of the file given, in parts of the largest."""
    return _HALF if _is_half(file) else TOLERANCE


def _is_half(file: OnnxFile) -> bool:
    return not {"float16", "bfloat16"}.isdisjoint(file.floats)
