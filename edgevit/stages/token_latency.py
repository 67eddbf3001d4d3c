"""What a block takes on an engine with fewer tokens: measured once for a model, by short forms of it.

A model of two of its blocks and one of four are built in INT8 with several numbers of tokens behind their first block.
What the longer one takes more is two blocks with so many tokens. What merging takes itself is seen where three blocks
merge a token each. Weights are rounded to nearest: time does not depend on their values.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from edgevit.backends import backend_class, get_backend
from edgevit.backends.base import Session
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.graph.token_stream import find_token_stream
from edgevit.graph.weights import letting_go
from edgevit.models.token_schedule import most_merged
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.ptq import FloatModel, PtqModel
from edgevit.quantization.rewrites.passes import Options
from edgevit.quantization.token_merging.losses import merged_counts
from edgevit.quantization.token_merging.short_form import short_form
from edgevit.stages.engines import lower_for
from edgevit.stages.precisions import write_source
from edgevit.stages.rules import Rules
from edgevit.stages.settings_race import time_in_turns
from edgevit.targets import Target

_SHORT, _LONG = 2, 4  # blocks
_MERGES = 3  # times that merging is seen: a first time is not as the others, and more are less noisy
_FEWEST = 32  # patches: of fewer, the numbers to time would be the same
_MORE_RACES, _SECONDS = 3, 5.0  # than one, unless so much time is over
_UNDISTURBED = 0.1  # quantile of the rounds
#: Shares of the patches that are merged in the forms that are timed.
_MERGED = (0.125, 0.25, 0.375, 0.5)


@dataclass(frozen=True, slots=True)
class TokenLatency:
    """What an engine takes, in shares of the whole model's time.

    ``block`` is a block with all tokens. With some merged before it, it takes ``merged_block`` less ``saved`` for each.
    ``merging`` is what merging takes itself, each time.
    """

    block: float
    merged_block: float
    saved: float
    merging: float

    def block_with(self, merged: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what a block takes with so many tokens merged before it."""
        left = np.where(merged == 0, self.block, self.merged_block - self.saved * merged)
        return np.maximum(left, 0.0)


def measure_token_latency(
    bundle: Bundle,
    float32: VerifiedFile,
    target: Target,
    table: CalibrationTable,
    rules: Rules,
    scratch: Path,
    progress: Progress = SILENT,
) -> TokenLatency | None:
    """Return what a block of the bundle's model takes in INT8 with the engine of ``target``.

    ``table`` is what calibration saw of the model without merged tokens. None where the engine runs elsewhere, or the
    model has too few blocks.

    Raises:
        GraphError: if tokens cannot be merged in it.
        VerificationError, BundleError: if the engine cannot build it.

    """
    source = FloatModel.read(float32.path, float32.sha256)
    with letting_go(source.model) as model:
        stream = find_token_stream(model.graph)
        depth = len(stream.blocks)
        elsewhere = backend_class(target.backend).unbuildable_reason(target.build_options("int8")) is not None
        if elsewhere or depth < _LONG or stream.patches < _FEWEST:
            return None
        counts = merged_counts(stream.tokens, stream.prefix)
        counts = counts[counts <= most_merged(stream.tokens, stream.prefix)]
        near = np.abs(counts[:, None] - np.multiply(_MERGED, stream.patches)).argmin(axis=0)
        merged = counts[np.unique(np.maximum([0, *near], [0, *np.ones_like(near)]))]
        once = [(count, *[0] * (blocks - 1)) for count in merged.tolist() for blocks in (_SHORT, _LONG)]
        several = counts[: _MERGES + 1]
        forms = [(*np.diff(several).tolist(), *[0] * (_LONG + 1 - len(several))), *once]
        options = _options(rules, target, table)
        with ExitStack() as stack:
            sessions: list[Session] = []
            label = f"Timing blocks with {target.backend}"
            for number, schedule in enumerate(progress.track(forms, total=len(forms), label=label)):
                place = scratch / f"{target.backend}-{number}"
                file = _built(float32, target, short_form(source, schedule, table, options), place)
                opened = get_backend(target.backend).open(file, threads=0, settings=_settings(bundle, target))
                sessions.append(stack.enter_context(opened))
            image = bundle.manifest.preprocess(bundle.golden().images[0])[None]
            times = _timed(sessions, image, progress)
    return _fitted(times, merged, several, depth)


