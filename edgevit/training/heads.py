"""A model's head: a new one for other classes, and the features that it stands on."""

from __future__ import annotations

import copy

import msgspec
import torch
from torch import Tensor, nn

from edgevit.data.batches import Strict, batches
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.progress import Progress
from edgevit.training.distributed import Processes

_BATCH = 64


def fit_head(checkpoint: Checkpoint, labels: tuple[str, ...]) -> tuple[Checkpoint, str]:
    """Return ``checkpoint`` with a head for ``labels``, and a line that says what became of its head.

    A head for the same labels in the same order is kept. Any other is replaced by zeros: all classes are equally likely
    at first, and the features are not torn by a random head's gradients.

    Raises:
        CheckpointError: if the model has no linear head.
    """
    if checkpoint.labels == labels:
        return checkpoint, f"the head of {checkpoint.source} is kept: it has the same {len(labels)} labels"
    head = checkpoint.weights.get("head.weight")
    if head is None or head.ndim != 2:
        raise CheckpointError(
            f"{checkpoint.source} has no linear head to replace", remedy="fine-tune a classifier's checkpoint"
        )
    weights = dict(checkpoint.weights)
    for name in [name for name in weights if name.startswith("head")]:
        weights[name] = torch.zeros(len(labels), *weights[name].shape[1:])
    spec = msgspec.structs.replace(checkpoint.spec, classes=len(labels))
    said = f"{checkpoint.source} gets a new head: {len(labels)} labels instead of {checkpoint.spec.classes}"
    return Checkpoint(spec, weights, checkpoint.preprocess, labels, checkpoint.source, checkpoint.notes), said


def freeze_backbone(model: nn.Module) -> None:
    """Leave nothing to learn but the head."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))


def features(
    model: VisionTransformer,
    dataset: Dataset,
    preprocess: Preprocess,
    name: str,
    processes: Processes,
    progress: Progress,
) -> Tensor:
    """Return what the head of ``model`` gets to see of each image (N, D), computed by all processes together.

    Raises:
        ImageError: if an image cannot be read.
    """
    backbone: nn.Module = copy.deepcopy(model).eval().to(processes.device)
    backbone.head = nn.Identity()
    found = torch.zeros(len(dataset), next(model.head.parameters()).shape[1])
    own = torch.arange(processes.rank, len(dataset), processes.count).numpy()
    stream = batches(dataset, preprocess, batch_size=_BATCH, indices=own, unreadable=Strict())
    with torch.inference_mode():
        steps = -(-len(own) // _BATCH)
        for batch in progress.track(stream, total=steps, label=f"features of the {name} images"):
            found[torch.from_numpy(batch.indices)] = backbone(torch.from_numpy(batch.images).to(processes.device)).cpu()
    return processes.total(found)
