"""``edgevit quantize``: calibrate once, then build the INT8 variant of each target."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.bundle.store import Bundle
from edgevit.data.batches import batches
from edgevit.evaluation.worker import peak_rss_mb
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibrate import calibrate
from edgevit.quantization.plan import make_plan
from edgevit.stages.build import build, variant_name
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

    Raises:
        DataError: if there are no images to calibrate with.
        VerificationError: if a quantized layer would run in float.
    """
    started = time.monotonic()
    bundle = _calibrate(bundle, images, progress)
    names: list[str] = []
    for name, target in targets.items():
        if not _has(bundle, variant_name(target, "float32")):
            bundle = build(bundle, name, target, "float32", progress=progress)
            names.append(variant_name(target, "float32"))
        bundle = build(bundle, name, target, "int8", progress=progress)
        names.append(variant_name(target, "int8"))
    return BuildResult(bundle, tuple(names), time.monotonic() - started, peak_rss_mb())


def _calibrate(bundle: Bundle, images: ImageSource, progress: Progress) -> Bundle:
    model = bundle.verify_files("float32")
    dataset = images.load(progress)
    progress.note(f"Calibrating on {len(dataset)} images of {dataset.name}")
    read = batches(dataset, bundle.manifest.preprocess, batch_size=_BATCH, unreadable=images.unreadable)
    total = -(-len(dataset) // _BATCH)
    table = calibrate(model, (batch.images for batch in read), total=total, progress=progress)
    plan = make_plan(model, table)

    def fill(folder: Path) -> Sequence[Path]:
        files = [folder / "table.npz", folder / "plan.json"]
        table.save(files[0])
        plan.save(files[1])
        return files

    return bundle.add_extra("calibration", fill)


def _has(bundle: Bundle, name: str) -> bool:
    return any(variant.name == name for variant in bundle.manifest.variants)
