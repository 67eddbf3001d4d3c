"""From a source to a checkpoint: a built-in model, a training run, a file, a Hugging Face folder, or the Hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.models.canonical import canonical
from edgevit.models.checkpoints import Checkpoint, check_tensors
from edgevit.models.config import read_configs, read_preprocessing
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.derive import check_config, check_open_clip, heads_in, heads_note, spec_of
from edgevit.models.elsewhere import named_elsewhere
from edgevit.models.families import OPEN_CLIP, UnknownFamilyError, identify
from edgevit.models.families.base import Converted, Family, Raw
from edgevit.models.hub import SCHEME, fetch
from edgevit.models.labels import labels_of
from edgevit.models.leftovers import resolved
from edgevit.models.origin import weights_origin
from edgevit.models.overrides import Overrides, overridden
from edgevit.models.preprocessing import describe_overridden, preprocess_of, resized
from edgevit.models.probabilities import activation_of, check_activation
from edgevit.models.resizing import at_image_size
from edgevit.models.rotary import with_rotary
from edgevit.models.sources import Reading, configs_taken, read_source, weight_files
from edgevit.models.spec import BUILTIN, ModelSpec, OutputActivation
from edgevit.models.suffixes import MODELS
from edgevit.models.tokenizer import NAMES
from edgevit.models.zero_shot import Prompts, labels_of_classes, zero_shot

_TIMM_NAME = r"(vit|deit3?|flexivit|naflexvit|samvit|beit\w*|eva\w*|swin\w*)_\w+(\.\w+)?"

_NOTHING = Overrides()


def load_checkpoint(
    source: str,
    image_size: tuple[int, int] | None = None,
    *,
    heads: int | None = None,
    raw_weights: bool = False,
    unfinished: bool = False,
    activation: OutputActivation | None = None,
    images: Overrides = _NOTHING,
    prompts: Prompts | None = None,
) -> Checkpoint:
    """Return the checkpoint that ``source`` names: a built-in model, a RUN, a file, a folder, or hf://owner/name.

    ``image_size`` (height, width) has it interpolated to another resolution than it was trained at. ``heads`` is its
    number of attention heads, for a checkpoint that does not say it. ``raw_weights`` takes those of the last step
    though the file has averaged ones; ``unfinished`` takes a RUN as far as it is. ``activation`` makes probabilities of
    its logits, whatever its config says. ``images`` is what a user says of how images are prepared. ``prompts`` name
    its classes, or those of the classifier that a CLIP's or SigLIP's text tower makes.

    Raises:
        CheckpointError: if there is none, or it cannot be used.
        DataError: if how images are prepared contradicts itself, or is not done.
        SpecError: if its sizes, or ``image_size``, do not fit each other.
        MissingDataError: if it is on the Hub, which cannot be reached.
    """
    checkpoint = _load(
        source,
        Reading(raw_weights, unfinished),
        _Arguments(heads, activation, images, prompts, sized=image_size is not None),
    )
    if image_size is not None:
        checkpoint = at_image_size(checkpoint, image_size)
    if not images.changes:
        return checkpoint
    preprocess = overridden(checkpoint.preprocess, images)
    said = describe_overridden(preprocess, images)
    return replace(checkpoint, preprocess=preprocess, notes=(*checkpoint.notes, said))


def local(source: str, *also: str) -> Path:
    """Return where ``source`` lies on this machine: a file or a folder; of the Hub, ``also`` these files.

    Raises:
        CheckpointError: if there is nothing; the remedy says what looks meant.
        MissingDataError: if it is on the Hub, which cannot be reached.
    """
    path = fetch(source, *also) if source.startswith(SCHEME) else Path(source)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}", remedy=_meant(source))
    return path


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What a user says of a checkpoint that may not say it itself."""

    heads: int | None
    activation: OutputActivation | None
    images: Overrides
    prompts: Prompts | None
    sized: bool = False


def _load(source: str, reading: Reading, said: _Arguments) -> Checkpoint:
    if source in BUILTIN:
        with as_file(files("edgevit.models") / "builtin" / f"{source}.safetensors") as path:
            return _from_path(path, source, reading, said)
    path = local(source, *(() if said.prompts is None else NAMES))
    checkpoint = _from_path(path, source, reading, said)
    files_read = weight_files(path)
    if not files_read:
        return checkpoint
    origin = weights_origin(files_read, read_configs(files_read[0].parent).said)
    return replace(checkpoint, origin=origin, notes=(*checkpoint.notes, *origin.notes()))


