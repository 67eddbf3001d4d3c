"""``edgevit.pack_mobile``."""

import os

from edgevit.api.arguments import one_of, optional_path
from edgevit.api.bundles import opened
from edgevit.api.images import Images, images_of
from edgevit.bundle.store import Existing
from edgevit.mobile import MobileFormat
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, flag, whole_number
from edgevit.stages.hand_over_result import HandOverResult

_SAMPLES = 128


def pack_mobile(
    bundle: BundleLike,
    format: MobileFormat,  # noqa: A002
    output: str | os.PathLike[str] | None = None,
    *,
    data: Images | None = None,
    samples: int = _SAMPLES,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> HandOverResult:
    """Write a bundle's model for a phone's engine to a folder, with ``edgevit.json``, which says how to use it.

    It is converted from float32 by the engine's own tools, executed on the golden images where the engine runs here,
    and refused where it answers otherwise. Core ML's is not run: only Apple's systems can.

    Args:
        bundle: What ``edgevit.export`` made, or a pack with the variant float32.
        format: "litert", "executorch", "ncnn" or "coreml".
        output: The folder to write; NAME.FORMAT beside the bundle without it.
        data: Calibration images: the tool's own quantizer then makes INT8, too (Core ML's of weights alone; ncnn's
            comes in no Python package).
        samples: How many of them to draw.
        seed: Draws them.
        root: Folder that the paths in a CSV start from.
        strict: Stop at the first image that cannot be read.
        overwrite: Replace what was handed over there already.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if the bundle is damaged, has no float32 variant, or ``output`` may not be replaced.
        GraphError: if an operator has no form in torch.
        InputError, DataError: if the images cannot be used.
        MissingDependencyError: if the tool is not installed; the remedy is the line to type.
        VerificationError: if the tool fails, or what it made answers otherwise than float32.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    one_of("format", format, MobileFormat)
    from edgevit.stages.pack_mobile import pack_mobile as stage  # with what works on graphs, which a device lacks

    to, folder = optional_path("output", output), optional_path("root", root)
    existing: Existing = "replace" if flag("overwrite", overwrite) else "refuse"
    samples, seed = whole_number("samples", samples, least=1), whole_number("seed", seed, least=0)
    strict, report = flag("strict", strict), progress_to(progress)
    images = None
    if data is not None:
        images = images_of(data, "train", root=folder, samples=samples, seed=seed, strict=strict)
    return stage(opened(bundle), format, to, images=images, existing=existing, progress=report)
