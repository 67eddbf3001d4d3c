"""Scores weights on images that they did not learn from: loss, accuracy and confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgevit.data.batches import Strict, batches
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError
from edgevit.progress import SILENT, Progress
from edgevit.training.distributed import Processes

_BATCH = 256


@dataclass(frozen=True, slots=True)
class EvaluationScore:
    """Mean cross-entropy, and how often an image of each class (row) was taken for each class (column)."""

    loss: float
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of images, 0..1, whose class was found."""
        return float(np.trace(self.confusion) / self.confusion.sum())


class EvaluationSet(Protocol):
    """Labelled inputs that a model is measured on; ``name`` says which they are."""

    name: str

    def share(self, processes: Processes, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of the inputs, ready for the model, and class indices (B,)."""
        ...


class ImageEvaluationSet:
    """Images, preprocessed as they will be when the model is used; images without a label are left out."""

    def __init__(self, name: str, dataset: Dataset, labels: NDArray[np.int64], preprocess: Preprocess) -> None:
        self.name = name
        self.labels = labels
        self._dataset = dataset
        self._preprocess = preprocess
        if not (labels >= 0).any():
            raise DataError(f"none of the {name} images has a label", remedy="label them, or leave them out")

    def share(self, processes: Processes, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share; threads decode ahead."""
        own = np.flatnonzero(self.labels >= 0)[processes.rank :: processes.count]
        stream = batches(self._dataset, self._preprocess, batch_size=_BATCH, indices=own, unreadable=Strict())
        for batch in progress.track(stream, total=-(-len(own) // _BATCH), label=f"Scoring the {self.name} images"):
            yield torch.from_numpy(batch.images), torch.from_numpy(self.labels[batch.indices])


class FeatureEvaluationSet:
    """What a frozen backbone made of the images of another evaluation set."""

    def __init__(self, name: str, features: Tensor, labels: NDArray[np.int64]) -> None:
        self.name = name
        self.labels = labels
        self._features = features

    def share(self, processes: Processes, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ARG002
        """Yield this process's share; it is over in a moment."""
        own = torch.arange(processes.rank, len(self.labels), processes.count)
        for part in own.split(_BATCH):
            yield self._features[part], torch.from_numpy(self.labels)[part]


def score(
    model: nn.Module, evaluation_set: EvaluationSet, classes: int, processes: Processes, progress: Progress = SILENT
) -> EvaluationScore:
    """Return how ``model``, in evaluation mode, does on ``evaluation_set``, all processes together."""
    model.eval()
    loss = torch.zeros(1, dtype=torch.float64)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    with torch.inference_mode():
        for inputs, labels in evaluation_set.share(processes, progress):
            logits = model(inputs.to(processes.device)).float().cpu()
            loss += functional.cross_entropy(logits.double(), labels, reduction="sum")
            confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    counts = processes.total(confusion).reshape(classes, classes).numpy()
    return EvaluationScore(float(processes.total(loss)) / int(counts.sum()), counts)
