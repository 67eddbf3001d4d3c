"""What a long pass over the images has seen, kept so that a run that is killed later need not look again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgevit.quantization.calibration.observers import Resumable


class Keeper(Protocol):
    """Where it is kept: whoever looks at images knows which these are, not where a bundle is."""

    def restore(self, name: str, key: str, parts: Mapping[str, Resumable]) -> bool:
        """Give ``parts`` what was kept as ``name`` with that ``key`` of these images; say whether all of it was there.

        If not, some may have it: they are of no use any more.
        """
        ...

    def keep(self, name: str, key: str, parts: Mapping[str, Resumable], seconds: float) -> None:
        """Keep what ``parts`` saw in a pass that took ``seconds``, if that is worth it and there is room."""
        ...


class _Nothing:
    """Keeps nothing."""

    def restore(self, name: str, key: str, parts: Mapping[str, Resumable]) -> bool:  # noqa: ARG002
        """Say no."""
        return False

    def keep(self, name: str, key: str, parts: Mapping[str, Resumable], seconds: float) -> None:
        """Do nothing."""


NOTHING_KEPT: Keeper = _Nothing()
