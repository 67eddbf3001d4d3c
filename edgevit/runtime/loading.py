"""Loads a bundle: which variant serves best on this machine, and whether it answers as it did where it was made."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.variants import backend_for, open_variant, settings_of, unsupported_reason
from edgevit.bundle.golden import Golden
from edgevit.bundle.manifest import Variant
from edgevit.bundle.reading import steadily
from edgevit.bundle.signature import TrustedKey
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingError, VerificationError
from edgevit.limits import within_limits
from edgevit.memory import limited_for
from edgevit.processor import features_in
from edgevit.progress import SILENT, Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import (
    BundleLike,
    bundle_place,
    flag,
    keys_given,
    kind_of_check,
    settings_given,
    threads_given,
    word,
)
from edgevit.runtime.model import Model
from edgevit.runtime.selection import rank_variants, unsuited_reason, validated
from edgevit.runtime.verification import Check, verify_golden
from edgevit.shell import quoted
from edgevit.system import cpuinfo


class LoadWarning(UserWarning):
    """The best variant could not be loaded, or the loaded one was never validated; the message says why."""


def load(
    bundle: BundleLike,
    *,
    variant: str | None = None,
    threads: int = 0,
    check: Check = "golden",
    settings: Mapping[str, str] | None = None,
    strict: bool = False,
    trusted_keys: Sequence[TrustedKey] | None = None,
    progress: Progress | ProgressCallback | None = None,
) -> Model:
    """Load a variant of a bundle, and check that it answers on this machine as it should.

    Without a variant's name, ``load`` takes the one that was measured fastest on a processor of this kind; figures of
    other processors are only a hint. If this machine lacks what that variant needs, or its answers are wrong, the next
    best is taken, and float32 last. INT8 and other precisions that nobody has validated are taken only if nothing else
    can be. ``Model.notes`` says which variants were not taken, or not validated. So does ``progress``, or a
    ``LoadWarning`` without one.

    Loading may use as much memory and time as the size of the variant's files explains, and no more: a small file from
    elsewhere could ask for all that there is. The environment variables EDGEVIT_LOAD_MEMORY_MB and EDGEVIT_LOAD_SECONDS
    allow more; 0 allows anything.

    A pack's model goes into the engine's memory straight from the file; for TensorRT it is unpacked into the user's
    cache. Another process may replace the bundle meanwhile: then either the old variant is loaded or the new one.

    Args:
        bundle: What ``edgevit.export`` made, or a pack: a path, or a ``Bundle``.
        variant: Which variant to load; without it, the one that serves best here.
        threads: Threads; 0 leaves their number to the engine.
        check: "golden" runs the golden images and compares the answers with float32's. "files" leaves that out. Files
            are checked against their SHA-256 either way.
        settings: Settings of the engine, which take precedence over the variant's, such as ``{"rebuild": "yes"}`` for
            TensorRT.
        strict: Raise an error where another variant than the best would be taken.
        trusted_keys: One of these must have signed the bundle (``edgevit.pack(sign=...)``): paths of public Ed25519
            keys, or the keys themselves, in PEM or as OpenSSH writes them. An empty list trusts nobody.
        progress: Called with a ``ProgressEvent`` for what takes long, such as building an engine, and for each note.

    Raises:
        InputError: if an argument has the wrong type, or a trusted key is not a valid public key.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if the engine is not installed, or the device that the variant is for is not here.
        VerificationError: if the model's answers differ from the reference, or no trusted key has signed the bundle.

    """
    path = bundle_place(bundle)
    named, strict = None if variant is None else word("variant", variant), flag("strict", strict)
    options = _LoadOptions(
        threads=threads_given(threads),
        check=kind_of_check(check),
        settings=settings_given(settings),
        progress=progress_to(progress),
    )
    trusted = keys_given(trusted_keys)
    model = steadily(path, lambda: _load(Bundle.open(path, trusted_keys=trusted), options, named, strict=strict))
    for note in model.notes:
        _say(f"{note}; loading {model.variant.name}", options.progress)
    return model


class _LoadOptions(NamedTuple):
    """How a variant is opened and checked."""

    threads: int
    check: Check
    settings: Mapping[str, str]
    progress: Progress


def _load(bundle: Bundle, options: _LoadOptions, named: str | None, *, strict: bool) -> Model:
    """Load the variant that is ``named``, or the best that answers as it should."""
    if named is not None:
        return _opened(bundle, bundle.variant(named), options)
    ranked, notes = _ranked(bundle, options.settings)
    if strict and notes:
        raise VerificationError(notes[0], remedy=f"load the variant '{ranked[0].name}', or leave strict out")
    for variant in ranked[:-1]:
        try:
            return _opened(bundle, variant, options, [*notes, *_not_validated(bundle, ranked, variant)])
        except (VerificationError, MissingError) as error:  # noqa: PERF203 - each is tried only if the last failed
            if strict:
                raise
            notes.append(f"variant {variant.name} is not used here: {error.message}")
    return _opened(bundle, ranked[-1], options, [*notes, *_not_validated(bundle, ranked, ranked[-1])])


def _not_validated(bundle: Bundle, usable: Sequence[Variant], loaded: Variant) -> list[str]:
    """Say that ``loaded`` was not validated, or that it is float32 because none of the others were."""
    how = f"'edgevit validate {quoted(bundle.path)} --data IMAGES' does so"
    if not validated(loaded):
        return [f"variant {loaded.name} was not validated ({how}), and no other can be used here"]
    lossy = [variant for variant in usable if variant.precision != "float32"]
    if not lossy or any(map(validated, lossy)):
        return []
    have = "has" if len(lossy) == 1 else "have"
    return [f"{', '.join(variant.name for variant in lossy)} {have} not been validated ({how})"]


def _ranked(bundle: Bundle, settings: Mapping[str, str]) -> tuple[list[Variant], list[str]]:
    """Return the variants that can run here, the best first, and what must be said of those that could be better."""
    variants = bundle.manifest.variants
    needed = {variant.backend for variant in variants}.intersection(BACKENDS)
    elsewhere = [variant.name for variant in variants if unsupported_reason(bundle, variant, settings) is not None]
    running = [name for name in needed if backend_class(name).available()]
    features = features_in(cpuinfo())
    ranked = rank_variants(bundle.manifest, running, elsewhere, features)
    by_figures = rank_variants(bundle.manifest, running, elsewhere)
    better = by_figures[: by_figures.index(ranked[0])]
    lacking = [(variant, unsuited_reason(variant, features)) for variant in better]
    return ranked, [f"variant {variant.name} is not used here: {why}" for variant, why in lacking if why]


def _opened(bundle: Bundle, variant: Variant, options: _LoadOptions, notes: Sequence[str] = ()) -> Model:
    """Load ``variant`` with ``notes``, and check its answers."""
    unlimited = backend_class(variant.backend).builds_on_device
    with nullcontext() if unlimited else limited_for(variant.bytes, f"variant {variant.name}"):
        return _checked(bundle, variant, options, notes)


def _checked(bundle: Bundle, variant: Variant, options: _LoadOptions, notes: Sequence[str]) -> Model:
    session = open_variant(
        bundle, variant.name, threads=options.threads, settings=options.settings, progress=options.progress
    )
    version = backend_for(variant).version()
    own = settings_of(variant, options.settings)
    model = Model(bundle, variant, session, notes, version=version, settings=own, threads=options.threads)
    try:
        if options.check == "golden":
            golden = bundle.golden()
            verify_golden(
                _answers(model, golden),
                golden.logits,
                precision=variant.precision,
                classes=bundle.manifest.classes,
                independent=model.independent,
                outputs=model.output_types,
            )
    except BaseException:
        model.close()
        raise
    return model


def _answers(model: Model, golden: Golden) -> NDArray[np.float32]:
    def answers() -> NDArray[np.float32]:
        return model.infer_images(golden.images)

    if backend_class(model.variant.backend).builds_on_device:
        return answers()
    return within_limits(model.variant.bytes, f"variant {model.variant.name}", answers, times=len(golden.images))


def _say(note: str, progress: Progress) -> None:
    if progress is SILENT:
        warnings.warn(note, LoadWarning, stacklevel=_level_of_caller())
    else:
        progress.note(note)


def _level_of_caller() -> int:
    """Return the stack level that the function that calls this one gives the code that called EdgeViT."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith("edgevit."):
        level, frame = level + 1, frame.f_back
    return level
