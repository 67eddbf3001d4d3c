"""What came of measuring on another device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.bundle.manifest import LimitEvidence, MeasuredDevice
from edgevit.errors import EdgeViTError


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResult:
    """What a device measured, or the ``problem`` because of which it did not.

    ``device`` is what the bundle has of it now, ``names`` are the variants that were measured in this run; ``passed``
    says whether all of them passed and gave the validated answers. Of a race there are the ``winner``, what is shown of
    each limit, by variant, and what was ``left_out``, with the reasons. ``unreadable`` are images that could not be
    read here or there, ``shares_missed`` says by variant why it has too few of its multiply-adds in integers.
    """

    name: str
    address: str
    device: MeasuredDevice | None = None
    names: tuple[str, ...] = ()
    passed: bool = False
    winner: str | None = None
    evidence: Mapping[str, Sequence[LimitEvidence]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    shares_missed: Mapping[str, str] = field(default_factory=dict)
    problem: EdgeViTError | None = None

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of a device."""
        found: dict[str, Any] = {"host": self.name, "address": self.address, "passed": self.passed}
        if self.problem is not None:
            kind = type(self.problem).__name__
            return found | {"error": {"type": kind, "message": self.problem.message, "remedy": self.problem.remedy}}
        if self.device is not None:
            measured = [msgspec.to_builtins(each) for each in self.device.variants if each.name in self.names]
            found |= {"environment": msgspec.to_builtins(self.device.environment), "variants": measured}
            found |= {"unreadable": self.unreadable, "shares_missed": dict(self.shares_missed)}
        if self.evidence:
            evidence = {name: [msgspec.to_builtins(each) for each in those] for name, those in self.evidence.items()}
            found |= {"winner": self.winner, "evidence": evidence, "left_out": dict(self.left_out)}
        return found


def all_passed(hosts: Sequence[HostResult]) -> bool:
    """Return whether each of the devices measured, and all passed there."""
    return all(each.passed for each in hosts)


def of_hosts(hosts: Sequence[HostResult]) -> dict[str, Any]:
    """Return what ``--json`` prints where other devices measured."""
    return {"hosts": [each.to_dict() for each in hosts]}
