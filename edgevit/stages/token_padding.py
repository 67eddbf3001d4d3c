"""Whether an engine is faster with rows that are added to the tokens: ``graph.passes.pad_tokens``.

The kernels of an engine take rows in blocks. OpenVINO's for integers take up to a quarter longer for 197 tokens than
for 200 on some processors, and no longer on others: so both files are built, and timed in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from edgevit.backends import backend_class, get_backend
from edgevit.backends.backend import Backend
from edgevit.bundle.manifest import TokenPadding
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, GraphError, VerificationError
from edgevit.graph.passes.pad_tokens import padding_of
from edgevit.models.outputs import Output
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.quantization.emit import dialect_called
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.settings_race import MARGIN, time_in_turns
from edgevit.targets import Target

_LEAST_TOKENS = 64  # of fewer, what is added is too much of the whole
_RACES = 3
_SAME_SQNR = 40.0  # dB: the tokens are computed as before, if perhaps in another order


class _BuiltVariant(Protocol):
    """A variant's file, with what an engine is to open it with: ``build.Compiled``."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> Target: ...
    @property
    def model(self) -> Path: ...
    @property
    def settings(self) -> Mapping[str, str]: ...


VariantT = TypeVar("VariantT", bound=_BuiltVariant)


def padded_if_faster(
    bundle: Bundle, decided: PtqModel, made: VariantT, compile_variant: Callable[..., VariantT], progress: Progress
) -> tuple[VariantT, TokenPadding | None]:
    """Return the variant of ``decided`` with rows added to its tokens, if it is clearly faster than ``made`` here.

    ``compile_variant`` compiles it. Where the dialect adds none, the engine is not here, or the model has few tokens or
    a good number of them, it is ``made`` and no padding; so it is where what is padded cannot be built, or layers of it
    miss integer kernels.
    """
    target = made.target
    here = backend_class(target.backend).unbuildable_reason(target.build_options("int8")) is None
    if not here or not dialect_called(target.dialect).pads_tokens:
        return made, None
    tokens, added = padding_of(decided.model.graph)
    if not added or tokens < _LEAST_TOKENS:
        return made, None
    plan = structs.replace(decided.plan, padded=(target.dialect,))
    try:
        padded = compile_variant(replace(decided, plan=plan), progress=SILENT)
    except (VerificationError, GraphError, BundleError) as error:  # what is there is good
        progress.note(f"{made.name}: its tokens stay {tokens}, with rows added it cannot be built: {error.message}")
        return made, None
    images = [bundle.manifest.preprocess(image)[None] for image in bundle.golden().images]
    share = _time_of_padded(get_backend(target.backend), made, padded, images, bundle.manifest.typed_outputs)
    if share is None:
        return made, None
    padding = TokenPadding(tokens=tokens, padded=tokens + added, share=share)
    progress.note(f"{made.name}: {padding.tokens} tokens are padded to {padding.padded}: {share:.2f} of the time here")
    return padded, padding


def _time_of_padded(
    backend: Backend,
    before: _BuiltVariant,
    padded: _BuiltVariant,
    images: Sequence[NDArray[np.float32]],
    outputs: Sequence[Output],
) -> float | None:
    """Return what share of the time of ``before`` the ``padded`` file takes; None where it is not clearly faster.

    ``images`` (1, C, H, W) are run by both, and the first is timed. A file that answers otherwise is none to take.
    """
    with ExitStack() as stack:
        first, same_settings, other = (
            stack.enter_context(backend.open(model, threads=0, settings=settings))
            for model, settings in (
                (before.model, before.settings),
                (before.model, padded.settings),
                (padded.model, padded.settings),
            )
        )
        expected, found = (np.concatenate([each.infer(image) for image in images]) for each in (same_settings, other))
        if not _alike(expected, found, outputs):
            return None
        times = np.concatenate([time_in_turns([first, other], images[0]) for _ in range(_RACES)])
    share = float(np.median(times[:, 1] / times[:, 0]))
    return share if share < 1 - MARGIN else None


def _alike(expected: NDArray[np.float32], found: NDArray[np.float32], outputs: Sequence[Output]) -> bool:
    sqnr = worst_sqnr_db(expected, found, outputs)
    return sqnr is None or sqnr >= _SAME_SQNR
