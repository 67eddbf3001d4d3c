"""``edgevit pack --format deepstream`` and ``dlstreamer``: a variant as a video pipeline takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.bundle.store import Bundle, Existing
from edgevit.models.licenses import License
from edgevit.stages.pack import default_path
from edgevit.video.folder import VideoFormat, VideoOptions, write_for_video


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """A folder for a video pipeline: where it is, how large, the variant in it, and what to know before it is used."""

    path: Path
    format: VideoFormat
    bytes: int
    variants: tuple[str, ...]
    license: License | None
    notes: tuple[str, ...]

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit pack --format deepstream --json`` prints."""
        made: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return made


def pack_video(
    bundle: Bundle,
    output: Path | None = None,
    *,
    format: VideoFormat,  # noqa: A002 - as the option is called
    options: VideoOptions,
    variants: Sequence[str] = (),
    existing: Existing = "refuse",
) -> VideoResult:
    """Write one of ``variants`` of ``bundle`` to the folder ``output``, NAME.FORMAT beside the bundle without it.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        GraphError: if the model cannot be given the form that is needed.
        InputError: if the model is of no kind that goes there, or more than one variant is named.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    folder = default_path(bundle.path, f".{format}") if output is None else output
    note, notes, size = write_for_video(bundle, folder, format, options, variants=variants, existing=existing)
    return VideoResult(
        path=folder,
        format=format,
        bytes=size,
        variants=(note.variant,),
        license=note.license,
        notes=tuple(notes),
    )
