"""``edgevit.pack``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from edgevit.api.arguments import names, one_of, text
from edgevit.api.bundles import BundleLike, opened
from edgevit.bundle.store import Existing
from edgevit.errors import InputError
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import path_given
from edgevit.stages.pack import PackResult
from edgevit.stages.pack import pack as pack_zip
from edgevit.stages.pack_triton import TritonResult, pack_triton

#: What a bundle is packed as: one file for EdgeViT's own runtimes, or a model repository for Triton.
Format = Literal["zip", "triton"]


@overload
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = ...,
    *,
    format: Literal["zip"] = ...,
    variants: Sequence[str] = ...,
    sign: str | os.PathLike[str] | None = ...,
    name: str | None = ...,
    overwrite: bool = ...,
    progress: Progress | ProgressCallback | None = ...,
) -> PackResult: ...
@overload
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = ...,
    *,
    format: Literal["triton"],
    variants: Sequence[str] = ...,
    sign: str | os.PathLike[str] | None = ...,
    name: str | None = ...,
    overwrite: bool = ...,
    progress: Progress | ProgressCallback | None = ...,
) -> TritonResult: ...
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = None,
    *,
    format: Format = "zip",  # noqa: A002
    variants: Sequence[str] = (),
    sign: str | os.PathLike[str] | None = None,
    name: str | None = None,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> PackResult | TritonResult:
    """Write a bundle, or some of its variants, as one file that ``edgevit.load`` and other runtimes read.

    The file is a plain zip archive whose models are neither compressed nor out of line with pages. The same variants
    give the same bytes. Calibration and report stay behind.

    With ``format="triton"`` it is a folder, a model repository for NVIDIA's Triton Inference Server: a model that runs
    the pack with EdgeViT in Triton's Python backend, and one for each variant that a backend of Triton's own runs.

    Args:
        bundle: What ``edgevit.export`` made, or another pack.
        output: The file to write, usually NAME.edgevit.zip, or the folder, usually NAME.triton; beside the bundle
            without it.
        format: ``"zip"`` or ``"triton"``.
        variants: Only these; all without them.
        sign: The file of a private Ed25519 key, in PEM, that signs the pack; ``edgevit.load(trusted_keys=...)`` and
            ``edgevit.verify`` check it.
        name: What clients of Triton call the model; the bundle's name without it.
        overwrite: Replace what ``pack`` has written there already.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        InputError: if ``sign`` is no such key, or ``name`` cannot be a model's.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    one_of("format", format, Format)
    called = text("name", name)
    source = opened(bundle)
    place = None if output is None else Path(path_given("output", output))
    chosen = names("variants", variants)
    key = None if sign is None else Path(path_given("sign", sign))
    existing: Existing = "replace" if overwrite else "refuse"
    shown = progress_to(progress)
    if format == "triton":
        return pack_triton(source, place, variants=chosen, name=called, key=key, existing=existing, progress=shown)
    if called is not None:
        raise InputError("a pack has no other name than its file's", remedy="leave --name out, or add --format triton")
    return pack_zip(source, place, variants=chosen, key=key, existing=existing, progress=shown)
