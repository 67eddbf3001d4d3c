"""What a short distillation gives back of what merging tokens takes, in float32.

    edgevit train --from SOURCE --token-budget 0.7 --data UNLABELLED -o RUN
    python benchmarks/distillation.py SOURCE RUN --evaluation DATA [--root FOLDER] [--resize PIXELS]

Prints a Markdown table of top-1 and, against the model with all tokens, of agreement and KL divergence: for that model,
for it with the tokens merged that RUN was trained for, and for RUN. With ``--resize`` images get another short edge
before the crop than the model's own. Writes it to benchmarks/results/distillation.md; other tables that are in the file
stay there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from command_line import command_line
from comparison import machine, write_section
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from edgevit.data.batches import Strict, batches
from edgevit.data.dataset import Dataset
from edgevit.data.labels import map_labels
from edgevit.data.sources import load_dataset
from edgevit.json import read
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.overrides import Overrides
from edgevit.models.token_merging import MergingVisionTransformer
from edgevit.report.formats import nats, percent
from edgevit.training.run import RunFolder, TrainJob

OUTPUT = Path("benchmarks/results/distillation.md")
_BATCH = 50


class Measured(NamedTuple):
    """How a model does: shares of images, and nats against the model with all tokens."""

    name: str
    top1: float
    agreement: float
    kl: float


def logits_of(models: Mapping[str, nn.Module], teacher: Checkpoint, dataset: Dataset) -> dict[str, Tensor]:
    """Return the logits (N, classes) of each model for all images of ``dataset``."""
    found: dict[str, list[Tensor]] = {name: [] for name in models}
    stream = batches(dataset, teacher.preprocess, batch_size=_BATCH, unreadable=Strict())
    with torch.inference_mode():
        for batch in track(stream, total=-(-len(dataset) // _BATCH), description="Measuring"):
            for name, model in models.items():
                found[name].append(model(torch.from_numpy(batch.images)))
    return {name: torch.cat(parts) for name, parts in found.items()}


def measured(logits: Mapping[str, Tensor], labels: Tensor) -> list[Measured]:
    """Return how each model does; the first is the one with all tokens."""
    reference = next(iter(logits.values())).log_softmax(dim=1)
    return [
        Measured(
            name,
            float((given.argmax(1) == labels).float().mean()),
            float((given.argmax(1) == reference.argmax(1)).float().mean()),
            float(functional.kl_div(given.log_softmax(1), reference, reduction="batchmean", log_target=True)),
        )
        for name, given in logits.items()
    ]


def trained(run: Path, job: TrainJob) -> str:
    """Return what the run did, in a line."""
    metrics = RunFolder(run).metrics()
    recipe = job.recipe
    return (
        f"Schedule {', '.join(map(str, job.token_schedule))}: {job.token_budget:g} of the multiply-adds. "
        f"Trained: {recipe.mode}, {sum(row.seconds for row in metrics) / 60:.1f} minutes, {len(metrics)} epochs, "
        f"batches of {recipe.batch_size}, learning rate {recipe.learning_rate:g}, "
        f"temperature {recipe.teacher_temperature:g}."
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the checkpoint that the run started from")
    parser.add_argument("run", type=Path, help="the folder that edgevit train wrote")
    parser.add_argument("--evaluation", required=True, help="labelled images, none of which the run has seen")
    parser.add_argument("--root", type=Path, help="the folder that paths in a CSV start from")
    parser.add_argument("--resize", type=int, help="short edge before the crop, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = load_checkpoint(arguments.source, images=Overrides(resize=arguments.resize))
    job = read(arguments.run / "job.json", TrainJob)
    if source.sha256() != job.teacher_sha256:
        sys.exit(f"{arguments.run} did not learn from {arguments.source}")
    dataset = load_dataset(arguments.evaluation, split="test", root=arguments.root)
    teacher = source.model()
    models = {
        "all tokens": teacher,
        "merged": MergingVisionTransformer(teacher, job.token_schedule).eval(),
        "merged and trained": MergingVisionTransformer(
            load_checkpoint(str(arguments.run)).model(), job.token_schedule
        ).eval(),
    }
    labels = torch.from_numpy(map_labels(dataset, source.labels))
    rows = [
        f"| {row.name} | {percent(row.top1, len(dataset))} | {percent(row.agreement, len(dataset))} | {nats(row.kl)} |"
        for row in measured(logits_of(models, source, dataset), labels)
    ]
    title = f"{Path(arguments.source).stem}, {arguments.run.name}, short edge {source.preprocess.resize}"
    command = command_line()
    section = [
        f"## {title}",
        "",
        f"`{command}`. {machine(arguments.threads)}",
        "",
        f"{trained(arguments.run, job)} {len(dataset)} images:",
        "",
        "| | top-1 | agreement | KL (nats) |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    print("\n".join(section))
    write_section(OUTPUT, "Distillation for merged tokens", section)


if __name__ == "__main__":
    main()
