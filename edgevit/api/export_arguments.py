"""Checks of what ``edgevit.export`` alone is given. Each raises an ``InputError`` that names the argument."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from edgevit.api.arguments import listed, names, number, one_of
from edgevit.brief import in_brief
from edgevit.errors import InputError
from edgevit.models.overrides import Resize
from edgevit.paths import path_given
from edgevit.runtime.arguments import whole_number

_Words = Literal["squash", "pad", "letterbox"]


def strings_given(name: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return ``value``, one string or several; None is none."""
    if value is None:
        return ()
    return names(name, [value] if isinstance(value, str) else value)


def numbers_given(name: str, value: Any) -> tuple[float, ...] | None:  # noqa: ANN401
    """Return ``value``, one number or several; None stays None."""
    if value is None:
        return None
    each = [value] if isinstance(value, Real) else listed(name, value)
    found = [number(name, one, least=-math.inf) for one in each]
    given = tuple(one for one in found if one is not None)
    if not given or len(given) < len(found):
        raise InputError(f"{name} is {in_brief(value)}", remedy=f"give {name} as one number, or one for each channel")
    return given


def image_size_given(value: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """Return ``value``, the side of a square or (height, width), as height and width; None stays None."""
    if value is None:
        return None
    given = value if isinstance(value, (tuple, list)) else (value,)
    sides = [whole_number("image_size", side, least=1) for side in given]
    if len(sides) not in (1, 2):
        raise InputError(f"image_size is {in_brief(value)}", remedy="give one side, or (height, width)")
    return sides[0], sides[-1]


def shape_given(value: Any) -> tuple[int, int, int] | None:  # noqa: ANN401
    """Return ``value``, channels, height and width; None stays None."""
    if value is None:
        return None
    given = listed("input_shape", value) if isinstance(value, Iterable) else ()
    sides = [whole_number("input_shape", side, least=1) for side in given]
    if len(sides) != 3:
        raise InputError(
            f"input_shape is {in_brief(value)}", remedy="give channels (1 or 3), height and width: (3, 224, 224)"
        )
    return sides[0], sides[1], sides[2]


def resize_given(value: Any) -> Resize | None:  # noqa: ANN401
    """Return ``value``, the short edge in pixels or a word; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        found: Resize = one_of("resize", value, _Words)
        return found
    return whole_number("resize", value, least=1)


def heads_given(value: Any) -> int | None:  # noqa: ANN401
    """Return ``value``, a number of attention heads; None stays None."""
    return None if value is None else whole_number("heads", value, least=1)


def labels_given(value: Any) -> Path | tuple[str, ...] | None:  # noqa: ANN401
    """Return ``value``, the path of a file or names; None stays None."""
    if value is None:
        return None
    return Path(path_given("labels", value)) if isinstance(value, (str, os.PathLike)) else names("labels", value)
