"""Checks what an application passes to the runtime, so that a wrong type is named before an engine sees it."""

from __future__ import annotations

import io
import operator
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.brief import in_brief
from edgevit.bundle.store import Bundle
from edgevit.data.images import Channels, ImageSource
from edgevit.errors import InputError
from edgevit.paths import path_given
from edgevit.processor import most_threads
from edgevit.progress import SILENT, Progress
from edgevit.runtime.verification import Check
from edgevit.system import memory

#: More than that are no images, or without an end. Those that come one by one may also take half of the free memory.
MOST_IMAGES = 10_000_000
_USUAL_MB = 8192
_FIRST_NOTE_S = 2.0
_MOST_KEYS = 10_000

BundleLike: TypeAlias = Bundle | str | os.PathLike[str]
"""A bundle, or the path of its folder, or of a pack."""


def bundle_place(value: Any) -> Path:  # noqa: ANN401
    """Return where the bundle ``value`` is, which is a ``Bundle`` or a path.

    Raises:
        InputError: if it is neither.

    """
    if isinstance(value, Bundle):
        return value.path
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(
            f"bundle is {in_brief(value)}, not a bundle", remedy="give bundle as a path, or as an edgevit.Bundle"
        )
    return Path(path_given("bundle", value))


def whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> int:  # noqa: ANN401
    """Return ``value`` as an int, which is at least ``least`` and at most ``most``; a float may be one if it is whole.

    Raises:
        InputError: if it is none; the message calls it ``name``.

    """
    try:
        number = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InputError(f"{name} is {in_brief(value)}, not a whole number", remedy=f"give {name} as an int")
    if number < least:
        raise InputError(f"{name} is {in_brief(number)}, less than {least}", remedy=f"give {name} as {least} or more")
    if most is not None and number > most:
        raise InputError(f"{name} is {in_brief(number)}, more than {most}", remedy=f"give {name} as {most} or fewer")
    return number


def flag(name: str, value: Any) -> bool:  # noqa: ANN401
    """Return ``value``, a bool: "no" and other text would count as yes.

    Raises:
        InputError: if it is none.

    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} is {in_brief(value)}", remedy=f"give {name} as True or False")
    return bool(value)


def word(name: str, value: Any) -> str:  # noqa: ANN401
    """Return ``value``, a string.

    Raises:
        InputError: if it is none.

    """
    if not isinstance(value, str):
        raise InputError(f"{name} is {in_brief(value)}, not a string", remedy=f"give {name} as a string")
    return value


def threads_given(value: Any) -> int:  # noqa: ANN401
    """Return ``value``, a number of threads, as an int.

    Raises:
        InputError: if it is none, or more than an engine takes.

    """
    number = whole_number("threads", value, least=0)
    if number > most_threads():
        raise InputError(
            f"threads is {in_brief(number)}, more than {most_threads()}",
            remedy="give threads as 0, or as many as there are cores",
        )
    return number


def channels_given(value: Any) -> Channels:  # noqa: ANN401
    """Return ``value``, the order of an array's channels.

    Raises:
        InputError: if it is none of ``Channels``.

    """
    orders: tuple[Channels, ...] = get_args(Channels)
    for order in orders:
        if isinstance(value, str) and order == value:
            return order
    raise InputError(f"channels is {in_brief(value)}", remedy="write channels='rgb', or channels='bgr'")


def keys_given(value: Any) -> list[Any] | None:  # noqa: ANN401
    """Return ``value``, the trusted keys, as a list; None for None. What each is, is found out when it is read.

    Raises:
        InputError: if they are one key, or no sequence.

    """
    if value is None:
        return None
    if isinstance(value, (str, bytes, os.PathLike)) or not _iterates(value):
        raise InputError("trusted_keys is no list of keys", remedy="write trusted_keys=['public.pem']")
    keys = list(islice(value, _MOST_KEYS + 1))
    if len(keys) > _MOST_KEYS:
        raise InputError(f"there are more than {_MOST_KEYS} trusted_keys", remedy="give those that sign your bundles")
    return keys


def name_of_service(value: str) -> str:
    """Return ``value``, what clients call a model, which is a part of addresses and the name of a folder.

    Raises:
        InputError: if it cannot be.

    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", value):
        raise InputError(
            f"'{value}' cannot be part of an address", remedy="name the model with --name, such as --name vit"
        )
    return value


