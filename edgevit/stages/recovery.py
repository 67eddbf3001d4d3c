"""``edgevit train --token-budget``: from a bundle or a checkpoint to a run that does with fewer tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.bundle.store import Bundle
from edgevit.bundle.transaction import is_bundle
from edgevit.data.sources import load_dataset
from edgevit.errors import EdgeViTError, InputError
from edgevit.models.token_schedule import check_mergeable, check_schedule
from edgevit.progress import SILENT, Progress
from edgevit.stages.student import job_if_any
from edgevit.stages.student_schedule import float32_of, own_schedule, schedule_budget, schedule_for

# A command that trains loads torch; one that prints a recipe does not.
if TYPE_CHECKING:
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.training.recovery import RecoveryResult
    from edgevit.training.start import Request

#: What ``--teacher`` is called where the model learns from itself with all tokens.
SELF = "self"


def recover(
    request: Request,
    budget: float | None,
    schedule: tuple[int, ...] | None,
    *,
    resume: bool = False,
    progress: Progress = SILENT,
) -> RecoveryResult:
    """Train the model that ``request`` names with merged tokens, in a new run folder or, to ``resume``, in its own.

    The share ``budget`` of the multiply-adds is to be left, or ``schedule`` says how many tokens each block merges.

    Raises:
        InputError: if the budget is no share, the model cannot be trained, or the folder is not new.
        SpecError: if tokens of the model cannot be merged, or not so many.
        DataError: if there are no images.
        TrainingError: if the loss is no longer a number.
    """
    from edgevit.training import recovery
    from edgevit.training.run import RunFolder

    model = model_of(request)
    checkpoint = model.checkpoint
    check_mergeable(checkpoint.spec)
    if schedule is not None:
        check_schedule(checkpoint.spec, schedule)
        if not any(schedule):
            raise InputError("token_schedule merges no tokens", remedy="leave it out, and give --token-budget 0.7")
    elif budget is None:
        raise InputError("it is not said how many tokens to merge", remedy="give --token-budget 0.7, or less")
    if not resume:
        RunFolder(request.folder).check_new()
    with float32_of(checkpoint, model.bundle, progress) as float32:
        chosen = schedule or _schedule(model, budget, float32, request, resume=resume, progress=progress)
        share = schedule_budget(chosen, float32)
    progress.note(
        f"merging {sum(chosen)} of {checkpoint.spec.tokens} tokens ({', '.join(map(str, chosen))}) leaves "
        f"{share:.2f} of the multiply-adds"
    )
    return recovery.recover(
        recovery.RecoveryRequest(
            checkpoint=checkpoint,
            schedule=chosen,
            dense=model.dense,
            budget=share if budget is None else budget,
            data=request.data,
            folder=request.folder,
            recipe=request.recipe,
            workers=request.workers,
            device=request.device,
            kept=request.kept,
        ),
        resume=resume,
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model that can be trained, and the ``bundle`` that it is of; ``dense`` if what it gives are not classes."""

    checkpoint: Checkpoint
    dense: bool
    bundle: Bundle | None = None


def model_of(request: Request) -> Trainable:
    """Return the model that ``request`` names, of a checkpoint or of a bundle.

    Raises:
        InputError: if there is none, or a bundle does not hold the weights of one.
        EdgeViTError: as ``load_checkpoint`` and ``Bundle.open`` do.
    """
    from edgevit.models.loading import load_checkpoint

    source = request.source
    if source is None:
        raise InputError("there is no model to take tokens from", remedy="name a checkpoint or a bundle with --from")
    if not _is_bundle(source):
        found = load_checkpoint(
            source, request.image_size, heads=request.heads, raw_weights=request.raw_weights, images=request.images
        )
        return Trainable(found, dense=not found.spec.classes)
    said = [name for name in ("image_size", "heads") if getattr(request, name) is not None]
    said += ["raw_weights"] * request.raw_weights + ["[images]"] * request.images.changes
    if said:
        raise InputError(
            f"{said[0]} goes with a checkpoint, and {source} is a bundle, which has its own", remedy="leave it out"
        )
    bundle = Bundle.open(source)
    return Trainable(_of_bundle(bundle), dense=not bundle.manifest.classes, bundle=bundle)


def _is_bundle(source: str) -> bool:
    try:
        return is_bundle(Path(source)) or source.endswith((".edgevit", ".evp"))
    except OSError:  # a name that no file can have; what opens it says so
        return False


def _of_bundle(bundle: Bundle) -> Checkpoint:
    from edgevit.graph.module_weights import module_weights
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.loading import load_checkpoint

    manifest = bundle.manifest
    if manifest.spec is None:
        raise InputError(
            f"{bundle.path} was made of an ONNX file: it has a graph, and no weights of a ViT that can be trained",
            remedy="give the checkpoint that the file was exported from, with --from",
        )
    check_mergeable(manifest.spec)
    wanted, source = manifest.provenance.weights_sha256, manifest.provenance.source
    if not manifest.typed_outputs:  # whose file leaves out what they do not need, such as the head
        weights = module_weights(bundle.verify_float32().path, manifest.spec)
        found = Checkpoint(
            manifest.spec,
            weights,
            manifest.preprocess,
            manifest.labels,
            str(bundle.path),
            activation=manifest.activation,
        )
        if found.sha256() == wanted:
            return found
    try:
        named = load_checkpoint(source, manifest.spec.image_size)
    except EdgeViTError:
        named = None
    if named is not None and named.sha256() == wanted:
        return replace(named, preprocess=manifest.preprocess)
    raise InputError(
        f"{bundle.path} does not hold all weights of its model, and {source}, of which it was made, "
        + ("is not here" if named is None else "has other weights"),
        remedy="give the checkpoint that it was made of, with --from",
    )


def _schedule(
    model: Trainable, budget: float | None, float32: Path, request: Request, *, resume: bool, progress: Progress
) -> tuple[int, ...]:
    """Return the schedule of the run to ``resume``, of a variant with this budget, or the one that costs least."""
    assert budget is not None  # noqa: S101 - where there is no schedule
    if resume and (job := job_if_any(request.folder)) is not None and job.token_budget == budget:
        return job.token_schedule
    if (own := own_schedule(model.bundle, budget)) is not None:
        return own
    data = request.data
    images = load_dataset(data.name, split="train", root=data.root, labelled=False, progress=progress)
    return schedule_for(budget, float32, model.checkpoint, model.bundle, images, data.unreadable, progress)
