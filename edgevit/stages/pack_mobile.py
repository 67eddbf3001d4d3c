"""``edgevit pack --format litert`` and its like: the model for a phone's engine, converted and checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit import __version__
from edgevit.bundle.golden import Golden
from edgevit.bundle.manifest import Manifest
from edgevit.bundle.reading import VerifiedFile, record
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.batches import Unreadable, batches
from edgevit.data.dataset import Dataset
from edgevit.errors import BundleError, VerificationError
from edgevit.files import atomic_folder, copy_tree, scratch_folder
from edgevit.graph.running import run_all_outputs
from edgevit.graph.saving import save
from edgevit.json import JSONError, read
from edgevit.mobile import MobileFormat, Rewrite, process
from edgevit.mobile.converter import Converter
from edgevit.mobile.formats import CONVERTERS
from edgevit.mobile.hand_over import SIDECAR, AnswerCheck, Calibration, HandedModel, HandOver, Input
from edgevit.mobile.messages import ANSWERS, CALIBRATION, IMAGES, MODEL, ConversionJob, ConvertedModel
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.ptq import FloatModel
from edgevit.quantization.rewrites.passes import SMOOTHING, Options, apply_passes
from edgevit.runtime.verification import golden_figures
from edgevit.stages.calibrate import Selection, calibrated
from edgevit.stages.hand_over_result import HandOverResult
from edgevit.stages.images import DataSource
from edgevit.stages.pack import default_path
from edgevit.statistics import agreement, sqnr_db

_BESIDE = 64  # images that were not calibrated with, on which the models are measured
_BATCH = 16
_NUMBERS = 1 << 24  # of answers at the most, where a model gives many for an image


def pack_mobile(
    bundle: Bundle,
    format: MobileFormat,  # noqa: A002
    output: Path | None = None,
    *,
    images: DataSource | None = None,
    rewrites: Collection[Rewrite] | None = None,
    existing: Existing = "refuse",
    progress: Progress = SILENT,
) -> HandOverResult:
    """Write the model of ``bundle`` in ``format`` to the folder ``output``, NAME.FORMAT beside the bundle without it.

    With calibration ``images`` it is there in INT8 as well, where the tool has a quantizer. ``rewrites`` are done
    before, which leave the answers as they are; without them, those that the tool's INT8 gains by. Smoothing takes
    calibration images.

    Raises:
        BundleError: if the bundle is damaged, has no float32 variant, or ``output`` may not be replaced.
        GraphError: if an operator has no form in torch.
        DataError: if the images cannot be used.
        MissingDependencyError: if the tool is not installed.
        VerificationError: if the tool fails, or what it made answers otherwise than the bundle's float32 model.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    converter = CONVERTERS[format]
    path = default_path(bundle.path, f".{format}") if output is None else output
    _check_place(path, existing)
    converter.check_installed()
    _check_float32(bundle)
    float32, golden = bundle.verify_float32(), bundle.golden()
    notes = []
    if images is not None and converter.quantized is None:
        notes.append(f"{converter.title} has no quantizer that a Python package brings: the model is in float32 alone")
    if images is None and converter.calibrates:
        notes.append("without calibration images, --data IMAGES, the model is in float32 alone")
    if not converter.runs:
        notes.append(f"{converter.title} runs on its own devices alone: the model was converted and not run")
    with scratch_folder() as folder:
        beside, calibration, rewritten = _prepare(
            bundle,
            float32,
            images,
            folder,
            progress,
            rewrites=converter.rewrites if rewrites is None else rewrites,
            calibrates=converter.calibrates,
        )
        expected = _write_images(bundle.manifest, golden, beside, float32, folder)
        progress.note(f"Converting with {converter.title}")
        job = ConversionJob(format, 0 if calibration is None else calibration.images)
        made = process.convert_in_process(job, converter, folder)
        models = tuple(_handed(each, converter, bundle.manifest, golden, expected, folder) for each in made.models)
        content = HandOver(
            format=format,
            name=bundle.manifest.name,
            edgevit=__version__,
            tools=made.packages,
            weights_sha256=bundle.manifest.provenance.weights_sha256,
            float32_sha256=float32.sha256,
            license=bundle.manifest.provenance.license,
            rewrites=rewritten,
            calibration=calibration,
            input=Input(shape=_input_shape(bundle.manifest), preprocess=bundle.manifest.preprocess),
            labels=bundle.manifest.labels,
            activation=bundle.manifest.activation,
            outputs=bundle.manifest.typed_outputs,
            models=models,
        )
        with atomic_folder(path) as draft:
            for each in made.models:
                place = draft / each.precision
                place.mkdir()
                copy_tree(folder / each.precision, place)
            encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
            (draft / SIDECAR).write_bytes(encoded + b"\n")
    if images is not None and len(images.unreadable):
        notes.append(f"{len(images.unreadable)} images could not be read and were left out")
    return HandOverResult(path=path, content=content, notes=tuple(notes))


def _check_place(path: Path, existing: Existing) -> None:
    """Check that a folder may be written to ``path``.

    Raises:
        BundleError: if something is there that may not be replaced.

    """
    if not os.path.lexists(path):
        return
    try:
        content = read(path / SIDECAR, HandOver)
    except JSONError:
        known = set()
    else:
        known = {SIDECAR, *(file.path for model in content.models for file in model.files)}
    present = {each.relative_to(path).as_posix() for each in path.rglob("*") if not each.is_dir()}
    if path.is_symlink() or not present <= known:
        raise BundleError(
            f"{path} exists already and has more in it than this command writes", remedy="give another path with -o"
        )
    if existing == "refuse":
        raise BundleError(f"{path} exists already", remedy="add --overwrite, or give another path with -o")


