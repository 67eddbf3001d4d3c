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
    output: str | os.PathLike[str] | None = None,
    *,
    format: MobileFormat,  # noqa: A002
    data: Images | None = None,
    samples: int = _SAMPLES,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> HandOverResult:
    """Write a bundle's model for a phone's engine to a folder, with an ``edgevit.json`` that says how to use it.

    The engine's own tools convert the float32 model. If the engine runs here, the result is run on the golden images,
    and refused if its answers differ. Core ML runs on Apple's systems only, so its models are not run.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or a pack with float32: its path, or a ``Bundle``.
        output: The folder to write; by default, NAME.FORMAT beside the bundle.
        format: "litert", "executorch", "ncnn" or "coreml".
        data: Calibration images, as in ``edgevit.quantize``. With them, the tool's own quantizer also makes an INT8
            model; Core ML's quantizes weights only, and ncnn's is in no Python package.
        samples: Number of calibration images.
        seed: Random seed for choosing them.
        root: Folder that relative paths in a CSV file start from; by default, the folder of the CSV file.
        strict: Stop at the first image that cannot be read; by default, such images are left out.
        overwrite: Replace an earlier result at ``output``.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if the bundle is damaged, has no float32 variant, or ``output`` may not be replaced.
        GraphError: if torch has no equivalent of an operator.
        InputError, DataError: if the images cannot be used.
        MissingDependencyError: if the tool is not installed; the remedy is the command that installs it.
        VerificationError: if the tool fails, or the answers of its model differ from float32's.
        StorageError: if the disk is full or read-only; what was at ``output`` stays as it was.

    """
    one_of("format", format, MobileFormat)
    from edgevit.stages.pack_mobile import pack_mobile as stage  # with what works on graphs, which a device lacks

    to, folder = optional_path("output", output), optional_path("root", root)
    existing: Existing = "replace" if flag("overwrite", overwrite) else "refuse"
    samples, seed = whole_number("samples", samples, least=1), whole_number("seed", seed, least=0)
    strict, report = flag("strict", strict), progress_to(progress)
    images = None
    if data is not None:
        images = images_of(data, "train", root=folder, samples=samples, seed=seed, strict=strict, progress=report)
    return stage(opened(bundle), format, to, images=images, existing=existing, progress=report)
