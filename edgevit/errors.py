"""Everything that a user can cause ends in one of these.

.. code-block:: text

    EdgeViTError                    exit code
    ├── InputError                  2   what was given cannot be used
    │   ├── SpecError               2   the sizes of a model contradict each other
    │   ├── CheckpointError         2   weights are missing, left over, misshapen or unsafe
    │   ├── DataError               2   images or labels cannot be used
    │   │   └── ImageError          2   one image cannot be read
    │   ├── GraphError              2   an ONNX graph is not one that EdgeViT can work on
    │   └── BundleError             2   a bundle is damaged, exists already, or lacks what is asked for
    ├── VerificationError           1   what was made differs from the float model, or misses its kernels
    │   └── DoesNotPayError         1   an engine is better off with all of the model in float32
    ├── TrainingError               1   training could not go on (a loss that is not a number)
    └── MissingError                3   something is not on this machine
        ├── MissingDependencyError  3   a Python package or driver
        ├── MissingDataError        3   a data set or file that would have to be fetched
        ├── HostError               3   another device cannot be reached, or lacks what a run needs
        └── StorageError            3   the disk is full or read-only

Every error carries a ``remedy``: what to type or change next.
"""

from __future__ import annotations

import pickle
import sys
from itertools import pairwise
from typing import Any

__all__ = [
    "BundleError",
    "CheckpointError",
    "DataError",
    "DoesNotPayError",
    "EdgeViTError",
    "GraphError",
    "HostError",
    "ImageError",
    "InputError",
    "MissingDataError",
    "MissingDependencyError",
    "MissingError",
    "SpecError",
    "StorageError",
    "TrainingError",
    "VerificationError",
]


class EdgeViTError(Exception):
    """Base class of all errors that a caller, a file or the machine can cause.

    ``message`` says what is wrong, and ``remedy`` what to do about it. ``exit_code`` is the exit code of the command
    line.
    """

    exit_code = 2

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if remedy and sys.version_info >= (3, 11):
            self.add_note(f"try: {remedy}")  # so that a traceback shows it

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process makes the same error again: by default from the message alone, which fails there.

        The causes come along up to the first that cannot.
        """
        return _restored, tuple(map(_portable, _with_causes(self)))


class InputError(EdgeViTError):
    """What was given cannot be used."""


class SpecError(InputError):
    """The sizes of a model contradict each other."""


class CheckpointError(InputError):
    """Weights are missing, left over, misshapen or unsafe to load."""


class DataError(InputError):
    """Images or labels cannot be used."""


class ImageError(DataError):
    """One image cannot be read."""


class GraphError(InputError):
    """An ONNX graph is not one that EdgeViT can work on."""


class BundleError(InputError):
    """A bundle is damaged, exists already, or lacks what is asked for."""


class VerificationError(EdgeViTError):
    """What was made differs from the float model, or does not run on the kernels that it should."""

    exit_code = 1


class DoesNotPayError(VerificationError):
    """An engine is better off with all of a model in float32: nothing of it is faster in integers, and accurate."""


class TrainingError(EdgeViTError):
    """Training could not go on."""

    exit_code = 1


class MissingError(EdgeViTError):
    """Something is not on this machine."""

    exit_code = 3


class MissingDependencyError(MissingError):
    """A Python package or a driver is not on this machine."""


class MissingDataError(MissingError):
    """A data set or file is not on this machine and could not be fetched."""


class HostError(MissingError):
    """Another device cannot be reached, lacks what a run there needs, or does not answer as it should."""


class StorageError(MissingError):
    """The disk is full or read-only."""


def _with_causes(error: EdgeViTError) -> list[BaseException]:
    """Return ``error``, its cause, the cause of that and so on, each once: an error may be raised from itself."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and not any(each is one for one in found):
        if not isinstance(each, EdgeViTError) and not _pickles(each):
            break
        found.append(each)
        each = each.__cause__
    return found


def _pickles(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written in the same line
    except Exception:  # noqa: BLE001 - a class of someone else's may raise anything
        return False
    return True


def _portable(error: BaseException) -> Any:  # noqa: ANN401
    """Return ``error`` as it can be pickled: of one of EdgeViT's its parts."""
    return (type(error), error.args, error.__dict__) if isinstance(error, EdgeViTError) else error


def _restored(*found: Any) -> BaseException:  # noqa: ANN401
    """Return the first of the errors that ``_portable`` has made portable; each is caused by the next."""
    errors: list[BaseException] = []
    for each in found:
        error = each
        if isinstance(each, tuple):
            kind, arguments, fields = each
            error = kind.__new__(kind, *arguments)
            error.__dict__.update(fields)
        errors.append(error)
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]