def _check_float32(bundle: Bundle) -> None:
    if all(variant.name != "float32" for variant in bundle.manifest.variants):
        raise BundleError(
            f"{bundle.path} has no variant float32, from which others are converted",
            remedy="give the bundle that this was packed from, or pack float32 too",
        )


def _prepare(
    bundle: Bundle,
    float32: VerifiedFile,
    images: DataSource | None,
    folder: Path,
    progress: Progress,
    *,
    rewrites: Collection[Rewrite],
    calibrates: bool,
) -> tuple[Dataset | None, Calibration | None, tuple[Rewrite, ...]]:
    """Write the graph, rewritten, and the images to calibrate with to ``folder``.

    Return images to judge by, what was calibrated with, and the rewrites.
    """
    source = FloatModel.read(float32.path, float32.sha256, rotate="rotated" in rewrites)
    done: list[Rewrite] = ["rotated"] if source.rotated else []
    beside = calibration = None
    if images is not None:
        dataset, beside = images.load_beside(_BESIDE, progress)
    if images is not None and calibrates:
        selection = Selection.of(images, bundle.manifest.preprocess, progress, dataset=dataset)
        count = _write_calibration(selection, _input_shape(bundle.manifest), folder / CALIBRATION)
        calibration = Calibration(data=dataset.name, images=count, sha256=selection.sha256)
        if "smoothed" in rewrites:
            table = calibrated(bundle, source, selection, progress, keep=False)
            apply_passes(source.model, table, Options("asymmetric", table.images), SMOOTHING)
            done.append("smoothed")
    save(source.model, folder / MODEL)
    return beside, calibration, tuple(done)


def _write_calibration(selection: Selection, shape: tuple[int, ...], path: Path) -> int:
    """Write the images one by one, so that memory does not grow; return how many could be read."""
    count = 0
    images = np.lib.format.open_memmap(path, "w+", np.float32, (len(selection.dataset), *shape[1:]))
    for batch in selection.read():
        images[count] = batch.images[0]
        count += 1
    images.flush()
    return count


def _write_images(
    manifest: Manifest, golden: Golden, beside: Dataset | None, float32: VerifiedFile, folder: Path
) -> NDArray[np.float32]:
    """Write the images to check on, the golden ones first; return float32's answers to the others."""
    prepared = [np.stack([manifest.preprocess(image) for image in golden.images])]
    expected = np.empty((0, manifest.width), np.float32)
    if beside is not None:
        most = max(1, min(_BESIDE, _NUMBERS // manifest.width))
        others = np.concatenate(list(_read(manifest, beside, most)))
        prepared.append(others)
        found = run_all_outputs(float32.path, single_images([others]))
        expected = np.concatenate([each.reshape(len(others), -1) for each in found], axis=1)
    np.save(folder / IMAGES, np.concatenate(prepared))
    return expected


def _read(manifest: Manifest, dataset: Dataset, most: int) -> Iterator[NDArray[np.float32]]:
    left = most
    for batch in batches(dataset, manifest.preprocess, batch_size=_BATCH, unreadable=Unreadable()):
        yield batch.images[:left]
        left -= len(batch.images)
        if left <= 0:
            return


def _input_shape(manifest: Manifest) -> tuple[int, ...]:
    height, width = manifest.preprocess.size
    return 1, manifest.preprocess.channels, height, width


def _handed(
    made: ConvertedModel,
    converter: type[Converter],
    manifest: Manifest,
    golden: Golden,
    expected: NDArray[np.float32],
    folder: Path,
) -> HandedModel:
    files = sorted(path for path in (folder / made.precision).rglob("*") if path.is_file())
    return HandedModel(
        precision=made.precision,
        model=made.model,
        files=tuple(record(path, path.relative_to(folder).as_posix()) for path in files),
        check=_check(made, converter, manifest, golden, expected, folder) if converter.runs else None,
    )


def _check(
    made: ConvertedModel,
    converter: type[Converter],
    manifest: Manifest,
    golden: Golden,
    expected: NDArray[np.float32],
    folder: Path,
) -> AnswerCheck:
    """Compare what a model answers with float32's answers.

    Raises:
        VerificationError: if they differ by more than its precision explains.

    """
    answers = np.load(folder / ANSWERS.format(made.precision))
    own, others = answers[: len(golden.images)], answers[len(golden.images) :]
    figures = golden_figures(
        own,
        golden.logits,
        precision=made.precision,
        classes=manifest.classes,
        independent=manifest.independent,
        outputs=manifest.typed_outputs,
    )
    if figures.problem is not None:
        raise VerificationError(
            f"what {converter.title} made of the model in {made.precision} answers to the golden images otherwise than "
            f"float32 did: {figures.problem}",
            remedy="leave --data out for float32 alone, or give more calibration images"
            if made.precision != "float32"
            else "take another format, and report it with the model's architecture",
        )
    return AnswerCheck(
        tolerance=figures.tolerance,
        golden_images=len(golden.images),
        difference=figures.difference,
        cosine=figures.cosine,
        agreement=figures.agreement,
        images=len(others),
        images_agreement=_agreement(expected, others, manifest),
        images_sqnr_db=sqnr_db(expected, others) if len(others) else None,
    )


def _agreement(expected: NDArray[np.float32], found: NDArray[np.float32], manifest: Manifest) -> float | None:
    if not len(found) or not manifest.classes:
        return None
    return agreement(expected, found, independent=manifest.independent)
