"""Opens what a user names as SOURCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.models.labels import read_labels
from edgevit.models.licenses import License
from edgevit.models.origin import WeightsOrigin
from edgevit.models.overrides import Overrides
from edgevit.models.requested import Requests
from edgevit.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgevit.models.zero_shot import Prompts
    from edgevit.stages.export import Exportable

_SUFFIX = ".onnx"
#: What can be said of checkpoints too.
_OF_BOTH = ("image_size", "activation", "labels", *(field.name for field in fields(Overrides)))


def load_source(
    source: str,
    overrides: MetadataOverrides,
    *,
    l2_normalize: bool = False,
    heads: int | None = None,
    raw_weights: bool = False,
    unfinished: bool = False,
    requests: Requests = (),
    templates: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Exportable:
    """Return the model that ``source`` names: an ONNX file, by its suffix, or anything that ``load_checkpoint`` takes.

    ``l2_normalize`` has an embedding model's features scaled to length 1; ``heads``, ``raw_weights`` and
    ``unfinished`` are ``load_checkpoint``'s. ``requests`` are outputs of a checkpoint in place of its logits. Labels of
    a checkpoint are names of its classes, or of those that its text tower makes a classifier of, each in ``templates``.

    Raises:
        InputError: if something is said of a checkpoint, or asked of an ONNX file, that goes with the other alone.
        EdgeViTError: as ``open_onnx`` and ``load_checkpoint`` do.
    """
    if source.endswith(_SUFFIX) and not source.startswith("hf://"):
        if requests:
            raise InputError(
                f"--output {requests[0].kind} goes with checkpoints, and {source} is an ONNX file, which has its own",
                remedy="name outputs of the file with --onnx-output NAME, or leave it out for all of them",
            )
        if raw_weights or unfinished:
            option = "--raw-weights" if raw_weights else "--unfinished"
            raise InputError(
                f"{option} goes with what a training saved, and {source} is an ONNX file", remedy="leave it out"
            )
        if l2_normalize:
            raise InputError(
                f"--l2-normalize goes with checkpoints, and {source} is an ONNX file",
                remedy="leave it out, and divide the features by their length, or export a model that does",
            )
        if heads is not None:
            raise InputError(
                f"--heads goes with checkpoints, and {source} is an ONNX file",
                remedy="leave it out: a graph has its own",
            )
        if templates:
            raise InputError(
                f"--template goes with checkpoints that have a text tower, and {source} is an ONNX file",
                remedy="leave it out",
            )
        return open_onnx(Path(source), source, overrides)
    said = [field.name for field in fields(overrides) if field.name not in _OF_BOTH and getattr(overrides, field.name)]
    if said:
        option = "--onnx-output" if said[0] == "outputs" else f"--{said[0]}"
        raise InputError(
            f"{option} goes with an ONNX file, and {source} is none",
            remedy="leave it out: a checkpoint's is read from the files beside it; or give a file that ends in .onnx",
        )
    from edgevit.models.loading import load_checkpoint  # it brings torch, which a graph does not need

    checkpoint = load_checkpoint(
        source,
        overrides.image_size,
        heads=heads,
        raw_weights=raw_weights,
        unfinished=unfinished,
        activation=overrides.activation,
        images=overrides,
        prompts=_prompts(overrides.labels, templates, progress),
    )
    if l2_normalize:
        checkpoint = checkpoint.normalized()
    if not requests:
        return checkpoint
    from edgevit.models.dense import DenseCheckpoint

    return DenseCheckpoint.of(checkpoint, requests)


def under_license(model: Exportable, said: License) -> Exportable:
    """Return ``model`` under the license that is ``said``, in the place of the one that is named beside its weights."""
    if isinstance(model, OnnxModel):
        return replace(model, **_license_changes(model.origin, model.notes, said))
    from edgevit.models.dense import DenseCheckpoint

    checkpoint = model.checkpoint if isinstance(model, DenseCheckpoint) else model
    checkpoint = replace(checkpoint, **_license_changes(checkpoint.origin, checkpoint.notes, said))
    return replace(model, checkpoint=checkpoint) if isinstance(model, DenseCheckpoint) else checkpoint


def _license_changes(origin: WeightsOrigin, notes: tuple[str, ...], said: License) -> dict[str, Any]:
    before = origin.license
    beside = f"; {before.said_by} says {before.name}" if before is not None and before.name != said.name else ""
    kept = [note for note in notes if note not in origin.notes()]
    origin = replace(origin, license=said)
    note = f"the bundle names {said.name} as the license of the weights, as you say{beside}"
    return {"origin": origin, "notes": (*kept, note, *origin.notes())}


def _prompts(labels: Path | tuple[str, ...] | None, templates: Sequence[str], progress: Progress) -> Prompts | None:
    from edgevit.models.zero_shot import DEFAULT_TEMPLATE, Prompts

    if labels is None:
        if templates:
            raise InputError("--template says how labels are put to the text tower", remedy="give --labels, too")
        return None
    names = read_labels(labels) if isinstance(labels, Path) else labels
    return Prompts(names, tuple(templates) or (DEFAULT_TEMPLATE,), progress)