def _timed(sessions: Sequence[Session], image: NDArray[np.float32], progress: Progress) -> NDArray[np.float64]:
    """Return the seconds (rounds, sessions) that each takes, of several races if they are short."""
    until = time.monotonic() + _SECONDS
    found = [time_in_turns(sessions, image)]
    for _ in progress.track(range(_MORE_RACES), total=_MORE_RACES, label="Timing them in turns"):
        found += [time_in_turns(sessions, image)] if time.monotonic() < until else []
    return np.concatenate(found)


def _fitted(
    times: NDArray[np.float64], merged: NDArray[np.int64], several: NDArray[np.int64], depth: int
) -> TokenLatency:
    """Return what a model of ``depth`` blocks takes, by the seconds (rounds, forms) of its short forms.

    The first form is the long one that merges again and again, so that ``several`` are merged so far; of the others, a
    short and a long one are of each number of ``merged`` tokens, the first of none. What a block takes is a straight
    line over the number of merged tokens, and with none what was measured: that number is the model's, and may not suit
    the engine. Of each form the fastest rounds count: whatever disturbs them makes differences of slow ones say
    nothing.
    """
    repeated, *undisturbed = np.quantile(times, _UNDISTURBED, axis=0)
    short, long = np.array(undisturbed[0::2]), np.array(undisturbed[1::2])
    blocks = (long - short) / (_LONG - _SHORT)
    whole = float(short[0] + (depth - _SHORT) * blocks[0])
    slope, intercept = np.polyfit(merged[1:], blocks[1:], 1) if len(merged) > 2 else (0.0, blocks[-1])
    slope = min(0.0, float(slope))
    expected = long[0] + sum(intercept + slope * count - blocks[0] for count in several[1:])
    merging = max(0.0, float(repeated - expected)) / (len(several) - 1)
    return TokenLatency(
        block=float(blocks[0]) / whole,
        merged_block=float(intercept) / whole,
        saved=-slope / whole,
        merging=merging / whole,
    )


def _settings(bundle: Bundle, target: Target) -> dict[str, str]:
    """Return what the variant without merged tokens is opened with, if there is one."""
    name = target.variant_of("int8")
    there = [variant for variant in bundle.manifest.variants if variant.name == name]
    return dict(there[0].settings) if there else target.settings_for("int8")


def _options(rules: Rules, target: Target, table: CalibrationTable) -> Options:
    """Return how the rules quantize; what they leave to a search, which time does not depend on, is at its default."""
    alpha = 1.0 if rules.rewrites.alpha == "auto" else rules.rewrites.alpha
    rewrites = structs.replace(rules.rewrites, alpha=alpha)
    observer = "minmax" if rules.observer == "auto" else rules.observer
    return Options(scheme_of(target.dialect), table.images, observer, rewrites)


def _built(float32: VerifiedFile, target: Target, ptq: PtqModel, place: Path) -> Path:
    """Return the file that the engine opens; rows are added to its tokens, as they will be where that is faster."""
    backend = get_backend(target.backend)
    ptq = replace(ptq, plan=structs.replace(ptq.plan, padded=(target.dialect,)))
    with letting_go(ptq.model):
        source = write_source(float32, "int8", target, ptq, place.with_suffix(".onnx"))
    file = lower_for(source.file, target, backend.version())
    place.mkdir()
    return backend.build(file.path, place, target.build_options("int8"))[0]
