"""Resolves the precisions, dialects and targets that a user names, or their defaults."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from edgevit.backends import available_backends
from edgevit.bundle.manifest import PRECISIONS, Precision
from edgevit.dependencies import how_to_install
from edgevit.errors import InputError, MissingDependencyError
from edgevit.likeness import PRECISIONS_ELSEWHERE, nearest
from edgevit.quantization.emit import DIALECTS
from edgevit.targets import Target, load_target, own_targets, target_of_dialect


def precision_called(text: str) -> Precision:
    """Return the precision that a user has named.

    Raises:
        InputError: if there is none; the remedy names the closest.
    """
    for precision in PRECISIONS:
        if precision == text:
            return precision
    raise InputError(f"there is no precision '{text}'", remedy=nearest(text, PRECISIONS, PRECISIONS_ELSEWHERE))


def chosen_targets(names: Sequence[str] | None) -> dict[str, Target]:
    """Return the targets called ``names``; if there are none, those for this machine's processor and its backends.

    Raises:
        InputError: if there is no such target, or none is for this machine.
        MissingDependencyError: if no backend is installed.
    """
    if names:
        return {name: load_target(name) for name in names}
    own = _own_targets()
    found = {name: target for name, target in own.items() if target.backend in available_backends()}
    if not found:
        engines = ",".join(sorted({target.backend for target in own.values()}))
        raise MissingDependencyError("no backend is installed", remedy=how_to_install(engines))
    return found


def targets_for_dialect(dialect: str) -> dict[str, Target]:
    """Return the target for a dialect; where several have it, this machine's; for "auto", all that run here.

    Raises:
        InputError: if there is no such dialect, or none is for this machine.
        MissingDependencyError: if no backend is installed.
    """
    if dialect == "auto":
        return chosen_targets(None)
    if dialect not in DIALECTS:
        raise InputError(f"there is no dialect '{dialect}'", remedy=nearest(dialect, ("auto", *DIALECTS)))
    own: dict[str, str] = {target.dialect: name for name, target in _own_targets().items()}
    return chosen_targets([own.get(dialect) or target_of_dialect(dialect)])


def _own_targets() -> dict[str, Target]:
    own = own_targets(platform.machine())
    if not own:
        raise InputError(
            f"no target is for a processor called {platform.machine()}",
            remedy="edgevit targets lists all; name one with --target",
        )
    return own
