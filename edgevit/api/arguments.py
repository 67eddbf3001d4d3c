"""Checks of what a caller gives, so that a wrong type is named here and not found deep inside a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edgevit.brief import in_brief
from edgevit.data.names import can_be_shown
from edgevit.errors import InputError
from edgevit.likeness import nearest
from edgevit.paths import path_given
from edgevit.recipes import Recipe, checked_recipe, load_recipe
from edgevit.runtime.arguments import word


def number(name: str, value: Any, *, least: float, most: float = math.inf) -> float | None:  # noqa: ANN401
    """Return ``value`` as a float, which is from ``least`` to ``most``; None stays None.

    Raises:
        InputError: if it is no finite number, or out of range.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        found = math.nan
    else:
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
    if not math.isfinite(found):
        raise InputError(f"{name} is {in_brief(value)}, not a finite number", remedy=f"give {name} as a number")
    if not least <= found <= most:
        limits = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise InputError(f"{name} is {in_brief(value)}", remedy=f"give {name} as {limits}")
    return found


def one_of(name: str, value: Any, kind: Any) -> Any:  # noqa: ANN401
    """Return ``value``, which is one of the Literal ``kind``.

    Raises:
        InputError: if it is not.
    """
    known: tuple[str, ...] = get_args(kind)
    if isinstance(value, str) and value in known:
        return value
    remedy = nearest(value, known) if isinstance(value, str) else f"use one of {', '.join(known)}"
    raise InputError(f"{name} is {in_brief(value)}", remedy=remedy)


def text(name: str, value: object) -> str | None:
    """Return ``value``, a string or None.

    Raises:
        InputError: if it is anything else.
    """
    return None if value is None else word(name, value)


def optional_path(name: str, value: object) -> Path | None:
    """Return ``value``, a path or None.

    Raises:
        InputError: if it is anything else.
    """
    return None if value is None else Path(path_given(name, value))


def recipe_given(value: Any) -> Recipe:  # noqa: ANN401
    """Return ``value``, a recipe, its name or the path of its file.

    Raises:
        InputError: if there is none, or something in it is wrong.
    """
    return checked_recipe(value) if isinstance(value, Recipe) else load_recipe(path_given("recipe", value))


def listed(name: str, value: Any) -> Sequence[Any]:  # noqa: ANN401
    """Return ``value``, several things in order, as a sequence.

    Raises:
        InputError: if it is one string, or has no order.
    """
    if not isinstance(value, (list, tuple, np.ndarray)) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise InputError(
            f"{name} is a {type(value).__name__}, which is no list", remedy=f"give {name} as a list, in order"
        )
    return value.tolist() if isinstance(value, np.ndarray) else value


def names(name: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return ``value``, names in order.

    Raises:
        InputError: if it is no list of strings that can be written.
    """
    found = listed(name, value)
    for each in found:
        if not isinstance(each, str) or not each.strip() or not can_be_shown(each):
            raise InputError(f"{name} has {in_brief(each)} in it", remedy=f"give {name} as a list of printable strings")
    return tuple(found)
