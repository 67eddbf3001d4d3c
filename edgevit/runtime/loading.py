"""Loads a bundle: which variant serves best on this machine, and whether it answers as it did where it was made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.variants import backend_for, open_variant, settings_of, unsupported_reason
from edgevit.bundle.golden import Golden
from edgevit.bundle.manifest import Variant
from edgevit.bundle.reading import steadily
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingError, VerificationError
from edgevit.limits import within_limits
from edgevit.memory import limited_for
from edgevit.processor import features_in
from edgevit.progress import SILENT, Progress
from edgevit.runtime.arguments import keys_given, kind_of_check, path_given, settings_given, threads_given
from edgevit.runtime.model import Model
from edgevit.runtime.selection import rank_variants, unsuited_reason, validated
from edgevit.runtime.verification import Check, verify_golden
from edgevit.shell import quoted
from edgevit.system import cpuinfo

if TYPE_CHECKING:
    from edgevit.bundle.signature import TrustedKey


class LoadWarning(UserWarning):
    """Another variant was loaded than might be expected, or one that nobody validated, and why."""


def load(
    bundle: str | Path,
    *,
    variant: str | None = None,
    threads: int = 0,
    check: Check = "golden",
    settings: Mapping[str, str] | None = None,
    strict: bool = False,
    trusted_keys: Sequence[TrustedKey] | None = None,
    progress: Progress = SILENT,
) -> Model:
    """Load a variant of a bundle, a folder or a pack; without a name, the one that serves best here.

    ``settings`` of the backend go before those of the variant, such as ``{"rebuild": "yes"}`` for a TensorRT engine.
    ``threads`` 0 leaves their number to the backend. The files are always checked against their SHA-256; unless
    ``check`` is "files", the golden images are run too and the answers compared with float32's. ``progress`` shows what
    takes long, such as an engine that is built again.

    Without a name, the best is what was measured fastest on a processor of this kind; figures of another kind of
    processor are a hint. Where this machine lacks what the best variant counts on, or that answers otherwise than it
    should, the next best is taken, float32 at last. With ``strict`` that is an error instead. INT8 and other precisions
    that nobody validated are taken only where nothing else can be. ``Model.notes`` says what was not taken, or not
    validated, and so does ``progress``, or else a ``LoadWarning``.

    Loading takes no more memory and time than the size of the variant's files explains: a small file from elsewhere can
    ask for all that there is. The environment variables EDGEVIT_LOAD_MEMORY_MB and EDGEVIT_LOAD_SECONDS allow more, or
    anything with 0.

    With ``trusted_keys``, one of them must have signed the bundle (``edgevit pack --sign``): paths of public Ed25519
    keys, or the keys as text, in PEM or as OpenSSH writes them. An empty list trusts nobody. A pack's model goes into
    the engine's memory from the file itself; for TensorRT it is unpacked into the user's cache.

    A bundle may be replaced by another process at the same time: then the old variant is loaded, or the new one.

    Raises:
        InputError: if an argument is of another kind than it should be.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if the backend is not installed, or the device that the variant is for is not here.
        VerificationError: if the model answers otherwise than when it was exported, or no trusted key has signed it.

    """
    path = Path(path_given("bundle", bundle))
    options = _LoadOptions(
        threads=threads_given(threads),
        check=kind_of_check(check),
        settings=settings_given(settings),
        progress=progress,
    )
    trusted = keys_given(trusted_keys)
    return steadily(path, lambda: _load(Bundle.open(path, trusted_keys=trusted), options, variant, strict=strict))


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
    return [f"nobody has validated {', '.join(variant.name for variant in lossy)} ({how})"]


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
    """Load ``variant``, check its answers, and say ``notes`` once it is known to be the one."""
    unlimited = backend_class(variant.backend).builds_on_device
    with nullcontext() if unlimited else limited_for(variant.bytes, f"variant {variant.name}"):
        model = _checked(bundle, variant, options, notes)
    for note in notes:
        _say(f"{note}; {variant.name} is loaded", options.progress)
    return model


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
        warnings.warn(note, LoadWarning, stacklevel=6)  # seen from the caller of load()
    else:
        progress.note(note)
