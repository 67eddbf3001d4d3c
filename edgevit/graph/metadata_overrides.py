"""From an ONNX file and what a user says of it to a model that a bundle can be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, GraphError, InputError
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.interface import Interface, WantedOutput, interface_of, refused_output
from edgevit.graph.metadata import noted
from edgevit.graph.onnx_file import OnnxFile, read_onnx, shown, shown_line
from edgevit.graph.output_kinds import kinds_of, misfit_reason
from edgevit.graph.output_labels import with_labels
from edgevit.graph.passes.name_uniquely import names_of
from edgevit.graph.running import ENGINE_ERRORS, run_several
from edgevit.models.config import Configs, read_configs, read_preprocessing, sides
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.labels import labels_of, said_labels
from edgevit.models.origin import weights_origin
from edgevit.models.outputs import LONGEST_NAME, MOST_NUMBERS, Output, dims_of, in_words, width_of
from edgevit.models.overrides import Overrides, overridden
from edgevit.models.preprocessing import describe_overridden, preprocess_of, resized
from edgevit.models.probabilities import activation_of, check_activation
from edgevit.models.spec import GraphSpec, OutputActivation, label_counts, outcomes

_USUAL = Defaults(IMAGENET, 256 / 224)
_USUAL_NAME = "ImageNet's usual way (export --preprocess, or --mean and --std, say otherwise)"
_ANY_SIZE = (224, 224)  # stands in where what follows does not depend on it


@dataclass(frozen=True, slots=True)
class MetadataOverrides(Overrides):
    """What a user says of a source; None leaves it to the files beside it.

    ``labels`` are names of classes, or a file that has them; where there are several outputs, they are of the one that
    is a row of logits. ``outputs`` names those of an ONNX file to use; with ``embedding`` the one gives features, not
    logits. ``activation`` makes probabilities of logits.
    """

    labels: Path | tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    outputs: tuple[WantedOutput, ...] = ()
    embedding: bool = False
    activation: OutputActivation | None = None


@dataclass(frozen=True, slots=True)
class _GraphImages:
    """What the model takes."""

    image_size: tuple[int, int]
    channels: int


def open_onnx(path: Path, source: str, overrides: MetadataOverrides) -> OnnxModel:
    """Return the model in the ONNX file at ``path``; ``source`` is what the user called it.

    How images are prepared and what classes are called is read from ``overrides``, else from what EdgeViT wrote into
    the file, else from config.json, (pre)processor_config.json or open_clip_config.json beside it, else assumed, and
    noted.

    Raises:
        GraphError: if the file is no float32 model from images to numbers of one shape for each.
        CheckpointError: if a config, or the number of its labels, cannot be used.
        DataError: if the preprocessing contradicts itself, or there is not one label for each class.

    """
    file = read_onnx(path)
    own = {entry.key: entry.value for entry in file.model.metadata_props}
    its_outputs = noted(own, "outputs", tuple[Output, ...]) or ()
    face = interface_of(file, overrides.outputs or [WantedOutput(each.name, each.kind) for each in its_outputs])
    beside = read_configs(path.parent)
    preprocess, notes = _preprocess(file, face, overrides, beside, noted(own, "preprocess", Preprocess))
    shapes = _shapes(file, face, preprocess, fixed=face.image_size is not None)
    if len(shapes) == 1 and len(shapes[0]) == 1 and face.outputs[0].kind in (None, "logits", "embedding"):
        face = replace(face, typed=False)  # also where the file does not say how many axes its output has
    typed = _typed(file, face, shapes, its_outputs) if face.typed else ()
    outputs = width_of(typed) or shapes[0][0]
    names = noted(own, "labels", tuple[str, ...])
    embedding = overrides.embedding or face.outputs[0].kind == "embedding" or names == ()
    classes = 0 if embedding or typed else outputs
    _check_embedding(overrides, typed)
    if typed:
        typed, said = with_labels(typed, face.names, file, overrides.labels, overrides.activation, beside.config)
        overrides = replace(overrides, labels=None, activation=None)
        labels: tuple[str, ...] = ()
    else:
        labels, said = _labels(overrides, names, beside, classes, source)
    own_activation = noted(own, "activation", OutputActivation)  # type: ignore[arg-type]
    activation, decided = _activation(face, overrides, beside, own_activation, classes, source)
    spec = GraphSpec(
        image_size=preprocess.size,
        channels=preprocess.channels,
        classes=classes,
        outputs=outputs,
        producer=file.producer,
    )
    kind = "features" if embedding else "logits; --embedding takes them for features"
    used = f"its output '{shown(face.names[0])}' is taken for {outputs} {kind}"
    if typed:
        used = f"{'; '.join(f'output {each.in_words()}' for each in typed)} (--onnx-output NAME=KIND says otherwise)"
    left_out = f"left out its outputs {', '.join(map(shown, face.left_out))}" if face.left_out else ""
    one = "it takes one image at a time: is rewritten to take any number" if face.batch == 1 else ""
    notes = tuple(
        note
        for note in (f"an ONNX file of {file.producer}", *file.notes, used, left_out, one, *notes, *said, *decided)
        if note
    )
    origin = weights_origin((path,), beside.said)
    notes = (*notes, *origin.notes())
    return OnnxModel(file, face, spec, preprocess, labels, source, notes, activation, origin, typed)


def _check_embedding(overrides: MetadataOverrides, typed: tuple[Output, ...]) -> None:
    if overrides.embedding and typed:
        raise InputError(
            f"--embedding says that there is one row of features, and the outputs are {in_words(typed)}",
            remedy=f"name it: --onnx-output {typed[0].name}, or say of each what it is: NAME=embedding",
        )


def _typed(
    file: OnnxFile, face: Interface, shapes: Sequence[tuple[int, ...]], own: tuple[Output, ...]
) -> tuple[Output, ...]:
    """Return what each output is; ``own`` is what EdgeViT wrote into the file."""
    noted_as = {output.name: output for output in own}
    found = []
    said = [wanted.kind or (noted_as[wanted.name].kind if wanted.name in noted_as else None) for wanted in face.outputs]
    called = names_of(face.names)
    for wanted, name, kind, shape in zip(face.outputs, called, kinds_of(face.names, shapes, said), shapes, strict=True):
        problem = misfit_reason(kind, shape)
        if problem is not None:
            raise GraphError(
                f"the output '{shown(wanted.name)}' of {file.path} {problem}",
                remedy=f"give --onnx-output {shown(wanted.name)}=any, or the kind that it is",
            )
        before = noted_as.get(wanted.name)
        if before is not None and before.kind == kind and before.shape == shape:
            found.append(before)
        else:
            original = None if name == wanted.name else shown(wanted.name, LONGEST_NAME) or None
            dims = dims_of(kind, shape)
            found.append(Output(name=name, kind=kind, shape=shape, dims=dims, original_name=original))
    if width_of(found) > MOST_NUMBERS:
        raise GraphError(
            f"{file.path} gives {width_of(found)} numbers for an image, more than {MOST_NUMBERS}",
            remedy="name fewer of its outputs with --onnx-output, or give a smaller --image-size",
        )
    return tuple(found)


def _activation(
    face: Interface,
    overrides: MetadataOverrides,
    beside: Configs,
    own: OutputActivation | None,
    classes: int,
    source: str,
) -> tuple[OutputActivation, tuple[str, ...]]:
    """Return what makes probabilities of the logits: what the file itself does at its end, if it does."""
    if face.activation is None or not classes:
        return activation_of(beside.config, classes, overrides.activation or (own if classes else None), source)
    name = face.activation.capitalize()
    if overrides.activation not in (None, face.activation):
        raise InputError(
            f"{source} ends with a {name}, so that its probabilities are not by {overrides.activation}",
            remedy="leave out --activation",
        )
    check_activation(classes, face.activation, source)
    return face.activation, (f"its last {name} is left to the runtime: the bundle gives the logits in front of it",)


def _preprocess(
    file: OnnxFile, face: Interface, overrides: MetadataOverrides, beside: Configs, own: Preprocess | None
) -> tuple[Preprocess, tuple[str, ...]]:
    said = beside if overrides.preprocess is None else read_preprocessing(overrides.preprocess)
    config = beside.config.vision
    fixed = overrides.image_size or face.image_size
    likely = fixed or sides(config.image_size)
    own = own if overrides.preprocess is None else None
    if likely is None and own is None and not _says_size(said):
        raise GraphError(
            f"{file.path} takes images of any size, and nothing says of which it should",
            remedy="give --image-size, or --preprocess with a file that says it",
        )
    images = _GraphImages(likely or _ANY_SIZE, face.channels or config.num_channels or 3)
    preprocess, notes = (own, ()) if own is not None else preprocess_of(said, _USUAL, _USUAL_NAME, images, overrides)
    if fixed is not None and preprocess.size != fixed:
        notes += (f"its preprocessing makes {_by(preprocess.size)}, it takes {_by(fixed)}: taken as that",)
        preprocess = resized(preprocess, fixed)
    for side, wanted in zip((face.height, face.width), preprocess.size, strict=True):
        if side not in (None, wanted):
            raise GraphError(
                f"{file.path} takes images of {face.height or 'any'}x{face.width or 'any'}, not {_by(preprocess.size)}",
                remedy="leave --image-size out: the size of an ONNX file that fixes it cannot be changed",
            )
    if not overrides.changes:
        return preprocess, notes
    preprocess = overridden(preprocess, overrides)
    return preprocess, (*notes, describe_overridden(preprocess, overrides))


def _says_size(said: Configs) -> bool:
    processor, cfg = said.processor, said.config.pretrained_cfg
    of_processor = processor is not None and any((processor.size, processor.crop_size, processor.pad_size))
    return of_processor or (processor is None and cfg is not None and cfg.input_size is not None)


def _shapes(file: OnnxFile, face: Interface, preprocess: Preprocess, *, fixed: bool) -> list[tuple[int, ...]]:
    """Return the shape of what the model gives for an image at each output: it is asked, for two."""
    shape = (1, preprocess.channels, *preprocess.size)
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    try:
        first, second = run_several(file.path, [image, np.zeros_like(image)], images=face.input, answers=face.names)
    except ENGINE_ERRORS as error:
        advice = "check that it was copied whole, or export it again"
        if face.batch is None:  # so it says, and an exporter may have kept what it was traced with all the same
            advice += "; it may take only as many images at a time as it was traced with"
        raise GraphError(
            f"onnxruntime cannot run {file.path} on an image of {_by(preprocess.size)}: {shown_line(str(error))}",
            remedy=advice if fixed else "give --image-size",
        ) from error
    for name, answer, again in zip(face.names, first, second, strict=True):
        if answer.ndim < 2 or len(answer) != 1 or not answer.size or answer.dtype != np.float32:
            problem = f"is {answer.dtype} {answer.shape} for one image"
        elif not face.typed and answer.ndim != 2:
            problem = f"is {answer.shape} for one image"
        elif answer.shape != again.shape:
            problem = f"is {answer.shape} for one image and {again.shape} for another"
        else:
            continue
        raise refused_output(file, name, problem, (*face.names, *face.left_out))
    return [tuple(map(int, answer.shape[1:])) for answer in first]


def _labels(
    overrides: MetadataOverrides, names: tuple[str, ...] | None, beside: Configs, classes: int, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if overrides.labels is None and names is not None and len(names) in label_counts(classes):
        return outcomes(names, classes), ()
    if overrides.labels is None:
        return labels_of(beside.config, classes, source)
    labels, where = said_labels(overrides.labels)
    if len(labels) not in label_counts(classes):
        raise DataError(
            f"{where} has {len(labels)} labels, the model has {classes} classes",
            remedy="give --labels a file with one label for each class" if classes else "leave out --labels",
        )
    return outcomes(labels, classes), ()


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
