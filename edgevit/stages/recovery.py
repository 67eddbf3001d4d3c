"""``edgevit train --token-budget``: from a bundle or a checkpoint to a run that does with fewer tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.bundle.store import Bundle
from edgevit.bundle.transaction import is_bundle
from edgevit.errors import EdgeViTError, InputError
from edgevit.models.token_schedule import check_mergeable, check_schedule, even_schedule, share_of_work
from edgevit.progress import SILENT, Progress

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

    checkpoint, dense = teacher_of(request)
    chosen = _schedule(checkpoint, budget, schedule)
    share = share_of_work(checkpoint.spec, chosen)
    progress.note(f"merging {sum(chosen)} of {checkpoint.spec.tokens} tokens leaves {share:.2f} of the multiply-adds")
    return recovery.recover(
        recovery.RecoveryRequest(
            checkpoint=checkpoint,
            schedule=chosen,
            dense=dense,
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


def check_budget(budget: float | None) -> None:
    """Check that ``budget`` is a share that merging tokens can leave.

    Raises:
        InputError: if not.
    """
    if budget is not None and not 0 < budget < 1:
        raise InputError(
            f"the token budget is {budget:g}",
            remedy="give the share of the multiply-adds to keep, between 0 and 1: --token-budget 0.7",
        )


def teacher_of(request: Request) -> tuple[Checkpoint, bool]:
    """Return the model that ``request`` names, from a checkpoint or a bundle, and whether its tokens count.

    They do where it gives them, or features: not where it chooses between classes.

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
        return found, not found.spec.classes
    said = [name for name in ("image_size", "heads") if getattr(request, name) is not None]
    said += ["raw_weights"] * request.raw_weights + ["[images]"] * request.images.changes
    if said:
        raise InputError(
            f"{said[0]} goes with a checkpoint, and {source} is a bundle, which has its own", remedy="leave it out"
        )
    bundle = Bundle.open(source)
    return _of_bundle(bundle), not bundle.manifest.classes


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


def _schedule(checkpoint: Checkpoint, budget: float | None, schedule: tuple[int, ...] | None) -> tuple[int, ...]:
    check_budget(budget)
    if schedule is None:
        if budget is None:
            raise InputError("it is not said how many tokens to merge", remedy="give --token-budget 0.7, or less")
        return even_schedule(checkpoint.spec, budget)
    check_schedule(checkpoint.spec, schedule)
    if not any(schedule):
        raise InputError("token_schedule merges no tokens", remedy="leave it out, and give --token-budget 0.7")
    return schedule
