"""Writes a folder for another program: the model as that program takes it, its labels, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from edgevit import __version__
from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, InputError
from edgevit.files import atomic_folder, bytes_in, sha256_of
from edgevit.json_file import JSONFile
from edgevit.models.licenses import License

VideoFormat = Literal["deepstream", "dlstreamer"]

#: The file that says what wrote a folder, and of what.
SIDECAR = "edgevit.json"


class VideoNote(JSONFile, frozen=True, kw_only=True):
    """What a folder is: which variant of which model it holds, how images become its input, and its files' SHA-256."""

    what: ClassVar[str] = "note on a folder that 'edgevit pack --format' wrote"
    schema: ClassVar[int] = 1
    remedy: ClassVar[str] = "write the folder again with 'edgevit pack'"

    edgevit: str
    format: VideoFormat
    model: str
    variant: str
    preprocess: Preprocess
    labels: tuple[str, ...]
    license: License | None
    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """What is known of the place that a model goes to: width and height of the camera's frames."""

    frame: tuple[int, int] = (1920, 1080)


class FormatWriter(Protocol):
    """What a module of a format has."""

    def chosen(self, manifest: Manifest) -> str:
        """Return the variant that goes there where none is named."""

    def write(self, bundle: Bundle, variant: Variant, folder: Path, options: VideoOptions) -> list[str]:
        """Fill ``folder``; return what the user should know."""


def write_for_video(
    bundle: Bundle,
    folder: Path,
    kind: VideoFormat,
    options: VideoOptions,
    *,
    variants: Sequence[str] = (),
    existing: Existing = "refuse",
) -> tuple[VideoNote, list[str], int]:
    """Write one variant of ``bundle`` to ``folder`` as ``kind`` takes it.

    Return the note on it, what to know, and how many bytes it has.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``folder`` may not be replaced.
        GraphError: if the model cannot be given the form that is needed.
        InputError: if the model is of no kind that goes there, or more than one variant is named.
        StorageError: if the disk is full or not writable; what was at ``folder`` is as it was before.

    """
    _check_place(folder, existing)
    if len(variants) > 1:
        raise InputError(f"one variant goes to {kind}, not {len(variants)}", remedy="name one of them with --variant")
    writer: FormatWriter = import_module(f"edgevit.video.{kind}")
    variant = bundle.variant(variants[0] if variants else writer.chosen(bundle.manifest))
    manifest = bundle.manifest
    with atomic_folder(folder) as draft:
        notes = writer.write(bundle, variant, draft, options)
        note = VideoNote(
            schema_version=VideoNote.schema,
            edgevit=__version__,
            format=kind,
            model=manifest.name,
            variant=variant.name,
            preprocess=manifest.preprocess,
            labels=manifest.labels,
            license=manifest.provenance.license,
            files={path.name: sha256_of(path) for path in sorted(draft.iterdir())},
        )
        note.save(draft / SIDECAR)
        size = bytes_in(draft)  # once it is in its place another process may put its own there
    return note, notes, size


def classifier_labels(manifest: Manifest, kind: str) -> tuple[str, ...]:
    """Return the labels of a classifier that chooses one of several classes, numbers where it has no names.

    Raises:
        InputError: if the model is no such classifier.

    """
    if manifest.classes < 2 or manifest.independent:
        raise InputError(
            f"{kind} takes models that choose one of several classes, which {manifest.name} is not",
            remedy="use the runtime in an app of your own: see docs/video.md",
        )
    return manifest.labels or tuple(map(str, range(manifest.classes)))


def only_variant(manifest: Manifest, fitting: Sequence[str], kind: str, remedy: str) -> str:
    """Return the one of the variants ``fitting`` that is of lower precision, or the only one.

    Raises:
        InputError: if there is none, or a choice, or no variant of this model would be taken.

    """
    classifier_labels(manifest, kind)  # first: the remedy for a missing variant would lead to a second refusal
    precisions = {variant.name: variant.precision for variant in manifest.variants}
    lower = [name for name in fitting if precisions[name] != "float32"]
    wanted = lower or list(fitting)
    if len(wanted) == 1:
        return wanted[0]
    if not wanted:
        raise InputError(f"the bundle has no variant for {kind}", remedy=remedy)
    raise InputError(
        f"the bundle has several variants for {kind}: {', '.join(wanted)}", remedy="name one with --variant"
    )


def _check_place(folder: Path, existing: Existing) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if existing == "refuse":
        raise BundleError(f"{folder} exists already", remedy="add --overwrite, or give another path with -o")
    if not (folder / SIDECAR).is_file():
        raise BundleError(
            f"{folder} exists already, and 'edgevit pack --format' did not write it",
            remedy="give another path with -o",
        )


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a text file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
