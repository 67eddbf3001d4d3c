"""``edgevit.validate``."""

import os
from collections.abc import Sequence

from edgevit.api.arguments import names, number, optional_path
from edgevit.api.bundles import opened
from edgevit.api.hosts import OnHosts, on_hosts
from edgevit.api.images import Images, images_of
from edgevit.evaluation.accuracy_details import MOST_FLIPS
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, flag, whole_number
from edgevit.stages.results import ValidationResult
from edgevit.stages.validate import validate as stage


def validate(
    bundle: BundleLike,
    *,
    data: Images,
    labels: Sequence[int | str] | None = None,
    variants: Sequence[str] = (),
    samples: int | None = None,
    max_drop: float | None = None,
    min_cosine: float | None = None,
    min_miou: float | None = None,
    min_delta1: float | None = None,
    min_box_agreement: float | None = None,
    max_abs_rel: float | None = None,
    min_integer_share: float | None = None,
    thumbnails: int = MOST_FLIPS,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    hosts: Sequence[str] = (),
    python: str | None = None,
    keep: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> ValidationResult:
    """Measure the accuracy of every variant of ``bundle`` against float32, and note it there.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or a pack, which is not changed: its path, or a ``Bundle``.
        data: A folder, a CSV file, a built-in name, or an iterable of images: uint8 arrays (H, W, 3), Pillow images,
            paths or bytes.
        labels: One label for each image in a list: a class name or its index. Without labels, variants are only
            compared with float32.
        variants: Measure only these; by default, all.
        samples: Number of images to draw from ``data``; by default, all.
        max_drop: Largest loss of a classifier's top-1 that passes, in points; by default, 0.5.
        min_cosine: Smallest mean cosine with float32's that passes, for an embedding model's features, tokens and
            feature maps; by default, 0.99.
        min_miou: Smallest mean IoU of masks with float32's that passes; by default, 0.95.
        min_delta1: Smallest share of depths within a factor of 1.25 of float32's that passes; by default, 0.98.
        min_box_agreement: Smallest F1 of boxes that match one of float32's (IoU of 0.5, same class) that passes; by
            default, 0.9.
        max_abs_rel: Largest mean relative difference of depths from float32's (AbsRel) that passes; by default, no
            limit.
        min_integer_share: Smallest share of the multiply-adds, in 0..1, that INT8 variants must run in integers to
            pass; by default, no limit.
        thumbnails: Number of small pictures to keep for each variant, of images whose answer changed; 0 keeps none.
        root: Folder that relative paths in a CSV file start from; by default, the folder of the CSV file.
        strict: Stop at the first image that cannot be read; by default, such images are left out.
        hosts: Measure on these devices instead of this machine: USER@HOST, HOST, USER@HOST:PORT, or names from
            ``edgevit devices``. The bundle keeps their figures under their names.
        python: Path of the Python interpreter to use there. By default, an environment is made with what the engines
            need.
        keep: Leave what was sent and installed there for the next run.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        HostError: if the only host cannot be measured on. If one of several cannot, the result says so.
        InputError: if an argument has the wrong type, or a limit means nothing for this model.
        DataError: if images or labels cannot be used.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if no variant can run here.

    """
    given, where = locals(), OnHosts.given(hosts, python, keep=keep)
    share = number("min_integer_share", min_integer_share, least=0, most=1)
    folder, strict, report = optional_path("root", root), flag("strict", strict), progress_to(progress)
    images = images_of(data, "test", labels=labels, root=folder, samples=samples, strict=strict, progress=report)
    kept = whole_number("thumbnails", thumbnails, least=0, most=MOST_FLIPS)
    chosen = names("variants", variants)
    drop, cosine = number("max_drop", max_drop, least=0, most=100), number("min_cosine", min_cosine, least=0, most=1)
    limits = OutputLimits(
        min_miou=number("min_miou", min_miou, least=0, most=1),
        min_delta1=number("min_delta1", min_delta1, least=0, most=1),
        min_box_agreement=number("min_box_agreement", min_box_agreement, least=0, most=1),
        max_abs_rel=number("max_abs_rel", max_abs_rel, least=0),
    )
    if where is not None:
        noted, found = on_hosts("validate", opened(bundle), where, given, images=images, progress=report)
        return ValidationResult(bundle=noted, names=(), data=images.name, min_integer_share=share, hosts=found)
    measured, seen = stage(
        opened(bundle),
        images,
        variants=chosen,
        max_drop=drop,
        min_cosine=cosine,
        limits=limits,
        thumbnails=kept,
        progress=report,
    )
    unreadable = images.unreadable.names
    return ValidationResult(
        bundle=measured, names=seen, data=images.name, unreadable=unreadable, min_integer_share=share
    )
