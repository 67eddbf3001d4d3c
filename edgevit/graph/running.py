"""Run an ONNX file in onnxruntime, to see what it gives for real images.

It is the reference engine (``backends.REFERENCE``): whichever engine a model is for, what is exported is compared in
this one, and what calibration sees of a graph it sees here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine

from edgevit.errors import GraphError
from edgevit.limits import within_limits

if TYPE_CHECKING:
    import onnx_ir as ir

#: Largest absolute difference of a logit between a file and what it was made of.
TOLERANCE = 1e-4

#: What onnxruntime raises: one class per status code, without a common base of their own.
ENGINE_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(engine).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

#: Other types of floats that files of others take and give.
_FLOATS: dict[str, type[np.floating]] = {"tensor(float16)": np.float16, "tensor(double)": np.float64}

_FATAL = 4  # log severity: errors reach the caller as exceptions, and nothing else is news
_LARGEST_BATCH = 16


class ExportCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a file compares with what it was made of: the largest absolute difference of a logit, on how many images."""

    max_difference: float
    images: int


def growing_batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield all images in batches of 1, 2, 4... up to ``_LARGEST_BATCH``."""
    start, size = 0, 1
    while start < len(images):
        yield images[start : start + size]
        start, size = start + size, min(2 * size, _LARGEST_BATCH)


def one_by_one(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield all images in batches of 1."""
    return (images[index : index + 1] for index in range(len(images)))


def run(
    path: Path, batches: Iterable[NDArray[np.float32]], *, images: str, answers: str
) -> Iterator[NDArray[np.float32]]:
    """Yield what the file at ``path`` gives at its output ``answers`` for each batch at its input ``images``.

    A file that takes and gives other floats is given those, and what it gives becomes float32.

    Raises:
        One of ``ENGINE_ERRORS``: if it cannot.
        InputError: if that takes more memory or time than the file's size explains.

    """
    options = _options()
    size, name = path.stat().st_size, str(path)

    def opened() -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])

    session = within_limits(size, name, opened)
    types = {given.name: _FLOATS.get(given.type, np.float32) for given in session.get_inputs()}
    for batch in batches:
        feeds = {images: batch.astype(types.get(images, np.float32), copy=False)}
        answer = within_limits(size, name, partial(session.run, [answers], feeds), times=len(batch))[0]
        yield answer.astype(np.float32) if answer.dtype in _FLOATS.values() else answer


def session_of(model: ir.Model | Path) -> onnxruntime.InferenceSession:
    """Return ``model``, in memory or a file, in onnxruntime, on the CPU.

    Raises:
        GraphError: if it cannot be run.

    """
    from edgevit.graph.saving import serialize  # with onnx, which is not on a device: that takes what is above alone

    options = _options()
    # Threads that spin while they wait would take the cores from the observers, which look at the last image meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        content = str(model) if isinstance(model, Path) else serialize(model)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except ENGINE_ERRORS as error:
        raise GraphError(f"the model cannot be run by onnxruntime: {error}", remedy="export it again") from error


def outputs_of(model: ir.Model | Path, images: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what ``model`` gives in onnxruntime for ``images``, each (1, C, H, W), one at a time.

    Raises:
        GraphError: if it cannot be run.

    """
    session = session_of(model)
    (given,) = session.get_inputs()
    try:
        return np.concatenate([session.run(None, {given.name: image})[0] for image in images])
    except ENGINE_ERRORS as error:
        raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return options
