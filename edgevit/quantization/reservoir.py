"""A sample of rows, each equally likely to be in it, in memory that does not grow with how many pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.arrays import same_kind

#: Rows that are kept, and bytes that they may take; of very wide rows at least ``FEWEST``.
ROWS = 64
BYTES = 128 << 10
FEWEST = 8


class Reservoir:
    """Keeps some of the rows that pass (Vitter 1985, algorithm R).

    The draws for each update depend on ``seed`` and on how many updates went before alone, so that a pass can go on
    after it was interrupted without any more state.
    """

    def __init__(self, width: int, *, seed: int) -> None:
        self._seed = seed
        self._updates = 0
        self._seen = 0
        self._rows = np.zeros((max(FEWEST, min(ROWS, BYTES // (4 * width))), width), dtype=np.float32)

    def update(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` (N, K)."""
        room = len(self._rows)
        fresh = min(max(room - self._seen, 0), len(rows))
        self._rows[self._seen : self._seen + fresh] = rows[:fresh]
        random = np.random.default_rng((self._seed, self._updates))
        # Row number t of all, from 0, takes one of t + 1 places; it is kept if that place is there.
        places = random.integers(0, np.arange(self._seen + fresh, self._seen + len(rows)) + 1)
        for row in np.flatnonzero(places < room):
            self._rows[places[row]] = rows[fresh + row]
        self._seen += len(rows)
        self._updates += 1

    def rows(self) -> NDArray[np.float32]:
        """Return the sample (n, K)."""
        return self._rows[: self._seen].copy()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all there is to know, for ``restore``."""
        return {"rows": self._rows, "passed": np.array([self._updates, self._seen])}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state``."""
        self._rows = same_kind(state["rows"], self._rows)
        self._updates, self._seen = (int(value) for value in state["passed"])
