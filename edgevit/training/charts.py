"""A run's charts: curves over the epochs, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgevit.files import write_atomically
from edgevit.plots import confusion, curves
from edgevit.plots.curves import Curve, Panel
from edgevit.training.run import EpochMetrics, RunFolder
from edgevit.training.scoring import EvaluationScore


def draw_curves(folder: RunFolder, metrics: Sequence[EpochMetrics], measure: str = "accuracy") -> None:
    """Draw loss and accuracy, or another ``measure`` that is counted as that, over the epochs.

    Raises:
        StorageError: if the disk is full or not writable.
    """
    panels = [Panel(title, tuple(_curves(metrics, name))) for title, name in (("loss", "loss"), (measure, "accuracy"))]
    write_atomically(folder.curves, curves.draw_curves(panels, f"Loss and {measure} over the epochs"))


def _curves(metrics: Sequence[EpochMetrics], name: str) -> Iterator[Curve]:
    yield Curve("training (as augmented)", [getattr(row, f"train_{name}") for row in metrics])
    for part in ("validation", "test"):
        values = [getattr(row, f"{part}_{name}") for row in metrics]
        if any(value is not None for value in values):
            yield Curve(f"{part} (averaged weights)", values)


def write_confusion(folder: RunFolder, score: EvaluationScore, images: str, labels: Sequence[str]) -> None:
    """Write the confusion matrix on the ``images`` (test, validation) as JSON and as a picture.

    Raises:
        StorageError: if the disk is full or not writable.
    """
    rows, columns = score.confusion.sum(axis=1), score.confusion.sum(axis=0)
    right = score.confusion.diagonal()
    content = {
        "images": images,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "classes": [
            {
                "label": label,
                "images": int(row),
                "recall": int(hit) / int(row) if row else None,
                "precision": int(hit) / int(column) if column else None,
            }
            for label, row, column, hit in zip(labels, rows, columns, right, strict=True)
        ],
        "confusion": score.confusion.tolist(),
    }
    write_atomically(folder.confusion, msgspec.json.format(msgspec.json.encode(content)))
    title = f"top-1 on {images}: {score.accuracy:.2%}"
    write_atomically(folder.confusion_chart, confusion.draw_confusion(score.confusion.tolist(), labels, title))
