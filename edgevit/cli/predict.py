"""``edgevit predict``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.text import Text

import edgevit
from edgevit.api.predict import PredictionResult
from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, OneVariant
from edgevit.errors import InputError
from edgevit.files import write_atomically
from edgevit.runtime import Prediction

_AT_ONCE = 32
_SHOWN = 6
#: What the images are called in an .npz file, and what its entries are called beside their names.
_IMAGES, _ENTRY = "images", ".npy"


def predict(
    bundle: BundlePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    *,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability above which a label is decided on.", show_default="0.5"),
    ] = None,
    variant: OneVariant = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 leaves their number to the backend.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write what a model with features or other outputs gives into this .npz file.",
            show_default="shapes and ranges are shown alone",
        ),
    ] = None,
) -> Result:
    """Say what is on images; other models give their features or outputs of them."""
    if output is not None:
        _check_output(output, bundle)
    with progress() as bars:
        found = edgevit.predict(
            bundle, images, top=top, threshold=threshold, variant=variant, threads=threads, progress=bars
        )
        bars.note(f"{found.variant} has answered")
    if found.outputs is not None:
        shown = _statistics(found)
    else:
        shown = map(_classes, found.predictions) if found.embeddings is None else _features(found.embeddings)
    if output is not None:
        _write(found, output)
    paired = zip(found.images, shown, strict=True)
    return Result(
        data=found.to_dict(), text=Text("\n\n".join("\n".join([str(image), *lines]) for image, lines in paired))
    )


def _classes(classes: Iterable[Prediction]) -> list[str]:
    marks = {None: "", True: "  yes", False: "   no"}
    return [f"{marks[item.decided]}  {item.probability:6.1%}  {item.label}" for item in classes]


def _statistics(found: PredictionResult) -> Iterator[list[str]]:
    for place in range(len(found.images)):
        lines = []
        for name, given in (found.outputs or {}).items():
            each = given[place]
            shape = "x".join(map(str, each.shape))
            lines.append(f"  {name}: {shape}, {each.min():.4g} to {each.max():.4g}, mean {each.mean():.4g}")
        yield [*lines, *(_classes(found.predictions[place]) if found.predictions else ())]


def _check_output(path: Path, bundle: Path) -> None:
    """Check that what the model in ``bundle`` gives can be written to ``path``, and found again there by its name.

    Raises:
        InputError: if it cannot.
    """
    if path.suffix != ".npz":
        raise InputError(f"{path} is no .npz file", remedy=f"write -o {path}.npz")
    names = [output.name for output in Bundle.open(bundle).manifest.typed_outputs]
    taken = {_IMAGES: "the paths of the images"} | {f"{name}{_ENTRY}": f"the output {name}" for name in names}
    for name in names:
        if "/" in name or "\\" in name:
            raise InputError(
                f"the output {name} cannot be written: in {path} it would be a path",
                remedy="call outputs_batch() of edgevit.load(BUNDLE), or give the output another name: "
                "export the file again",
            )
        if name in taken:
            raise InputError(
                f"the output {name} cannot be written: in {path}, numpy.load takes {name} for {taken[name]}",
                remedy="call outputs_batch() of edgevit.load(BUNDLE), or give the output another name: "
                "export the file again",
            )


def _write(found: PredictionResult, path: Path) -> None:
    """Write each output (N, ...) under its name, and the images' names, into a file that numpy.load reads.

    Raises:
        InputError: if the model gives classes alone.
        StorageError: if the file cannot be written.

    """
    given = dict(found.outputs or {})
    if found.embeddings is not None:
        given = {"embedding": found.embeddings}
    if not given:
        raise InputError("-o is for models that give features or other outputs", remedy="leave -o out, or use --json")
    arrays: dict[str, NDArray[Any]] = {_IMAGES: np.array([str(image) for image in found.images]), **given}
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # numpy.savez has arguments of its own: no output could be "file"
        for name, array in arrays.items():
            with archive.open(f"{name}{_ENTRY}", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    write_atomically(path, content.getvalue())


def _features(embeddings: NDArray[np.float32]) -> Iterator[list[str]]:
    for features in embeddings:
        first = " ".join(f"{value:.4g}" for value in features[:_SHOWN].tolist())
        size = f"{len(features)} features of length {np.linalg.norm(features):.4g} (all of them: --json)"
        yield [f"  {first} ...", f"  {size}"]
