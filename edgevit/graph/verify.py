"""Compare an exported graph with the torch model that it came from, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, VerificationError
from edgevit.files import atomic_path
from edgevit.graph.linears import open_graph
from edgevit.graph.metadata import INPUT, OUTPUT
from edgevit.graph.multiply_adds import images_to_compare
from edgevit.graph.running import (
    ENGINE_ERRORS,
    TOLERANCE,
    ExportCheck,
    concatenated,
    count_batches,
    growing_batches,
    largest_difference,
    run_several,
)
from edgevit.graph.torch_export import export_onnx, typed_outputs
from edgevit.models.spec import OutputActivation
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT, Progress

_REMEDY = "report it with the model's spec and the versions that `edgevit doctor` prints; nothing was exported"


def export_verified(
    model: VisionTransformer,
    path: Path,
    images: NDArray[np.float32],
    *,
    preprocess: Preprocess,
    labels: tuple[str, ...],
    activation: OutputActivation = "softmax",
    progress: Progress = SILENT,
) -> ExportCheck:
    """Export ``model`` to ``path`` and compare the file with it on ``images`` (N, C, H, W), at least two.

    If the model is large, it is compared on the first of them only, but on eight at least. The file appears at ``path``
    only once it has passed; else what was there before is still there.

    Raises:
        GraphError: if the model cannot be exported.
        DataError: if there are fewer than two images.
        VerificationError: if the file does not give what torch gives.
        StorageError: if the file cannot be written.

    """
    with atomic_path(path) as draft:
        export_onnx(model, draft, preprocess=preprocess, labels=labels, activation=activation, progress=progress)
        with open_graph(draft) as graph:
            images = images_to_compare(graph, images)
        return verify_export(model, draft, images, progress=progress)


def verify_export(
    model: VisionTransformer, path: Path, images: NDArray[np.float32], *, progress: Progress = SILENT
) -> ExportCheck:
    """Compare the graph at ``path`` with ``model`` on preprocessed ``images`` (N, C, H, W) in several batch sizes.

    Raises:
        DataError: if there are fewer than two images, which could not show that the batch is dynamic.
        VerificationError: if a logit differs by more than ``TOLERANCE`` or is not a number, an image's top-1 differs,
            or the graph does not take batches of any size.

    """
    if len(images) < 2:
        raise DataError("one image cannot show that a graph takes batches", remedy="give at least two images")
    try:
        names = [output.name for output in typed_outputs(model)] or [OUTPUT]
        label = f"Running {path.name} on {len(images)} images"
        batches = progress.track(growing_batches(images), total=count_batches(len(images)), label=label)
        found = concatenated(run_several(path, batches, images=INPUT, answers=names))
    except ENGINE_ERRORS as error:
        raise VerificationError(f"onnxruntime cannot run the exported graph: {error}", remedy=_REMEDY) from error
    expected = _torch_outputs(model, images, progress)
    difference = largest_difference(found, expected)
    if names == [OUTPUT]:
        difference = float(np.abs(found[0] - expected[0]).max())
    if not difference <= TOLERANCE:  # also where it is not a number
        raise VerificationError(
            f"the exported graph's {' or '.join(names)} differ from torch's by up to {difference:.3g}, "
            f"more than {TOLERANCE:g}",
            remedy=_REMEDY,
        )
    changed = np.flatnonzero(found[0].argmax(axis=1) != expected[0].argmax(axis=1))
    if len(changed) and model.spec.classes and names == [OUTPUT]:  # the largest feature of an embedding means nothing
        raise VerificationError(
            f"the exported graph's top-1 differs from torch's on {len(changed)} of {len(images)} images, "
            f"the first of them image {changed[0]}",
            remedy=_REMEDY,
        )
    return ExportCheck(max_difference=difference, images=len(images))


def _torch_outputs(
    model: VisionTransformer, images: NDArray[np.float32], progress: Progress
) -> list[NDArray[np.float32]]:
    label = f"Running torch on {len(images)} images"
    batches = progress.track(growing_batches(images), total=count_batches(len(images)), label=label)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            given = [model(torch.from_numpy(batch)) for batch in batches]
        return concatenated([[each.numpy() for each in (one if isinstance(one, tuple) else (one,))] for one in given])
    finally:
        model.train(training)
