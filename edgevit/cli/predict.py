"""``edgevit predict``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.text import Text

from edgevit.cli import completion
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath
from edgevit.data.pictures import images_in
from edgevit.progress import SILENT
from edgevit.runtime import Model, load

_AT_ONCE = 32
_SHOWN = 6


def predict(
    bundle: BundlePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    *,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability above which a label is decided on.", show_default="0.5"),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Which variant runs.", show_default="the fastest", autocompletion=completion.variants),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 leaves their number to the backend.")] = 0,
) -> Result:
    """Say what is on images; an embedding model gives its features of them."""
    with ExitStack() as stack:
        bars = stack.enter_context(progress())
        images = images_in(images, bars)
        parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
        model = stack.enter_context(load(bundle, variant=variant, threads=threads, progress=bars))
        shown = bars if len(parts) > 1 else SILENT
        answers = [
            answer
            for part in shown.track(parts, total=len(parts), label="Predicting")
            for answer in _answers(model, part, top, threshold)
        ]
        name = model.variant.name
    found = list(zip(images, answers, strict=True))
    return Result(
        data={"variant": name, "images": [{"path": path} | answer.data for path, answer in found]},
        text=Text("\n\n".join("\n".join([str(path), *answer.lines]) for path, answer in found)),
    )


class _Answer(NamedTuple):
    """What a model says to one image: for scripts, and for people."""

    data: dict[str, object]
    lines: list[str]


def _answers(model: Model, images: list[Path], top: int, threshold: float | None) -> Iterator[_Answer]:
    return _classes(model, images, top, threshold) if model.labels else _features(model, images)


def _classes(model: Model, images: list[Path], top: int, threshold: float | None) -> Iterator[_Answer]:
    marks = {None: "", True: "  yes", False: "   no"}
    for found in model.predict_batch(images, top=top, threshold=threshold):
        lines = [f"{marks[item.decided]}  {item.probability:6.1%}  {item.label}" for item in found]
        yield _Answer({"predictions": found}, lines)


def _features(model: Model, images: list[Path]) -> Iterator[_Answer]:
    for features in model.embed_batch(images):
        values = features.tolist()
        first = " ".join(f"{value:.4g}" for value in values[:_SHOWN])
        size = f"{len(values)} features of length {np.linalg.norm(features):.4g} (all of them: --json)"
        yield _Answer({"embedding": values}, [f"  {first} ...", f"  {size}"])
