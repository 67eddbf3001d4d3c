"""Labels of one of several outputs of an ONNX file: as the user says, else as config.json beside it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgevit.errors import CheckpointError, DataError, GraphError, InputError
from edgevit.graph.interface import activation_behind
from edgevit.graph.onnx_file import OnnxFile, shown
from edgevit.models.config import Config
from edgevit.models.labels import named_in, said_labels
from edgevit.models.outputs import Output, labelled
from edgevit.models.probabilities import activation_of
from edgevit.models.spec import OutputActivation, label_counts, outcomes


def with_labels(
    outputs: tuple[Output, ...],
    names: Sequence[str],
    file: OnnxFile,
    given: Path | tuple[str, ...] | None,
    activation: OutputActivation | None,
    config: Config,
) -> tuple[tuple[Output, ...], tuple[str, ...]]:
    """Return ``outputs`` with labels for the one row of logits among them, and notes on what was assumed.

    ``names`` are those in ``file``. ``given`` are the user's labels, ``activation`` is what the user says that makes
    probabilities of them. Without, labels that EdgeViT wrote into the file stay, else ``config`` may name them.

    Raises:
        InputError: if labels are given and not one output is such a row, or an activation and nothing has labels.
        DataError: if there is not one label for each class.
        GraphError: if labels are given for probabilities.
        CheckpointError: if the config's labels are not numbered from 0 on.
    """
    notes: tuple[str, ...] = ()
    if given is not None:
        outputs, notes = _by_user(outputs, names, file, given, activation, config)
    elif labelled(outputs) is None:
        outputs, notes = _by_config(outputs, names, file, activation, config)
    elif activation is not None:
        outputs = tuple(_with(each, each.labels, activation) if each.labels else each for each in outputs)
    if activation is not None and labelled(outputs) is None:
        raise InputError(
            f"--activation makes probabilities of classes, and no output of {file.path} has labels: {_kinds(outputs)}",
            remedy="leave it out, or give --labels, too",
        )
    return outputs, notes


def _by_user(
    outputs: tuple[Output, ...],
    names: Sequence[str],
    file: OnnxFile,
    given: Path | tuple[str, ...],
    activation: OutputActivation | None,
    config: Config,
) -> tuple[tuple[Output, ...], tuple[str, ...]]:
    rows = [place for place, each in enumerate(outputs) if each.is_row_of_logits]
    if len(rows) != 1:
        several = f"{len(rows)} outputs are such" if rows else "no output is one"
        other = next((name for name, each in zip(names, outputs, strict=True) if len(each.shape) == 1), None)
        leave = "leave out --labels" + (f", or say that one is: --onnx-output {shown(other)}=logits" if other else "")
        raise InputError(
            f"--labels names the classes of one row of logits, and {several}: {_kinds(outputs)}",
            remedy="say which it is, and of others what they are: --onnx-output NAME=logits --onnx-output OTHER=any"
            if rows
            else leave,
        )
    (place,) = rows
    own = outputs[place]
    labels, where = said_labels(given)
    if len(labels) not in label_counts(own.size):
        raise DataError(
            f"{where} has {len(labels)} labels, the output {own.name} has {own.size} classes",
            remedy="give --labels a file with one label for each class",
        )
    ending, _ = activation_behind(file.model.graph, names[place])
    if ending is not None:
        raise GraphError(
            f"the output '{shown(names[place])}' of {file.path} ends with a {ending.capitalize()}: labels go with the "
            "logits in front of it",
            remedy="export it again without, or leave out --labels",
        )
    found, notes = activation_of(config, own.size, activation, str(file.path))
    return _replaced(outputs, place, _with(own, labels, found)), notes


def _by_config(
    outputs: tuple[Output, ...],
    names: Sequence[str],
    file: OnnxFile,
    activation: OutputActivation | None,
    config: Config,
) -> tuple[tuple[Output, ...], tuple[str, ...]]:
    """Take the config's labels where they certainly are those of the one row of logits; else say why not."""
    rows = [place for place, each in enumerate(outputs) if each.is_row_of_logits]
    labels = named_in(config, str(file.path))
    if len(rows) != 1 or labels is None:
        return outputs, ()
    (place,) = rows
    own = outputs[place]
    ending, _ = activation_behind(file.model.graph, names[place])
    why = None
    if len(labels) not in label_counts(own.size):
        why = f"{own.name} has {own.size} classes"
    elif ending is not None:
        why = f"{own.name} ends with a {ending.capitalize()}"
    if why is not None:
        return outputs, (f"the {len(labels)} labels of config.json are not used: the output {why}",)
    try:
        found, notes = activation_of(config, own.size, activation, str(file.path))
    except CheckpointError as error:
        return outputs, (f"the labels of config.json are not used: {error.message}",)
    return _replaced(outputs, place, _with(own, labels, found)), notes


def _with(output: Output, labels: tuple[str, ...], activation: OutputActivation) -> Output:
    return msgspec.structs.replace(output, labels=outcomes(labels, output.size), activation=activation)


def _replaced(outputs: tuple[Output, ...], place: int, output: Output) -> tuple[Output, ...]:
    return (*outputs[:place], output, *outputs[place + 1 :])


def _kinds(outputs: Sequence[Output]) -> str:
    return ", ".join(f"{output.name} ({output.kind})" for output in outputs)
