"""``edgevit quantize``: calibrate once, then build the INT8 variant of each target."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.store import Bundle
from edgevit.data.batches import batches
from edgevit.errors import InputError
from edgevit.evaluation.worker import peak_rss_mb
from edgevit.files import scratch_folder
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.plan import Scheme
from edgevit.quantization.prepare import CalibrationImages, Prepared, prepare
from edgevit.stages.build import CALIBRATION, Compiled, add, compile_variant, variant_name
from edgevit.stages.images import ImageSource
from edgevit.targets import Target

_BATCH = 16


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A bundle with new variants, and what making them took: seconds of wall time, MiB at the most."""

    bundle: Bundle
    names: tuple[str, ...]
    seconds: float
    peak_rss_mb: float


def quantize(
    bundle: Bundle, images: ImageSource, targets: Mapping[str, Target], *, progress: Progress = SILENT
) -> BuildResult:
    """Add an INT8 variant for each of ``targets``, and the float32 one that it will be compared with if it is missing.

    The bundle changes only once all of them are built and checked.

    Raises:
        InputError: if two targets would make the same variant.
        DataError: if there are no images to calibrate with.
        VerificationError: if a quantized layer would run in float; the bundle is as it was.
    """
    started = time.monotonic()
    refuse_rivals(targets)
    with scratch_folder() as scratch:
        calibration = scratch / CALIBRATION
        calibration.mkdir()
        schemes = list(dict.fromkeys(scheme_of(target.dialect) for target in targets.values()))
        prepared = _calibrate(bundle, images, schemes, calibration, progress)
        made = list(_compile(bundle, targets, prepared, scratch, progress))
        bundle = _add_calibration(bundle, calibration)
        for compiled in made:
            bundle = add(bundle, compiled)
    return BuildResult(bundle, tuple(each.name for each in made), time.monotonic() - started, peak_rss_mb())


def refuse_rivals(targets: Mapping[str, Target]) -> None:
    """Check that no two of ``targets`` would make the same variant.

    Raises:
        InputError: if two would.
    """
    names: dict[str, str] = {}
    for name, target in targets.items():
        variant = variant_name(target, "int8")
        if variant in names:
            raise InputError(
                f"targets {names[variant]} and {name} would both make the variant {variant}",
                remedy="give one of them, and make another bundle for the other",
            )
        names[variant] = name


def _compile(
    bundle: Bundle,
    targets: Mapping[str, Target],
    prepared: Mapping[Scheme, Prepared],
    scratch: Path,
    progress: Progress,
) -> Iterator[Compiled]:
    present = {variant.name for variant in bundle.manifest.variants}
    for name, target in targets.items():
        if variant_name(target, "float32") not in present:
            yield compile_variant(bundle, name, target, None, scratch, progress=progress)
        yield compile_variant(bundle, name, target, prepared[scheme_of(target.dialect)], scratch, progress=progress)


def _calibrate(
    bundle: Bundle, images: ImageSource, schemes: Sequence[Scheme], folder: Path, progress: Progress
) -> dict[Scheme, Prepared]:
    """Write the table of ranges, and for each scheme the prepared model and its plan, into ``folder``."""
    model = bundle.verify_files("float32")
    dataset = images.load(progress)
    progress.note(f"Calibrating on {len(dataset)} images of {dataset.name}")

    def read() -> Iterator[NDArray[np.float32]]:
        preprocess = bundle.manifest.preprocess
        for batch in batches(dataset, preprocess, batch_size=_BATCH, unreadable=images.unreadable):
            yield batch.images

    calibration = CalibrationImages(read, -(-len(dataset) // _BATCH), progress)
    table, prepared = prepare(model, calibration, schemes, folder)
    table.save(folder / "table.npz")
    return prepared


def _add_calibration(bundle: Bundle, made: Path) -> Bundle:
    def fill(folder: Path) -> Sequence[Path]:
        return [Path(shutil.copyfile(file, folder / file.name)) for file in sorted(made.iterdir())]

    return bundle.add_extra(made.name, fill)
