"""How long work tells that it goes on; the library is silent, the command line draws a bar on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Where long work reports to."""

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
        """Yield ``items`` and show how many of ``total`` have passed."""
        ...

    def note(self, message: str) -> None:
        """Say one line."""
        ...


class Silent:
    """Reports nothing."""

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:  # noqa: ARG002
        """Yield ``items``."""
        yield from items

    def note(self, message: str) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
