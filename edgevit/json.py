"""JSON from anywhere, into a type: one exception for all that can be wrong with it."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

from edgevit.errors import EdgeViTError

T = TypeVar("T")


@overload
def decode(content: bytes | str, kind: type[T]) -> T: ...
@overload
def decode(content: bytes | str, kind: Any) -> Any: ...  # noqa: ANN401 - a union is no type to a checker
def decode(content: bytes | str, kind: Any) -> Any:
    """Return what ``content`` says.

    Raises:
        ValueError: if it is no JSON, not in UTF-8, nested too deeply, or no ``kind``; the message says where.

    """
    try:
        return msgspec.json.decode(content, type=kind)  # its errors, and UnicodeDecodeError, are ValueErrors
    except (RecursionError, EdgeViTError) as error:  # the latter: the type checks its values itself
        raise ValueError(str(error)) from error
