"""Choose between settings of an engine by what is faster on this machine.

A target's setting such as ``f32|bf16`` leaves the choice to a race when the variant is built. What won is noted in the
variant, and its accuracy is measured with it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.backend import Backend
from edgevit.backends.base import Session
from edgevit.errors import BundleError

_WARM_UP, _ROUNDS = 3, 15
#: Another setting must take less time by more than this share: timings are noisy, and the first is the more exact one.
#: It is a choice of what is worth a change, not a measurement of the noise, which differs between machines.
MARGIN = 0.03


def _any(first: Session, other: Session) -> bool:  # noqa: ARG001
    return True


@contextmanager
def fastest_settings(
    backend: Backend,
    model: Path,
    choices: Sequence[Mapping[str, str]],
    images: NDArray[np.float32],
    accept: Callable[[Session, Session], bool] = _any,
) -> Iterator[tuple[Mapping[str, str], Session]]:
    """Yield the one of ``choices`` with which the file ``model`` runs fastest on ``images``, and the session that won.

    All take turns, so that what disturbs one disturbs the others. The first is kept unless another is clearly faster.
    One with which the engine cannot open the file is out of the race, such as OpenVINO 2026.4's bf16 for the integer
    layers of MobileViT. So is one whose session ``accept`` does not take beside that of the first.

    Raises:
        BundleError: if the file is damaged, or a setting is not one of the backend's.

    """
    with ExitStack() as stack:
        first, *others = _open_all(backend, model, choices, stack)
        opened = [first, *(each for each in others if accept(first[1], each[1]))]
        best, session = opened[winner(time_in_turns([session for _, session in opened], images))]
        yield best, session


def _open_all(
    backend: Backend, model: Path, choices: Sequence[Mapping[str, str]], stack: ExitStack
) -> Sequence[tuple[Mapping[str, str], Session]]:
    """Open a session for each of ``choices`` side by side, as an engine compiles with one core for most of the time.

    Those that the engine refuses are left out, unless it refuses all.
    """
    with ThreadPoolExecutor(len(choices)) as pool:
        opening = [pool.submit(backend.open, model, threads=0, settings=each) for each in choices]
    for each in opening:
        if each.exception() is None:  # it is closed, even if another cannot be opened
            stack.enter_context(each.result())
    refused = [each for each in opening if isinstance(each.exception(), BundleError)]
    kept = opening if len(refused) == len(opening) else [each for each in opening if each not in refused]
    return [(choices[opening.index(each)], each.result()) for each in kept]


def time_in_turns(sessions: Sequence[Session], images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the seconds (rounds, sessions) that each takes, right after it has run: a model seldom takes turns."""
    times = np.zeros((_WARM_UP + _ROUNDS, len(sessions)))
    for row, (index, session) in itertools.product(range(len(times)), enumerate(sessions)):
        session.infer(images)
        started = time.perf_counter()
        session.infer(images)
        times[row, index] = time.perf_counter() - started
    return times[_WARM_UP:]


def winner(times: NDArray[np.float64]) -> int:
    """Return which column of ``times`` (rounds, choices) is fastest; the first one unless another clearly is."""
    ratios = np.median(times / times[:, :1], axis=0)
    best = int(ratios.argmin())
    return best if ratios[best] < 1 - MARGIN else 0
