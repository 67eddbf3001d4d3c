"""Parses the values that users give to options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from edgevit.data.preprocess import Interpolation
from edgevit.errors import InputError
from edgevit.likeness import nearest
from edgevit.models.overrides import Colours, Overrides, Resize
from edgevit.models.requested import is_request
from edgevit.models.spec import OutputActivation
from edgevit.stages.budgets import TokenBudget, token_budget_given

_LONGEST_NUMBERS = 100


def image_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width of an image size as users write it: 384, or 256x512.

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise InputError(f"'{text}' is no image size", remedy="write one number, or HEIGHTxWIDTH, such as 256x512")
    return int(match[1]), int(match[2] or match[1])


def frame(text: str | None) -> tuple[int, int] | None:
    """Return width and height of a camera's frames, as users write them: 1920x1080.

    Raises:
        InputError: if it is no such text.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise InputError(f"'{text}' is no size of a frame", remedy="write --frame WIDTHxHEIGHT, such as 1920x1080")
    return int(match[1]), int(match[2])


def bundle_and_outputs(given: list[str]) -> tuple[Path, list[str]]:
    """Return the bundle to make, and which outputs it is to have, of what ``--output`` was given.

    Raises:
        InputError: if there is not one path among them.
    """
    paths = [text for text in given if not is_request(text)]
    if len(paths) != 1:
        said = "none" if not paths else " and ".join(paths)
        raise InputError(
            f"-o takes one bundle to make, not {said}",
            remedy="give one folder, -o NAME.edgevit; what a checkpoint is to give stands beside it: -o tokens, "
            "-o blocks=2,5,8,11, -o embedding, -o logits",
        )
    return Path(paths[0]), [text for text in given if is_request(text)]


def onnx_outputs(given: list[str] | None) -> list[str]:
    """Return the outputs of an ONNX file that were named, one by one: several may stand in one text, with commas."""
    return [name for text in given or () for name in text.split(",")]


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers that a user gave to ``option``: some with commas between them, fractions as 1/255 too.

    Raises:
        InputError: if they are none.
    """
    if text is None:
        return None
    try:
        return tuple(float(Fraction(part.strip())) for part in text[:_LONGEST_NUMBERS].split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InputError(
            f"'{text[:_LONGEST_NUMBERS]}' is no number, and no numbers with commas between them",
            remedy=f"write {option} 0.5, or {option} 0.485,0.456,0.406",
        ) from None


def share(option: str, text: str | None) -> float | None:
    """Return the share that a user gave to ``option``: 2%, or 0.02.

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(%?)\s*", text, re.ASCII)
    if match is None:
        raise InputError(f"'{text[:_LONGEST_NUMBERS]}' is no share", remedy=f"write {option} 2%, or {option} 0.02")
    return float(match[1]) / (100 if match[2] else 1)


def token_budget_called(text: str | None) -> TokenBudget | None:
    """Return a token budget as users write it: 0.8, 80%, or auto.

    Raises:
        InputError: if it is neither.
    """
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    try:
        return token_budget_given(float(text.removesuffix("%")) / (100 if text.endswith("%") else 1))
    except ValueError:
        raise InputError(
            f"'{text}' is no token budget",
            remedy="write the share of the multiply-adds to leave, such as 0.8, or auto for the smallest that will do",
        ) from None


def token_budgets_called(texts: Sequence[str] | None) -> list[TokenBudget]:
    """Return token budgets as users write them, each once.

    Raises:
        InputError: if one is none.
    """
    budgets = (token_budget_called(text) for text in texts or ())
    return list(dict.fromkeys(each for each in budgets if each is not None))


def resizing(text: str | None) -> Resize | None:
    """Return what a user wants of the size before the crop: the short edge, in pixels, or a word.

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    words: tuple[Literal["squash", "pad", "letterbox"], ...] = ("squash", "pad", "letterbox")
    for word in words:
        if word == text:
            return word
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise InputError(f"'{text}' is no size", remedy="write --resize 256, or --resize squash, pad or letterbox")
    return int(text)


def crop_share(text: str | None) -> float | None:
    """Return the crop that a user wants, in parts of the short edge before it.

    Raises:
        InputError: if it is no number above 0 and up to 1.
    """
    if text is None:
        return None
    (share, *more) = numbers("--crop", text) or (0.0,)
    if more or not 0 < share <= 1:
        raise InputError(
            f"'{text[:_LONGEST_NUMBERS]}' is no part of the short edge",
            remedy="write --crop 0.875; the size of the crop itself is --image-size",
        )
    return share


def overrides(
    preprocess: Path | None,
    mean: str | None,
    std: str | None,
    resize: str | None,
    crop: str | None,
    interpolation: str | None,
    colours: str | None = None,
) -> Overrides:
    """Return what a user says of how images are prepared.

    Raises:
        InputError: if something is not understood, or --resize and --crop are both given.
    """
    if resize is not None and crop is not None:
        raise InputError("--resize and --crop both say what is cut out", remedy="give one of them")
    return Overrides(
        preprocess=preprocess,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        resize=resizing(resize),
        crop=crop_share(crop),
        interpolation=interpolation_called(interpolation),
        colours=colours_called(colours),
    )


def colours_called(text: str | None) -> Colours | None:
    """Return the order of channels that a user has named.

    Raises:
        InputError: if there is none.
    """
    known: tuple[Colours, ...] = get_args(Colours)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise InputError(f"--colours knows no '{text}'", remedy=nearest(text, known))
    return None


def interpolation_called(text: str | None) -> Interpolation | None:
    """Return the interpolation that a user has named.

    Raises:
        InputError: if there is none.
    """
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise InputError(f"there is no interpolation '{text}'", remedy=nearest(text, known))
    return None


def activation_called(text: str | None) -> OutputActivation | None:
    """Return what makes probabilities of logits, as a user has named it.

    Raises:
        InputError: if there is no such thing.
    """
    known: tuple[OutputActivation, ...] = get_args(OutputActivation)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise InputError(f"--activation knows no '{text}'", remedy=nearest(text, known))
    return None
