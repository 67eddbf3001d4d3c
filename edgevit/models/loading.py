"""From a source to a checkpoint: a built-in model, a training run, a file, a Hugging Face folder, or the Hub."""

from __future__ import annotations

import difflib
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.models.canonical import canonical
from edgevit.models.checkpoints import Checkpoint, check_tensors
from edgevit.models.derive import check_config, check_open_clip, heads_note, spec_of
from edgevit.models.families import OPEN_CLIP, identify
from edgevit.models.families.base import Converted, Family, Raw
from edgevit.models.hub import SCHEME, fetch
from edgevit.models.labels import labels_of
from edgevit.models.preprocessing import preprocess_of, resized
from edgevit.models.resizing import at_image_size
from edgevit.models.sources import read_source
from edgevit.models.spec import BUILTIN, ModelSpec


def load_checkpoint(source: str, image_size: tuple[int, int] | None = None, *, heads: int | None = None) -> Checkpoint:
    """Return the checkpoint that ``source`` names: a built-in model, a RUN, a file, a folder, or hf://owner/name.

    ``image_size`` (height, width) has it interpolated to another resolution than it was trained at. ``heads`` is its
    number of attention heads, for a checkpoint that does not say it.

    Raises:
        CheckpointError: if there is none, or it cannot be used.
        SpecError: if its sizes, or ``image_size``, do not fit each other.
        MissingDataError: if it is on the Hub, which cannot be reached.
    """
    checkpoint = _load(source, heads)
    return checkpoint if image_size is None else at_image_size(checkpoint, image_size)


def _load(source: str, heads: int | None) -> Checkpoint:
    if source in BUILTIN:
        with as_file(files("edgevit.models") / "builtin" / f"{source}.safetensors") as path:
            return _from_path(path, source, heads)
    path = fetch(source) if source.startswith(SCHEME) else Path(source)
    if not path.exists():
        close = difflib.get_close_matches(source, BUILTIN, n=1)
        hint = f"did you mean the built-in model '{close[0]}'?" if close else f"built in: {', '.join(BUILTIN)}"
        raise CheckpointError(
            f"there is no checkpoint at {path}",
            remedy=f"give a .safetensors, .pth or .npz file, a RUN or Hugging Face folder, or hf://owner/name; {hint}",
        )
    return _from_path(path, source, heads)


def _from_path(path: Path, source: str, heads: int | None) -> Checkpoint:
    raw, description = read_source(path, source)
    if description is not None:
        if heads not in (None, description.spec.heads):
            raise CheckpointError(
                f"{source} has {description.spec.heads} attention heads, not {heads}", remedy="leave out --heads"
            )
        return Checkpoint(
            description.spec, raw.weights, description.preprocess, description.labels, source
        )  # fmt: skip
    return _assemble(raw, identify(list(raw.weights), source), heads)


def _assemble(raw: Raw, family: Family, heads: int | None = None) -> Checkpoint:
    """Convert the tensors of a family to a checkpoint, and say what was assumed on the way."""
    try:
        found = _with_heads(family.convert(raw), heads, raw.name)
        grid = _grid(found, raw)
        weights = canonical(found.weights, grid)
    except (RuntimeError, IndexError, KeyError) as error:  # of torch, for tensors whose axes or sizes do not fit
        raise CheckpointError(
            f"the tensors of {raw.name} are named as those of a {family.name}, but do not fit together: "
            f"{str(error).splitlines()[0]}",
            remedy="check that the checkpoint was saved and copied whole",
        ) from error
    spec = spec_of(found, weights, raw.name)
    check_tensors(weights, spec, raw.name)
    check_config(raw.config, spec, raw.name)
    if raw.open_clip is not None and family in OPEN_CLIP:
        check_open_clip(raw.open_clip, spec, raw.name)
    preprocess, said = preprocess_of(raw, family.defaults, f"{family.name}'s usual way", spec)
    labels, also_said = labels_of(raw.config, spec.classes, raw.name)
    notes = (f"a {family.name}", *found.notes, *heads_note(found, spec), *said, *also_said)
    checkpoint = Checkpoint(
        spec, weights, resized(preprocess, spec.image_size), labels, raw.name, notes, found.resampling
    )
    return _fitted(spec, preprocess, checkpoint)


def _with_heads(found: Converted, heads: int | None, source: str) -> Converted:
    if heads is None:
        return found
    if found.heads not in (None, heads):
        raise CheckpointError(
            f"{source} has {found.heads} attention heads, as its config or its weights say, not {heads}",
            remedy="leave out --heads",
        )
    return replace(found, heads=heads)


def _fitted(spec: ModelSpec, preprocess: Preprocess, checkpoint: Checkpoint) -> Checkpoint:
    """Give the model the size that its preprocessing makes; if patches do not fit that, the other way round."""
    (height, width), native = preprocess.size, spec.image_size
    if preprocess.size == native:
        return checkpoint
    if height % spec.patch_size[0] or width % spec.patch_size[1]:
        note = f"its preprocessing makes {height}x{width}, which patches do not fill: taken as {native[0]}x{native[1]}"
        return replace(checkpoint, notes=(*checkpoint.notes, note))
    note = f"its preprocessing makes {height}x{width}, its positions are for {native[0]}x{native[1]}: interpolated"
    fitted = at_image_size(checkpoint, preprocess.size)
    return replace(fitted, preprocess=preprocess, notes=(*checkpoint.notes, note))


def _grid(found: Converted, raw: Raw) -> tuple[int, int] | None:
    if found.image_size is None:
        return None
    patch = found.patch[1:] if found.patch else tuple(found.weights["patch_embed.proj.weight"].shape[2:])
    if len(patch) != 2 or min(patch) < 1:
        raise CheckpointError(f"{raw.name} has no patches", remedy="check that the checkpoint was copied whole")
    return found.image_size[0] // patch[0], found.image_size[1] // patch[1]
