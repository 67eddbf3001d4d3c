"""``edgevit benchmark``: latency of every variant on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgevit import backends
from edgevit.backends.backend import Backend
from edgevit.backends.variants import backend_for
from edgevit.bundle.manifest import Latency, OperatorTime
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError, MissingDependencyError
from edgevit.evaluation.candidates import Candidate, baseline_of, candidates_of
from edgevit.evaluation.extras import Picture, picture_of
from edgevit.evaluation.latency import measure_latency
from edgevit.evaluation.load import Load
from edgevit.progress import SILENT, Progress
from edgevit.stages.runnable import runnable


def benchmark(
    bundle: Bundle,
    load: Load,
    *,
    variants: Sequence[str] = (),
    keep_partial: bool = True,
    progress: Progress = SILENT,
) -> tuple[Bundle, tuple[str, ...]]:
    """Time ``variants`` (all if none are named) and the float32 they are compared with; return whom it timed.

    What a signal interrupts is noted as partial if ``keep_partial``, of variants without whole and valid figures, and
    the signal goes on.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if a backend is not installed, or in a version that does not serve a variant.
    """
    load.check()
    asked = runnable(bundle, variants, progress)
    if not variants:
        asked = _comparable(bundle, asked, progress)
    candidates = candidates_of(bundle, asked)
    for candidate in candidates:  # what others are compared with has not been asked for, but must be here too
        backend_for(bundle.variant(candidate.name))
    names = tuple(candidate.name for candidate in candidates)
    progress.note(f"Timing {', '.join(names)} for about {load.duration_s:g} s each, one process per variant")

    def keep(partial: Sequence[Latency]) -> None:
        kept = ", ".join(name for name in names if _is_whole(bundle, name))
        new = [pair for pair in zip(candidates, partial, strict=True) if not _is_whole(bundle, pair[0].name)]
        _noted(bundle, [candidate for candidate, _ in new], [latency for _, latency in new])
        noted = "What was measured so far is in the bundle, marked partial" if new else "Nothing new is in the bundle"
        progress.note(f"{noted}; the whole figures of before are kept of {kept}" if kept else noted)

    keeps = keep_partial and bundle.pack is None  # a pack is never changed

    latencies = measure_latency(
        candidates,
        load,
        spec=bundle.manifest.model,
        picture=_picture(bundle),
        keep=keep if keeps else None,
        progress=progress,
    )
    bundle = _noted(bundle, candidates, latencies)  # what follows takes a while, and may be interrupted
    detailed = [
        latency if latency.p50_ms is None else _with_engines_own(candidate, latency, bundle, load)
        for candidate, latency in zip(candidates, latencies, strict=True)
    ]
    return _noted(bundle, candidates, detailed), names


def _is_whole(bundle: Bundle, name: str) -> bool:
    """Return whether there are figures of a variant that a partial run is no match for."""
    latency = bundle.variant(name).latency
    return latency is not None and latency.valid and not latency.partial


def _noted(bundle: Bundle, candidates: Sequence[Candidate], latencies: Sequence[Latency]) -> Bundle:
    for candidate, latency in zip(candidates, latencies, strict=True):
        bundle = bundle.update_variant(candidate.name, latency=latency)
    return bundle


def _picture(bundle: Bundle) -> Picture | None:
    """Return what answers from end to end are given to; None where a bundle has no image."""
    if not bundle.manifest.golden:
        return None
    return picture_of(bundle.golden().images[0], bundle.manifest.preprocess)


def _with_engines_own(candidate: Candidate, latency: Latency, bundle: Bundle, load: Load) -> Latency:
    """Return ``latency`` with what the engine itself tells of its time."""
    model = bundle.manifest.model
    shape = (load.batch, model.channels, *model.image_size)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    backend = backends.get_backend(candidate.backend)
    try:
        transfers = backend.transfer_times(candidate.model, settings=candidate.settings, images=images)
    except EdgeViTError:  # as with operators
        transfers = None
    return replace(latency, operators=_operators(backend, candidate, images, load), transfers=transfers)


def _operators(
    backend: Backend, candidate: Candidate, images: NDArray[np.float32], load: Load
) -> tuple[OperatorTime, ...]:
    """Return what the time of ``candidate`` goes to, as its engine counts it; most first, none if it does not."""
    try:
        times = backend.operator_times(
            candidate.model, threads=load.threads, settings=candidate.settings, images=images
        )
    except EdgeViTError:  # it has just run in a process of its own; this is said beside the figures, if at all
        return ()
    ordered = sorted(times.items(), key=lambda pair: -pair[1])
    return tuple(OperatorTime(operator=kind, ms=round(time, 4)) for kind, time in ordered)


def _comparable(bundle: Bundle, names: Sequence[str], progress: Progress) -> tuple[str, ...]:
    """Return those of ``names`` whose float32 runs here, too, and say which are left out.

    Raises:
        MissingDependencyError: if there is none.
    """
    found: list[str] = []
    problem: MissingDependencyError | None = None
    for name in names:
        baseline = baseline_of(bundle.variant(name), bundle.manifest.variants)
        try:
            if baseline is not None:
                backend_for(baseline)
            found.append(name)
        except MissingDependencyError as error:
            problem = error
            progress.note(f"Leaving out {name}, which is compared with float32: {error.message} ({error.remedy})")
    if problem is not None and not found:
        raise problem
    return tuple(found)
