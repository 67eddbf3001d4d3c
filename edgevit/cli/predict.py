"""``edgevit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath
from edgevit.progress import SILENT
from edgevit.runtime import Prediction, load

_AT_ONCE = 32


def predict(
    bundle: BundlePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    *,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    variant: Annotated[str | None, typer.Option(help="Which variant runs.", show_default="the fastest")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 leaves their number to the backend.")] = 0,
) -> Result:
    """Say what is on images."""
    parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    with progress() as bars, load(bundle, variant=variant, threads=threads) as model:
        shown = bars if len(parts) > 1 else SILENT
        answers = [
            answer
            for part in shown.track(parts, total=len(parts), label="Predicting")
            for answer in model.predict_batch(part, top=top)
        ]
        name = model.variant.name
    return Result(
        data={
            "variant": name,
            "images": [{"path": path, "predictions": found} for path, found in zip(images, answers, strict=True)],
        },
        text=Text("\n\n".join(_lines(path, found) for path, found in zip(images, answers, strict=True))),
    )


def _lines(path: Path, found: list[Prediction]) -> str:
    return "\n".join([str(path), *(f"  {item.probability:6.1%}  {item.label}" for item in found)])
