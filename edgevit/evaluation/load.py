"""What variants are timed under."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from edgevit.errors import InputError
from edgevit.machine.power import AUTO, NoSource, source
from edgevit.processor import most_threads


@dataclass(frozen=True, slots=True)
class Load:
    """What a variant is timed under: images per inference, threads (0: all cores), seconds of measuring for each.

    With ``precision``, the half-width of 95 % intervals as a share of the median and of the speed-up, measuring ends
    once that is reached, and ``duration_s`` is the most that it takes. ``energy_from`` is where energy is read from
    (``machine.power.source``). With ``sweep``, throughput is measured over batch and streams, too.
    """

    batch: int = 1
    threads: int = 0
    duration_s: float = 10.0
    precision: float | None = None
    energy_from: str = AUTO
    sweep: bool = False

    def check(self) -> None:
        """Check that it can be measured.

        Raises:
            InputError: if a number is out of range, or energy cannot be read from what is named.
        """
        for name, value, least in (("batch", self.batch, 1), ("threads", self.threads, 0)):
            if value < least:
                raise InputError(f"{name} is {value}", remedy=f"use --{name} {least} or more")
        if self.threads > most_threads():
            raise InputError(
                f"threads is {self.threads}, more than {most_threads()}", remedy="use --threads 0 for all cores"
            )
        if not 0 < self.duration_s < math.inf:
            raise InputError(f"duration is {self.duration_s} s", remedy="use a --duration above 0, such as 10")
        if self.precision is not None and not 0 < self.precision < 1:
            raise InputError(
                f"precision is {self.precision}", remedy="use a --precision between 0 and 100 %, such as 2%"
            )
        if self.energy_from != AUTO:
            with suppress(NoSource):
                source(self.energy_from)
