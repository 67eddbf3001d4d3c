"""Keeps in a bundle what lies behind the accuracy of its variants, and reads it again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgevit.bundle.manifest import Manifest
from edgevit.bundle.store import Bundle
from edgevit.data.dataset import Dataset
from edgevit.data.thumbnails import is_thumbnail, thumbnail
from edgevit.errors import BundleError, ImageError
from edgevit.evaluation.accuracy_details import FOLDER, MOST_FLIPS, THUMBNAILS, AccuracyDetails
from edgevit.evaluation.details_of_logits import LogitDetails, details_of_logits
from edgevit.evaluation.flips import Flips
from edgevit.files import write_atomically

if TYPE_CHECKING:
    from edgevit.stages.validate import Measurement

_LETTERS = 16  # of a thumbnail's hash, which is its name


@dataclass(frozen=True, slots=True)
class KeptDetails:
    """Details by variant, and the JPEG files of ``THUMBNAILS`` that they name, by their names."""

    details: Mapping[str, AccuracyDetails] = field(default_factory=dict)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


def keep_details(bundle: Bundle, measured: Measurement, *, thumbnails: int = MOST_FLIPS) -> Bundle:
    """Write the details of what was ``measured`` into the bundle, in place of those from before of these variants.

    ``thumbnails`` of the flipped images are kept for each variant at the most. A pack is never changed.

    Raises:
        StorageError: if the disk is full or not writable; the bundle is as it was before.
        BundleError: if another process is changing the bundle.
    """
    if bundle.pack is not None:
        return bundle
    known = read_details(bundle)
    found = {name: _details(bundle.manifest, measured, name, thumbnails) for name in measured.names}
    details = {**known.details, **{name: each.details[name] for name, each in found.items()}}
    pictures = {name: content for each in (known, *found.values()) for name, content in each.thumbnails.items()}
    wanted = {flip.thumbnail for each in details.values() for flip in each.flips}

    def fill(folder: Path) -> Sequence[Path]:
        (folder / THUMBNAILS).mkdir()
        for name, content in pictures.items():
            if name in wanted:
                write_atomically(folder / THUMBNAILS / name, content)
        for name, each in details.items():
            each.save(folder / f"{name}.json")
        return [folder / f"{name}.json" for name in details]

    return bundle.add_extra(FOLDER, fill)


def read_details(bundle: Bundle) -> KeptDetails:
    """Return the details that are of the variants as they are, and as they were measured last.

    Details of files or figures that have been replaced since are left out, and so are those that are damaged, or that
    a later EdgeViT wrote: the figures are in the manifest.
    """
    details = {}
    for variant in bundle.manifest.variants:
        try:
            found = AccuracyDetails.load(bundle.verify_extra(f"{FOLDER}/{variant.name}.json").path)
        except BundleError:
            continue
        current = (variant.files[0].sha256, variant.accuracy.data_sha256 if variant.accuracy else None)
        if found.variant == variant.name and (found.file_sha256, found.data_sha256) == current:
            details[variant.name] = found
    names = {flip.thumbnail for each in details.values() for flip in each.flips if flip.thumbnail is not None}
    return KeptDetails(details, dict(_pictures(bundle, sorted(names))))


def _pictures(bundle: Bundle, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        try:
            content = bundle.verify_extra(f"{FOLDER}/{THUMBNAILS}/{name}").path.read_bytes()
        except (BundleError, OSError):
            continue
        if is_thumbnail(content):
            yield name, content


def _details(manifest: Manifest, measured: Measurement, name: str, thumbnails: int) -> KeptDetails:
    variant = next(each for each in manifest.variants if each.name == name)
    basis = AccuracyDetails(
        variant=name,
        file_sha256=variant.files[0].sha256,
        data_sha256=measured.data_sha256,
        images=measured.images,
        labelled=False,
        steps=measured.steps.get(name),
    )
    if not manifest.classes:
        return KeptDetails({name: basis})
    both = measured.logits[measured.reference], measured.logits[name]
    found = details_of_logits(manifest, *both, measured.labels, measured.dataset.short_name)
    flips, pictures = _with_thumbnails(found.flips, measured.dataset, thumbnails)
    return KeptDetails({name: _filled(basis, replace(found, flips=flips))}, pictures)


def _filled(basis: AccuracyDetails, found: LogitDetails) -> AccuracyDetails:
    classes = found.classes
    return msgspec.structs.replace(
        basis,
        labelled=found.labelled,
        classes=() if classes is None else classes.classes,
        classes_measured=0 if classes is None else classes.measured,
        classes_judged=0 if classes is None else classes.judged,
        shifts=found.shifts,
        flips=found.flips.images,
        flips_total=found.flips.total,
        calibration=found.calibration,
        float32_calibration=found.float32_calibration,
    )


def _with_thumbnails(flips: Flips, dataset: Dataset, most: int) -> tuple[Flips, dict[str, bytes]]:
    pictures: dict[str, bytes] = {}
    images = []
    for flip, place in zip(flips.images, flips.places, strict=True):
        if len(pictures) < most:
            try:
                content = thumbnail(dataset.image(place))
            except ImageError:  # it was there a moment ago
                images.append(flip)
                continue
            name = f"{hashlib.sha256(content).hexdigest()[:_LETTERS]}.jpg"
            pictures[name] = content
            images.append(msgspec.structs.replace(flip, thumbnail=name))
        else:
            images.append(flip)
    return flips._replace(images=tuple(images)), pictures
