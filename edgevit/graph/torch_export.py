"""From a torch ViT to a clean float32 ONNX graph."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.files import atomic_path
from edgevit.graph.metadata import INPUT, LARGEST_FILE, OPSET, OUTPUT, add_metadata
from edgevit.graph.passes.clear_value_metadata import ClearValueMetadata
from edgevit.graph.passes.gemm_to_matmul import GemmToMatMul
from edgevit.graph.passes.name_by_module import NameByModule
from edgevit.models.dense import DenseVisionTransformer
from edgevit.models.outputs import Output
from edgevit.models.spec import OutputActivation, label_counts
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT, Progress

#: torch traces one module at a time: two threads that export disturb one another.
TRACING = threading.Lock()

_VERSIONS = "install the versions of torch, onnx, onnx-ir and onnxscript that constraints.txt names"


def export_onnx(
    model: VisionTransformer,
    path: Path,
    *,
    preprocess: Preprocess,
    labels: tuple[str, ...],
    activation: OutputActivation = "softmax",
    progress: Progress = SILENT,
) -> None:
    """Write ``model`` to ``path`` as ONNX: ``images`` (batch, C, H, W) to ``logits`` (batch, classes), float32.

    An embedding model's ``logits`` are its features (batch, ``spec.outputs``); one with outputs of its own gives these.

    Nodes and constants are named as ``NameByModule`` says. The file's metadata holds, as JSON, the spec, the
    preprocessing and the labels (``edgevit.spec``, ``edgevit.preprocess``, ``edgevit.labels``), and where it is not
    softmax, ``edgevit.activation``. Equal weights give equal bytes. What was written is well-formed, but not compared
    with torch: see ``verify.export_verified``.

    Raises:
        GraphError: if the model is not float32 on the CPU or too large for one file, the preprocessing or the labels
            do not fit it, or the installed exporter gives a graph that EdgeViT does not know.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    _check(model, preprocess, labels)
    progress.note("Tracing the model")
    try:
        graph = simplify_trace(trace(model))
    except (torch.onnx.OnnxExporterError, ir.passes.PassError, ir.passes.InvariantError) as error:
        raise GraphError(f"the model cannot be exported: {str(error).splitlines()[0]}", remedy=_VERSIONS) from error
    add_metadata(graph, model.spec, preprocess, labels, activation, typed_outputs(model))
    progress.note(f"Writing {path.name}")
    with atomic_path(path) as draft:
        ir.save(graph, draft)
        try:
            onnx.checker.check_model(str(draft), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise GraphError(f"the exported graph is malformed: {error}", remedy=_VERSIONS) from error


def typed_outputs(model: VisionTransformer) -> tuple[Output, ...]:
    """Return the outputs of a model that has other ones than logits or features; else none."""
    return model.outputs if isinstance(model, DenseVisionTransformer) else ()


def trace(model: VisionTransformer) -> ir.Model:
    """Return the graph as torch.onnx gives it, with a batch of any size."""
    height, width = model.spec.image_size
    training = model.training
    model.eval()
    try:
        with TRACING, only_real_warnings(), torch.no_grad():  # the same graph, traced without its gradients
            program = torch.onnx.export(
                model,
                (torch.zeros(2, model.spec.channels, height, width),),  # torch.export takes a batch of 1 for a constant
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[output.name for output in typed_outputs(model)] or [OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                optimize=False,
                verbose=False,
            )
    finally:
        model.train(training)
    if program is None:
        raise GraphError("torch.onnx gave no graph", remedy=_VERSIONS)
    return program.model


def simplify_trace(graph: ir.Model) -> ir.Model:
    """Simplify a traced graph in place, name its parts, and return it."""
    everything = 2**62  # constants are folded whatever their size: the transposes of weights are wanted folded
    GemmToMatMul()(graph)
    onnxscript.optimizer.optimize(graph, input_size_limit=everything, output_size_limit=everything)
    ir.passes.Sequential(
        NameByModule(("cls_token", "reg_token", "pos_embed", "attn_pool.query")),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
        ClearValueMetadata(),
        common.TopologicalSortPass(),
    )(graph)
    return graph


def _check(model: VisionTransformer, preprocess: Preprocess, labels: tuple[str, ...]) -> None:
    spec = model.spec
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in model.state_dict().values()):
        raise GraphError("the model is not float32 on the CPU", remedy="call model.float().cpu() before the export")
    if (preprocess.channels, *preprocess.size) != (spec.channels, *spec.image_size):
        raise GraphError(
            f"preprocessing gives {preprocess.channels} channels of {preprocess.size[0]}x{preprocess.size[1]}, "
            f"the model takes {spec.channels} of {spec.image_size[0]}x{spec.image_size[1]}",
            remedy="give the preprocessing that the model was trained with",
        )
    classes = 0 if typed_outputs(model) else spec.classes
    if len(labels) not in label_counts(classes):
        raise GraphError(
            f"there are {len(labels)} labels for {classes} classes", remedy="give one label for each class"
        )
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > LARGEST_FILE:
        raise GraphError(
            f"the weights take {size / 2**30:.1f} GiB, one ONNX file holds 2", remedy="use a smaller model"
        )


@contextmanager
def only_real_warnings() -> Iterator[None]:
    """Hide what torch says of itself at every export: its own deprecations, and that torchvision is not there."""

    def real(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(real)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        logger.removeFilter(real)
