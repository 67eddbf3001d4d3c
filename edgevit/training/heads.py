"""A model's head: a new one for other classes, and the features that it takes."""

from __future__ import annotations

import copy
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgevit.data.batches import Strict, batches
from edgevit.data.dataset import Dataset
from edgevit.data.labels import match_labels
from edgevit.data.preprocess import Preprocess
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import outcomes
from edgevit.models.vit import VisionTransformer
from edgevit.progress import Progress
from edgevit.training.distributed import Processes

_BATCH = 64


def head_labels(training: Dataset, known: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that a head for ``training`` needs, and remarks; ``known`` are the old head's.

    Class indices of which most have no image were counted for a larger model. Where the old head knows as many, they
    are indices into ``known``, as ``map_labels`` has it.
    """
    labels, name = training.class_names, training.name
    used = len(np.unique(training.labels))
    empty = len(labels) - used
    if not empty:
        return labels, ()
    indices = labels == tuple(map(str, range(len(labels))))
    if indices and empty > used and len(labels) <= len(known):
        return known, (
            f"the class indices of {name} are those of the checkpoint's {len(known)} labels; {used} have images",
        )
    remedy = "number them from 0 without gaps" if indices else "add some, or leave the classes out"
    return labels, (f"{empty} of {len(labels)} classes of {name} have no image to learn from: {remedy}",)


def fit_head(checkpoint: Checkpoint, labels: tuple[str, ...]) -> tuple[Checkpoint, str]:
    """Return ``checkpoint`` with a head for ``labels``, and a line that says what became of its head.

    A head for the same labels is kept, in its own order. Any other gives way to a new one. Labels that the old head
    knows, all of them, begin with what it learnt; else the new head begins with zeros: all classes are equally likely
    at first, and the features are not torn by a random head's gradients. An embedding model loses its projection.
    """
    checkpoint = one_right(checkpoint)
    if labels == checkpoint.labels:  # two of which may have one name
        return checkpoint, f"the head of {checkpoint.source} is kept: it has the same {len(labels)} labels"
    matches = match_labels(labels, checkpoint.labels)
    known = [match for match in matches if match is not None]
    same = len(known) == len(labels) and len(set(known)) == len(labels)
    if same and len(labels) == len(checkpoint.labels):
        return checkpoint, f"the head of {checkpoint.source} is kept: it has the same {len(labels)} labels"
    spec = msgspec.structs.replace(checkpoint.spec, classes=len(labels), projection=0, l2_normalize=False)
    width = spec.pre_logits or spec.pooled_width
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith("head.")}
    if same:
        head = {name: checkpoint.weights[name][known] for name in ("head.weight", "head.bias")}
        said = f"{checkpoint.source} keeps {len(labels)} of the {len(checkpoint.labels)} labels of its head"
    else:
        head = {"head.weight": torch.zeros(len(labels), width), "head.bias": torch.zeros(len(labels))}
        before = f"instead of {len(checkpoint.labels)}" if checkpoint.labels else "where it had none"
        said = f"{checkpoint.source} gets a new head: {len(labels)} labels {before}"
    return replace(checkpoint, spec=spec, weights={**weights, **head}, labels=labels), said


def one_right(checkpoint: Checkpoint) -> Checkpoint:
    """Return ``checkpoint`` with logits of which one is right, as training has them; that of a yes becomes two.

    Softmax of 0 and z gives what the sigmoid of z does. A head that decides on several labels keeps its logits.
    """
    if checkpoint.spec.classes != 1:
        return checkpoint if checkpoint.activation == "softmax" else replace(checkpoint, activation="softmax")
    spec = msgspec.structs.replace(checkpoint.spec, classes=2)
    weights = {
        name: torch.cat([torch.zeros_like(tensor), tensor]) if name.startswith("head.") else tensor
        for name, tensor in checkpoint.weights.items()
    }
    labels = outcomes(checkpoint.labels, 1)
    return replace(checkpoint, spec=spec, weights=weights, labels=labels, activation="softmax")


def freeze_backbone(model: nn.Module) -> None:
    """Leave nothing to learn but the head."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))


def freeze_all_but_norms(model: nn.Module) -> None:
    """Leave nothing to learn but LayerNorms and biases: the vectors among the weights of layers."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.ndim == 1 and "." in name)


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
        for batch in progress.track(stream, total=steps, label=f"Features of the {name} images"):
            found[torch.from_numpy(batch.indices)] = backbone(torch.from_numpy(batch.images).to(processes.device)).cpu()
    return processes.total(found)
