"""What goes to a board: variants of a bundle without the figures of this machine, images, and other files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from edgevit.backends import BACKENDS, backend_class
from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.packing import packed
from edgevit.bundle.reading import MANIFEST, encode_manifest, logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.data.dataset import Dataset
from edgevit.data.listing import ENDING, ListedSets, Listing, contents, is_of_pixels
from edgevit.errors import DataError
from edgevit.evaluation.candidates import baseline_of
from edgevit.files import shareable
from edgevit.hosts.sending import Parcel, parcel
from edgevit.progress import Progress

#: The folders on the board, within that of the run.
BUNDLE, IMAGES, CALIBRATION, INPUTS = "bundle.edgevit", "images", "calibration", "inputs"
_LISTING = f"data{ENDING}"
_REFERENCE = "float32"
_CALIBRATION = "calibration/"  # of the bundle's further files


class Shipment(msgspec.Struct, frozen=True):
    """The bundle as it is sent, and everything that is, by the folder that it makes there."""

    manifest: Manifest
    folders: dict[str, tuple[Parcel, ...]]

    @property
    def parcels(self) -> tuple[Parcel, ...]:
        """All files."""
        return tuple(each for parcels in self.folders.values() for each in parcels)


def names_with_references(bundle: Bundle, names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names``, all variants if there are none, and those that they are compared with.

    Raises:
        BundleError: if there is no such variant.
    """
    wanted = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    compared = (baseline_of(each, bundle.manifest.variants) for each in wanted)
    found = {_REFERENCE, *(each.name for each in wanted), *(each.name for each in compared if each is not None)}
    return tuple(each.name for each in bundle.manifest.variants if each.name in found)


def built_there(variants: Sequence[Variant]) -> tuple[tuple[str, str], ...]:
    """Return the targets and precisions of those of ``variants`` whose engine builds for its own device alone."""
    found = []
    for each in variants:
        kind = backend_class(each.backend) if each.backend in BACKENDS else None
        if kind is not None and kind.builds_on_device and not kind.cross_compiles:
            found.append((each.target, str(each.precision)))
    return tuple(dict.fromkeys(found))


def bundle_parcels(
    bundle: Bundle, names: Collection[str], targets: Mapping[str, str], progress: Progress, *, calibration: bool = False
) -> tuple[Manifest, tuple[Parcel, ...]]:
    """Return the manifest that goes to a board, and its files; ``targets`` says what targets are called there.

    With ``calibration`` there is what a build there needs of the calibration here. Each file is checked against its
    SHA-256.

    Raises:
        BundleError: if one is damaged.
    """
    manifest = packed(bundle.manifest, names)
    without = tuple(
        replace(each, accuracy=None, latency=None, evidence=(), target=targets.get(each.target, each.target))
        for each in manifest.variants
    )
    kept = [each for each in bundle.manifest.extra if calibration and logical_path(each).startswith(_CALIBRATION)]
    extra = tuple(replace(each, path=logical_path(each)) for each in kept)
    manifest = replace(manifest, variants=without, extra=extra)
    groups = [bundle.manifest.golden, kept, *(bundle.variant(each.name).files for each in manifest.variants)]
    parcels = [parcel(MANIFEST, encode_manifest(manifest))]
    for files in progress.track(groups, total=len(groups), label="Checking files"):
        found: Sequence[Path | memoryview] = bundle.verified(files)
        parcels += [
            Parcel(logical_path(file), file.sha256, file.bytes, content)
            for file, content in zip(files, found, strict=True)
        ]
    return manifest, tuple(parcels)


def image_parcels(dataset: Dataset, unreadable: Unreadable, progress: Progress) -> tuple[Parcel, ...]:
    """Return the images of ``dataset``, with a list that says what they are, as files of one folder.

    What cannot be read is left out, and noted in ``unreadable``.

    Raises:
        ImageError: if one cannot be read, and ``unreadable`` does not put up with it.
        DataError: if none can be read.
    """
    images: list[Parcel] = []
    indices: list[int] = []
    for index, content in contents(dataset, unreadable, progress):
        found = parcel("", content)
        images.append(replace(found, path=found.sha256))
        indices.append(index)
    if not images:
        raise DataError(f"no image of {dataset.name} can be read", remedy="check the path with --data")
    listing = Listing(
        schema_version=Listing.schema,
        name=shareable(dataset.name),
        class_names=dataset.class_names,
        labels=tuple(int(dataset.labels[index]) for index in indices),
        files=tuple(each.path for each in images),
        descriptions=tuple(_description(dataset, index) for index in indices),
        indexed=dataset.indexed,
        sets=None if dataset.sets is None else ListedSets(names=dataset.sets.names, of_class=dataset.sets.of_class),
        pixels=is_of_pixels(dataset),
    )
    by_content = {each.sha256: each for each in images}
    return (parcel(_LISTING, msgspec.json.encode(listing)), *by_content.values())


def _description(dataset: Dataset, index: int) -> str:
    """Return what an image is called, without the folders of this machine."""
    said = dataset.describe(index)
    return "/".join(Path(said).parts[-2:]) if said.startswith("/") else said


def listing_at(folder: str) -> str:
    """Return what ``--data`` is given on the board for images in ``folder``."""
    return f"{folder}/{_LISTING}"


def backends_of(variants: Sequence[Variant]) -> Iterator[str]:
    """Yield the backends of ``variants``, each once."""
    yield from dict.fromkeys(each.backend for each in variants)