def _meant(source: str) -> str:
    if Path(source).suffix in MODELS:
        return "check its path: the name is a file's"
    if close := difflib.get_close_matches(source, BUILTIN, n=1):
        hint = f"did you mean the built-in model '{close[0]}'?"
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and not Path(source).parent.exists():
        return f"if you mean the model on the Hub, write {SCHEME}{source}; if a file, check its path"
    elif re.fullmatch(_TIMM_NAME, source):
        tag = "" if "." in source else ".TAG, with a tag of the weights (https://huggingface.co/timm lists them)"
        return f"'{source}' is timm's name of a model, whose weights are on the Hub: write {SCHEME}timm/{source}{tag}"
    else:
        hint = f"built in: {', '.join(BUILTIN)}"
    return f"give a .safetensors, .pth, .npz or .onnx file, a RUN or Hugging Face folder, or hf://owner/name; {hint}"


def _from_path(path: Path, source: str, reading: Reading, said: _Arguments) -> Checkpoint:
    try:
        raw = read_source(path, source, reading)
    except UnknownFamilyError as error:
        if (named := named_elsewhere(error, path, source)) is None:
            raise
        raise named from error
    if isinstance(raw, Checkpoint):
        if said.prompts is not None and raw.spec.classes:
            raw = replace(raw, labels=labels_of_classes(said.prompts, raw.spec.classes, source))
        elif said.prompts is not None:
            raise CheckpointError(
                f"{source} has no text tower: names of classes cannot become a classifier",
                remedy="leave out --labels; or give a CLIP or SigLIP with its text tower",
            )
        if said.heads not in (None, raw.spec.heads):
            raise CheckpointError(
                f"{source} has {raw.spec.heads} attention heads, not {said.heads}", remedy="leave out --heads"
            )
        check_activation(raw.spec.classes, said.activation, source)
        raw = replace(raw, preprocess=_described(raw, said.images))
        return raw if said.activation is None else replace(raw, activation=said.activation)
    family = identify(list(raw.weights), source)
    beside = configs_taken(path)
    try:
        checkpoint = _assemble(raw, family, said)
        if said.prompts is not None and not checkpoint.spec.classes:
            folder = path if path.is_dir() else path.parent
            checkpoint = zero_shot(checkpoint, raw, folder, said.prompts, said.activation)
    except CheckpointError as error:
        if beside and not str(error.message).startswith("the tensors of"):
            remedy = f"{error.remedy}; if {beside[0]} is another model's, move {path.name} into a folder of its own"
            raise CheckpointError(f"{error.message} ({path.parent / beside[0]})", remedy=remedy) from error
        raise
    note = f"used what lies beside {path.name}: {', '.join(beside)}"
    return replace(checkpoint, notes=(*checkpoint.notes, note)) if beside else checkpoint


def _described(checkpoint: Checkpoint, images: Overrides) -> Preprocess:
    """Return how the images of a model of EdgeViT's own are prepared, or what the user's file says in its place."""
    if images.preprocess is None:
        return checkpoint.preprocess
    said, spec = read_preprocessing(images.preprocess), checkpoint.spec
    preprocess, _ = preprocess_of(said, Defaults(IMAGENET, 256 / 224), "ImageNet's usual way", spec, images)
    return resized(preprocess, spec.image_size)


def _assemble(raw: Raw, family: Family, given: _Arguments) -> Checkpoint:
    """Convert the tensors of a family to a checkpoint, and say what was assumed on the way."""
    names = {id(tensor): f"{raw.prefix}{name}" for name, tensor in raw.weights.items()}
    try:
        found = _with_heads(family.convert(raw), given.heads, raw.name)
        grid = _grid(found, raw)
        tensors, left = resolved(found.weights, raw.beside, raw.name, names)
        weights = canonical(tensors, grid)
        weights = with_rotary(weights, found.rotary, heads_in(found, weights), raw.name)
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
    file = given.images.preprocess
    configs = raw if file is None else read_preprocessing(file)
    preprocess, said = preprocess_of(configs, family.defaults, f"{family.name}'s usual way", spec, given.images)
    labels, also_said = _labels(raw, spec.classes, given.prompts)
    tower = given.prompts is not None and not spec.classes  # the activation is that of the classifier it becomes
    activation, decided = activation_of(raw.config, spec.classes, None if tower else given.activation, raw.name)
    assumed = (*found.notes, *heads_note(found, spec), *said, *also_said, *decided)
    checkpoint = Checkpoint(
        spec,
        weights,
        resized(preprocess, spec.image_size),
        labels,
        raw.name,
        notes=(f"a {family.name}", *raw.notes, *left, *assumed),
        resampling=found.resampling,
        activation=activation,
    )
    # Positions are interpolated once, from those that were trained.
    return checkpoint if given.sized else _fitted(spec, preprocess, checkpoint)


def _labels(raw: Raw, classes: int, prompts: Prompts | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if prompts is None or not classes:
        return labels_of(raw.config, classes, raw.name)
    return labels_of_classes(prompts, classes, raw.name), ()


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
