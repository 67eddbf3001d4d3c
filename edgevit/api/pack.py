"""``edgevit.pack``."""

import os
from collections.abc import Sequence
from typing import Literal, overload

from edgevit.api.arguments import names, one_of, optional_path, text
from edgevit.api.bundles import opened
from edgevit.brief import in_brief
from edgevit.bundle.store import Existing
from edgevit.errors import InputError
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, flag
from edgevit.stages.pack import PackResult
from edgevit.stages.pack import pack as pack_zip
from edgevit.stages.pack_triton import TritonResult, pack_triton
from edgevit.stages.pack_video import VideoResult, pack_video
from edgevit.video.folder import VideoFormat, VideoOptions

#: What a bundle is packed as: one file for EdgeViT's own runtimes, or a folder for another program.
Format = Literal["zip", "triton", VideoFormat]


@overload
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = ...,
    *,
    format: Literal["zip"] = ...,
    variants: Sequence[str] = ...,
    sign: str | os.PathLike[str] | None = ...,
    name: str | None = ...,
    frame: tuple[int, int] | None = ...,
    overwrite: bool = ...,
    progress: Progress | ProgressCallback | None = ...,
) -> PackResult: ...
@overload
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = ...,
    *,
    format: Format,
    variants: Sequence[str] = ...,
    sign: str | os.PathLike[str] | None = ...,
    name: str | None = ...,
    frame: tuple[int, int] | None = ...,
    overwrite: bool = ...,
    progress: Progress | ProgressCallback | None = ...,
) -> PackResult | TritonResult | VideoResult: ...
def pack(
    bundle: BundleLike,
    output: str | os.PathLike[str] | None = None,
    *,
    format: Format = "zip",  # noqa: A002
    variants: Sequence[str] = (),
    sign: str | os.PathLike[str] | None = None,
    name: str | None = None,
    frame: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> PackResult | TritonResult | VideoResult:
    """Write a bundle, or some of its variants, as one file that ``edgevit.load`` and other runtimes read.

    The file is a plain zip archive whose models are neither compressed nor out of line with pages. The same variants
    give the same bytes. Calibration and report stay behind.

    With ``format="triton"`` it is a folder, a model repository for NVIDIA's Triton Inference Server: a model that runs
    the pack with EdgeViT in Triton's Python backend, and one for each variant that a backend of Triton's own runs.
    With ``"deepstream"`` or ``"dlstreamer"`` it is a folder with one variant for that video pipeline.

    Args:
        bundle: What ``edgevit.export`` made, or another pack.
        output: The file to write, usually NAME.edgevit.zip, or the folder, usually NAME.FORMAT; beside the bundle
            without it.
        format: ``"zip"``, ``"triton"``, ``"deepstream"`` or ``"dlstreamer"``.
        variants: Only these; all without them.
        sign: The file of a private Ed25519 key, in PEM, that signs the pack; ``edgevit.load(trusted_keys=...)`` and
            ``edgevit.verify`` check it.
        name: What clients of Triton call the model; the bundle's name without it.
        frame: Width and height of the camera's frames in pixels, for video pipelines; (1920, 1080) without it.
        overwrite: Replace what ``pack`` has written there already.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        GraphError: if the model cannot be given the form that ``format`` asks for.
        InputError: if ``sign`` is no such key, ``name`` cannot be a model's, or ``format`` is not for such a model.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    one_of("format", format, Format)
    called = text("name", name)
    to = optional_path("output", output)
    chosen = names("variants", variants)
    key = optional_path("sign", sign)
    existing: Existing = "replace" if flag("overwrite", overwrite) else "refuse"
    options = VideoOptions() if frame is None else VideoOptions(frame=_frame(frame))
    shown = progress_to(progress)
    source = opened(bundle)
    if format == "zip":
        _only_for("triton", name=name)
        _only_for("deepstream or dlstreamer", frame=frame)
        return pack_zip(source, to, variants=chosen, key=key, existing=existing, progress=shown)
    if format == "triton":
        _only_for("deepstream or dlstreamer", frame=frame)
        return pack_triton(source, to, variants=chosen, name=called, key=key, existing=existing, progress=shown)
    _only_for("triton", name=name)
    _only_for("zip or triton", sign=sign)
    return pack_video(source, to, format=format, options=options, variants=chosen, existing=existing)


def _only_for(formats: str, **given: object) -> None:
    """Check that nothing is given that only other formats take.

    Raises:
        InputError: if something is.

    """
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} is only for --format {formats}", remedy=f"leave --{name} out")


def _frame(given: object) -> tuple[int, int]:
    """Return the width and height of a frame.

    Raises:
        InputError: if it is not two numbers of pixels.

    """
    if isinstance(given, (tuple, list)) and [type(each) for each in given] == [int, int] and min(given) > 0:
        width, height = given
        return width, height
    raise InputError(
        f"frame is {in_brief(given)}", remedy="give frame as width and height in pixels, such as (1920, 1080)"
    )
