"""How logits become probabilities: as the config says, as the user says, or as is usual, with a note."""

from __future__ import annotations

from edgevit.errors import CheckpointError, InputError
from edgevit.models.config import Config
from edgevit.models.spec import OutputActivation

_SAYS: dict[str, OutputActivation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def activation_of(
    config: Config, classes: int, given: OutputActivation | None, source: str
) -> tuple[OutputActivation, tuple[str, ...]]:
    """Return what makes probabilities of ``classes`` logits, and what was assumed; ``given`` is what the user says.

    ``config`` is that of transformers, whose ``problem_type`` says it; timm's configs have nothing on it.

    Raises:
        InputError: if the user says what means nothing for this model.
        CheckpointError: if the config says that it is no classifier.
    """
    check_activation(classes, given, source)
    if not classes:
        return "softmax", ()
    said = config.problem_type
    if given is not None:
        return given, ()
    if said is not None and said not in _SAYS:
        raise CheckpointError(
            f"config.json of {source} says problem_type={said!r}, which EdgeViT does not implement",
            remedy="if its logits are those of classes, say how: --activation softmax or --activation sigmoid; "
            "values of another kind are taken as they are from an ONNX file, with --embedding",
        )
    if classes > 1:
        return (_SAYS[said] if said else "softmax"), ()
    if said == "multi_label_classification":
        return "sigmoid", ()
    return "sigmoid", ("assumed a binary classifier: the sigmoid of its single logit is its probability",)


def check_activation(classes: int, given: OutputActivation | None, source: str) -> None:
    """Check that the user's ``given`` means something for a model of ``classes`` logits; 0: an embedding model.

    Raises:
        InputError: if it does not.
    """
    if given is not None and not classes:
        raise InputError(
            f"--activation is for classifiers, and {source} gives features", remedy="leave out --activation"
        )
    if given == "softmax" and classes == 1:
        raise InputError(
            f"{source} has a single logit, whose softmax is always 1",
            remedy="leave out --activation: the sigmoid is its probability",
        )
