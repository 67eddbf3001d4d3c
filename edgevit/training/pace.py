"""How far a run is, by its steps or by the time that it has trained: the learning rate, and the end."""

from __future__ import annotations

import time

from edgevit.training.distributed import Processes
from edgevit.training.recipe import TrainRecipe

_LONGEST = 60.0  # seconds of an epoch where the time counts: behind each the run is saved


class Pace:
    """Measures the time of whole epochs, ``seconds``, and that of the one that runs."""

    def __init__(self, recipe: TrainRecipe, processes: Processes) -> None:
        self.seconds = 0.0
        self._recipe, self._processes = recipe, processes
        self._began = 0.0

    @property
    def timed(self) -> bool:
        """Whether the time says when the run ends, not the number of epochs."""
        return self._recipe.minutes > 0

    def begin_epoch(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def end_epoch(self) -> float:
        """Return the seconds of the epoch, which count now."""
        seconds = time.monotonic() - self._began
        self.seconds += seconds
        return seconds

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate for ``step`` of ``steps`` of ``epoch``."""
        if not self.timed:
            return self._recipe.rate(epoch * steps + step, steps)
        return self._recipe.rate_after((self.seconds + self._in_epoch()) / self._limit)

    def epoch_is_over(self) -> bool:
        """Say whether an epoch ends before it has seen all images: the time is up, or it lasts long."""
        if not self.timed:
            return False
        seconds = self._in_epoch()
        return seconds >= _LONGEST or self.seconds + seconds >= self._limit

    def is_over(self, epochs: int) -> bool:
        """Say whether a run of so many whole ``epochs`` is finished."""
        return self.seconds >= self._limit if self.timed else epochs >= self._recipe.epochs

    def left(self, epochs: int) -> float:
        """Return about how many seconds are left, after so many ``epochs``."""
        if self.timed:
            return max(0.0, self._limit - self.seconds)
        return (self._recipe.epochs - epochs) * self.seconds / max(1, epochs)

    @property
    def _limit(self) -> float:
        return 60 * self._recipe.minutes

    def _in_epoch(self) -> float:
        """Return the seconds of the epoch so far, by the clock of the first process: all must do the same."""
        return self._processes.on_main(lambda: time.monotonic() - self._began)
