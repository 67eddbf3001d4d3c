"""What a race shows, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgevit.stages.race_result import Entrant, winner_of


def reasons(entrants: Iterable[Entrant]) -> list[str]:
    """Return a line for each variant: its verdict, and why."""
    return [f"{each.name}: {each.word}: {each.reason}" for each in entrants]


def conclusion(entrants: Sequence[Entrant], images: int) -> str:
    """Say who won on so many ``images``."""
    winner = winner_of(entrants)
    if winner is None:
        return "nothing is shown to pass"
    passed = sum(each.word == "passed" for each in entrants)
    return f"{winner} wins: the fastest of {passed} of {len(entrants)} shown to pass on {images} images"
