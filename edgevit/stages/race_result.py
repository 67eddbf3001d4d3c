"""What a race of variants shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.bundle.manifest import LimitEvidence, LimitOutcome, Precision
from edgevit.bundle.store import Bundle
from edgevit.stages.host_result import HostResult, all_passed, of_hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An image that float32 and a variant answer otherwise, with both answers, and the right one where it is known."""

    image: str
    float32: str
    variant: str
    label: str | None = None


def word_of(evidence: Iterable[LimitEvidence]) -> LimitOutcome:
    """Return the verdict on a variant: failed if one limit is missed, else not shown if one is not, else passed."""
    words = {each.word for each in evidence}
    return "failed" if "failed" in words else "not shown" if "not shown" in words else "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A variant in a race: what is shown of each limit, milliseconds for a batch, and answers that are not float32's.

    ``flips`` are the first hundred of these, of images that float32 is sure of.
    """

    name: str
    precision: Precision
    p50_ms: float | None
    evidence: tuple[LimitEvidence, ...]
    flips: tuple[Flip, ...] = ()

    __repr__ = printed

    @property
    def word(self) -> LimitOutcome:
        """The verdict; see ``word_of``."""
        return word_of(self.evidence)

    @property
    def reason(self) -> str:
        """Why the verdict is as it is."""
        return "; ".join(each.reason for each in self.evidence if each.word == self.word) or "there is no limit for it"


def winner_of(entrants: Iterable[Entrant]) -> str | None:
    """Return who won of ``entrants``, the fastest first: the fastest that passed; None if nothing did."""
    return next((each.name for each in entrants if each.word == "passed" and each.p50_ms is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """Who was in the race, the fastest first, and who won it: the fastest that passed; None if nothing did.

    ``left_out`` are precisions of which no variant could be made, with the reasons. Where other devices raced,
    ``hosts`` say what came of that, and nobody was in a race here.
    """

    bundle: Bundle
    target: str
    data: str
    images: int
    entrants: tuple[Entrant, ...]
    winner: str | None
    left_out: Mapping[str, str]
    hosts: tuple[HostResult, ...] = ()

    __repr__ = printed

    @property
    def passed(self) -> bool:
        """Whether there is a winner."""
        return all_passed(self.hosts) if self.hosts else self.winner is not None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit race --json`` prints."""
        if self.hosts:
            return of_hosts(self.hosts)
        entrants = [msgspec.to_builtins(each) | {"verdict": each.word, "reason": each.reason} for each in self.entrants]
        return {
            "bundle": str(self.bundle.path),
            "target": self.target,
            "data": self.data,
            "images": self.images,
            "winner": self.winner,
            "variants": entrants,
            "left_out": dict(self.left_out),
        }
