"""Progress of long work: the library is silent, the command line draws a bar on stderr."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from edgevit.brief import in_brief
from edgevit.errors import InputError

T = TypeVar("T")


@runtime_checkable
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


class ProgressEvent(NamedTuple):
    """What a progress function is called with.

    For a step, ``message`` names the work, of which ``done`` out of ``total`` is finished. For a note, ``message`` is
    one line to show, such as an assumption that was made; ``done`` and ``total`` are None.
    """

    message: str
    done: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        """Return a line to print."""
        return self.message if self.total is None else f"{self.message}: {self.done}/{self.total}"


ProgressCallback = Callable[[ProgressEvent], object]


class Reporting:
    """Calls a function with every step and every note."""

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
        """Yield ``items`` and report each that has passed."""
        self._report(ProgressEvent(label, 0, total))
        for done, item in enumerate(items, start=1):
            yield item
            self._report(ProgressEvent(label, done, total))

    def note(self, message: str) -> None:
        """Report one line."""
        self._report(ProgressEvent(message))

    def _report(self, event: ProgressEvent) -> None:
        try:
            self._callback(event)
        except StopIteration as error:  # in a generator, as much of the work is, Python makes a RuntimeError of it
            raise InputError(
                "the progress function raised StopIteration, which only ends a loop",
                remedy="raise another exception to stop the work",
            ) from error


def progress_to(given: Progress | ProgressCallback | None) -> Progress:
    """Return where to report to: ``given``, or calls of it; nowhere for None.

    Raises:
        InputError: if it is neither.
    """
    if given is None:
        return SILENT
    if isinstance(given, type) or not (isinstance(given, Progress) or callable(given)):
        raise InputError(f"progress is {in_brief(given)}", remedy="give a function that takes a ProgressEvent")
    return given if isinstance(given, Progress) else Reporting(given)
