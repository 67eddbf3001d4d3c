"""A progress that keeps what it is told."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from edgevit.progress import Silent

ItemT = TypeVar("ItemT")


class Notes(Silent):
    """Keeps what was noted, ``said``, and the labels of what was gone through."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.labels: list[str] = []

    def note(self, message: str) -> None:
        """Keep ``message``."""
        self.said.append(message)

    def track(self, items: Iterable[ItemT], *, total: int, label: str) -> Iterator[ItemT]:
        """Give ``items``, and keep ``label``."""
        self.labels.append(label)
        yield from items
