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
    """Write a bundle, or some of its variants, to one file for ``edgevit.load`` and the other runtimes.

    The file is a plain zip archive. Models are stored uncompressed and page-aligned. The same variants give the same
    bytes. Calibration and report are left out.

    ``format`` can ask for a folder instead: with "triton", a model repository for NVIDIA's Triton Inference Server. Its
    first model runs the pack with EdgeViT in Triton's Python backend; each variant that one of Triton's own backends
    can run is a model of its own. With "deepstream" or "dlstreamer", a folder with one variant for that video pipeline.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or another pack: its path, or a ``Bundle``.
        output: Where to write it. By default, NAME.edgevit.zip or NAME.FORMAT beside the bundle.
        format: "zip", "triton", "deepstream" or "dlstreamer".
        variants: Pack only these; by default, all.
        sign: Path of a private Ed25519 key in PEM, to sign the pack with. ``edgevit.load(trusted_keys=...)`` and
            ``edgevit.verify`` check the signature.
        name: Name of the model for Triton's clients; by default, the bundle's name.
        frame: Size of the camera's frames in pixels, for video pipelines: (width, height); by default, (1920, 1080).
        overwrite: Replace an earlier pack at ``output``.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        GraphError: if the model cannot be given the form that ``format`` needs.
        InputError: if ``sign`` is not such a key, ``name`` cannot name a model, or ``format`` does not suit the model.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or read-only; what was at ``output`` stays as it was.

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
