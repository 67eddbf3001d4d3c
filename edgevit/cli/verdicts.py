"""What a race shows, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgevit.bundle.manifest import COSTS, LimitEvidence
from edgevit.shell import quoted
from edgevit.stages.race_result import Entrant, winner_of


def reasons(entrants: Iterable[Entrant]) -> list[str]:
    """Return a line for each variant: its verdict, and why."""
    return [f"{each.name}: {each.word}: {each.reason}" for each in entrants]


def conclusion(entrants: Sequence[Entrant], images: int) -> str:
    """Say who won on so many ``images``, and what may yet be faster."""
    winner = winner_of(entrants)
    if winner is None:
        return "nothing is shown to pass"
    passed = sum(each.word == "passed" for each in entrants)
    said = f"{winner} wins: the fastest of {passed} of {len(entrants)} shown to pass on {images} images"
    open_yet = [each.name for each in _not_shown(entrants, winner)]
    return f"{said}; of {', '.join(open_yet)} too little is shown yet" if open_yet else said


def next_step(bundle: Path, entrants: Sequence[Entrant]) -> str:
    """Return what to type next: what would show more of variants that may win, or how to ship the winner."""
    place, winner = quoted(bundle), winner_of(entrants)
    undecided = _not_shown(entrants, winner)
    if winner is not None and not undecided:
        return f"edgevit pack {place} --variant {quoted(winner)}"
    limits = [each for entrant in undecided or entrants for each in entrant.evidence if each.word != "passed"]
    more = _more_evidence(limits)
    if winner is None:
        return more
    return f"{more}; or ship the winner: edgevit pack {place} --variant {quoted(winner)}"


def _more_evidence(limits: Sequence[LimitEvidence]) -> str:
    costs, accuracy = ([each for each in limits if (each.limit in COSTS) is cost] for cost in (True, False))
    unclear = [each.limit for each in costs if each.word == "not shown"]
    if images := max((each.needed or 0 for each in accuracy), default=0):
        return f"race again on {math.ceil(images):,} images or more (--data, --samples)"
    if seconds := max((each.needed or 0 for each in costs), default=0):
        return f"race again with --duration {math.ceil(seconds)}"
    if "energy" in unclear:
        return "name a sensor with --energy-from, or race without a limit on energy"
    if "speed" in unclear:
        return "race again while nothing else runs on this machine"
    if any(each.word == "not shown" for each in accuracy):
        return "race again on more images (--data, --samples)"
    if accuracy:
        return "edgevit quantize with a limit returns layers to float until it is kept"
    return "allow more than that limit, or race for another target"


def _not_shown(entrants: Sequence[Entrant], winner: str | None) -> list[Entrant]:
    """Return those of which too little is shown, but which may yet beat the ``winner``: float32 is no aim by itself."""
    names = [each.name for each in entrants]
    faster = entrants if winner is None else entrants[: names.index(winner)]
    return [
        each
        for each in (*faster, *(one for one in entrants if one.p50_ms is None and one not in faster))
        if each.word == "not shown" and each.precision != "float32"
    ]
