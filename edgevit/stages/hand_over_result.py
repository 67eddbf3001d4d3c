"""What ``edgevit.pack_mobile`` returns: apart from how it is made, which takes what works on graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.mobile.hand_over import HandOver
from edgevit.models.licenses import License


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverResult:
    """A folder for a phone's app: where it is, what its ``edgevit.json`` says, and what else should be known."""

    path: Path
    content: HandOver
    notes: tuple[str, ...]

    __repr__ = printed

    @property
    def license(self) -> License | None:
        """What the weights may be used for, as far as that is known."""
        return self.content.license

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit pack --format ... --json`` prints."""
        made: dict[str, Any] = msgspec.to_builtins(self.content)
        return {"path": str(self.path), "notes": list(self.notes), **made}
