"""``edgevit predict``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.text import Text

import edgevit
from edgevit.api.predict import PredictionResult
from edgevit.cli import completion
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath

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
        typer.Option(
            help="Which variant runs.", show_default="the fastest that passed", autocompletion=completion.variants
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 leaves their number to the backend.")] = 0,
) -> Result:
    """Say what is on images; an embedding model gives its features of them."""
    with progress() as bars:
        found = edgevit.predict(
            bundle, images, top=top, threshold=threshold, variant=variant, threads=threads, progress=bars
        )
        bars.note(f"{found.variant} has answered")
    shown = _classes(found) if found.embeddings is None else _features(found.embeddings)
    paired = zip(found.images, shown, strict=True)
    return Result(
        data=found.to_dict(), text=Text("\n\n".join("\n".join([str(image), *lines]) for image, lines in paired))
    )


def _classes(found: PredictionResult) -> Iterator[list[str]]:
    marks = {None: "", True: "  yes", False: "   no"}
    for classes in found.predictions:
        yield [f"{marks[item.decided]}  {item.probability:6.1%}  {item.label}" for item in classes]


def _features(embeddings: NDArray[np.float32]) -> Iterator[list[str]]:
    for features in embeddings:
        first = " ".join(f"{value:.4g}" for value in features[:_SHOWN].tolist())
        size = f"{len(features)} features of length {np.linalg.norm(features):.4g} (all of them: --json)"
        yield [f"  {first} ...", f"  {size}"]
