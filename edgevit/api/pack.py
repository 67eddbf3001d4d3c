"""``edgevit.pack``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgevit.api.arguments import names
from edgevit.api.bundles import BundleLike, opened
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import path_given
from edgevit.stages.pack import PackResult
from edgevit.stages.pack import pack as stage


def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = None,
    *,
    variants: Sequence[str] = (),
    sign: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> PackResult:
    """Write a bundle, or some of its variants, as one file that ``edgevit.load`` and other runtimes read.

    The file is a plain zip archive whose models are neither compressed nor out of line with pages. The same variants
    give the same bytes. Calibration and report stay behind.

    Args:
        bundle: What ``edgevit.export`` made, or another pack.
        output: The file to write, usually NAME.edgevit.zip; beside the bundle without it.
        variants: Only these; all without them.
        sign: The file of a private Ed25519 key, in PEM, that signs the pack; ``edgevit.load(trusted_keys=...)`` and
            ``edgevit.verify`` check it.
        overwrite: Replace a pack that is there already.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        InputError: if ``sign`` is no such key.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    return stage(
        opened(bundle),
        None if output is None else Path(path_given("output", output)),
        variants=names("variants", variants),
        key=None if sign is None else Path(path_given("sign", sign)),
        existing="replace" if overwrite else "refuse",
        progress=progress_to(progress),
    )