def kind_of_check(value: Any) -> Check:  # noqa: ANN401
    """Return ``value``, what is checked when a bundle is loaded.

    Raises:
        InputError: if it is none of ``Check``.

    """
    kinds: tuple[Check, ...] = get_args(Check)
    for kind in kinds:
        if isinstance(value, str) and kind == value:
            return kind
    raise InputError(f"check is {in_brief(value)}", remedy=f"give check as {' or '.join(map(repr, kinds))}")


def settings_given(value: Any) -> dict[str, str]:  # noqa: ANN401
    """Return ``value``, the settings for a backend; None is none.

    Raises:
        InputError: if it is no mapping of names to strings.

    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for item in value.items() for part in item):
        raise InputError(
            f"settings are {in_brief(value)}, not names with strings", remedy="give settings such as {'CACHE': 'on'}"
        )
    return dict(value)


def images_given(value: Any, progress: Progress = SILENT) -> Sequence[ImageSource]:  # noqa: ANN401
    """Return ``value``, several images, as a sequence; a generator is run, and ``progress`` told where that takes long.

    Raises:
        InputError: if it is one image, or nothing that holds several, or they are too many, as without an end.

    """
    if is_one_image(value) or isinstance(value, Mapping) or not _iterates(value):
        raise InputError(
            f"images are a {type(value).__name__}, not several images",
            remedy="give images as a list, or call predict() or embed() for one",
        )
    if isinstance(value, (Sequence, np.ndarray)):
        if _count(value) > MOST_IMAGES:
            raise _too_many(f"there are more than {MOST_IMAGES} images")
        return list(value) if isinstance(value, (np.ndarray, deque)) else value  # a deque may change meanwhile
    found: list[ImageSource] = []
    most, size = _memory_for_images(), 0
    began, note_s = time.monotonic(), _FIRST_NOTE_S
    for image in value:
        found.append(image)
        size += _bytes_of(image)
        if size > most or len(found) > MOST_IMAGES:
            raise _too_many(f"the images have no end, or need most of the memory: {len(found)} were read")
        if time.monotonic() - began > note_s:
            progress.note(f"Reading images that come one by one: {len(found):,} so far, {size / 1e6:,.0f} MB")
            note_s = 2 * (time.monotonic() - began)  # few lines, however long it takes
    return found


def _count(value: Sequence[Any] | NDArray[Any]) -> int:
    try:
        return len(value)
    except OverflowError:  # range(10**30)
        return sys.maxsize


def _memory_for_images() -> int:
    """Return how many bytes images may take that come one by one."""
    available = memory().available_mb
    return (_USUAL_MB if available is None else available // 2) << 20


def _bytes_of(image: object) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height * len(image.getbands())
    size = getattr(image, "nbytes", 0)  # of an array or a tensor; of something else it may be anything
    return max(size if isinstance(size, int) else 0, sys.getsizeof(image, 0))


def _too_many(message: str) -> InputError:
    return InputError(
        message, remedy="give a folder, a list, or as many as are needed: list(itertools.islice(images, 1000))"
    )


def _iterates(value: Any) -> bool:  # noqa: ANN401
    """Return whether ``value`` can be iterated: arrays without dimensions only look so."""
    return isinstance(value, Iterable) and not (isinstance(value, np.ndarray) and value.ndim == 0)


def is_one_image(value: Any) -> bool:  # noqa: ANN401
    """Return whether ``value`` is one image by its kind: path, bytes, stream, Pillow image, array of one."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, io.IOBase, Image.Image)
    return isinstance(value, one) or _is_frame(value)


def _is_frame(value: Any) -> bool:  # noqa: ANN401
    """Return whether ``value`` is an array of one image, whose rows are none."""
    return isinstance(value, np.ndarray) and (value.ndim < 3 or (value.ndim == 3 and value.shape[2] in (1, 3, 4)))
