"""What a run leaves to look at: curves over the epochs, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgevit.files import atomic_path, storage_errors, write_atomically
from edgevit.training.run import EpochMetrics, RunFolder
from edgevit.training.scoring import Score

_NUMBERED = 20  # classes up to which the cells of a matrix have room for their numbers


def draw_curves(folder: RunFolder, metrics: Sequence[EpochMetrics]) -> None:
    """Draw loss and accuracy over the epochs.

    Raises:
        StorageError: if the disk is full or not writable.
    """
    from matplotlib.figure import Figure  # takes a second to import, and only the end of a run draws

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [row.epoch for row in metrics]
    for each, name in zip(axes, ("loss", "accuracy"), strict=True):
        each.plot(epochs, [getattr(row, f"train_{name}") for row in metrics], label="training (as augmented)")
        for part in ("validation", "test"):
            values = [getattr(row, f"{part}_{name}") for row in metrics]
            if any(value is not None for value in values):
                each.plot(epochs, values, label=f"{part} (averaged weights)")
        each.set(xlabel="epoch", ylabel=name)
        each.xaxis.get_major_locator().set_params(integer=True)
        each.grid(alpha=0.3)
        each.legend()
    with storage_errors(folder.curves), atomic_path(folder.curves) as draft:
        figure.savefig(draft, dpi=100)


def write_confusion(folder: RunFolder, score: Score, images: str, labels: Sequence[str]) -> None:
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
    _draw_confusion(folder, score, images, labels)


def _draw_confusion(folder: RunFolder, score: Score, images: str, labels: Sequence[str]) -> None:
    from matplotlib.figure import Figure

    count = len(labels)
    side = min(12.0, 2.5 + 0.5 * count)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = score.confusion / score.confusion.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="is", title=f"top-1 on {images}: {score.accuracy:.2%}")
    if count <= _NUMBERED:
        names = [label if len(label) <= 20 else f"{label[:19]}…" for label in labels]
        # As plain text: a label is not TeX.
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        for row in range(count):
            for column in range(count):
                if score.confusion[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, score.confusion[row, column], ha="center", va="center", color=colour)
    with storage_errors(folder.confusion_chart), atomic_path(folder.confusion_chart) as draft:
        figure.savefig(draft, dpi=100)
