"""Run an ONNX file in onnxruntime, to see what it gives for real images.

It is the reference engine (``backends.REFERENCE``): whichever engine a model is for, what is exported is compared in
this one, and what calibration sees of a graph it sees here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

_FAR_SMALLER = 200  # times smaller than ``least``: of these, a fiftieth may differ where TOLERANCE is allowed
_ROUNDING = 0.02  # in the same measure
_MASK = 100  # times all other magnitudes, at least

_FATAL = 4  # log severity: errors reach the caller as exceptions, and nothing else is news
_LARGEST_BATCH = 16
_AMONG = 8  # images of one batch that each is compared alone in, as many as a bundle is checked with when it is loaded


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


def count_batches(images: int) -> int:
    """Return how many batches ``growing_batches`` makes of so many ``images``."""
    return len(list(growing_batches(np.empty((images, 0), np.float32))))


def one_by_one(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield all images in batches of 1."""
    return (images[index : index + 1] for index in range(len(images)))


def run_graph(
    path: Path, batches: Iterable[NDArray[np.float32]], *, images: str, answers: str
) -> Iterator[NDArray[np.float32]]:
    """Yield what the file at ``path`` gives at its output ``answers`` for each batch at its input ``images``.

    A file that takes and gives other floats is given those, and what it gives becomes float32.

    Raises:
        One of ``ENGINE_ERRORS``: if it cannot.
        InputError: if that takes more memory or time than the file's size explains.

    """
    return (found for (found,) in run_several(path, batches, images=images, answers=[answers]))


def run_several(
    path: Path, batches: Iterable[NDArray[np.float32]], *, images: str, answers: Sequence[str]
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield what the file at ``path`` gives at each of its outputs ``answers``, as ``run_graph`` does."""
    options = _options()
    size, name = path.stat().st_size, str(path)

    def opened() -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])

    session = within_limits(size, name, opened)
    types = {given.name: _FLOATS.get(given.type, np.float32) for given in session.get_inputs()}
    for batch in batches:
        feeds = {images: batch.astype(types.get(images, np.float32), copy=False)}
        given = within_limits(size, name, partial(session.run, list(answers), feeds), times=len(batch))
        yield [each.astype(np.float32) if each.dtype in _FLOATS.values() else each for each in given]


def concatenated(batches: Iterable[Sequence[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    """Return each output (N, ...) of all ``batches``; of none there are no outputs."""
    return [np.concatenate(each) for each in zip(*batches, strict=True)]


def largest_difference(
    found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]], *, least: float = 1.0
) -> float:
    """Return by how much an output differs at most, in parts of what ``measure_of`` returns of it.

    Infinity where outputs have other shapes; not a number where an output is not.
    """
    if [each.shape for each in found] != [each.shape for each in expected]:
        return float(np.inf)
    pairs = zip(found, expected, strict=True)
    return float(np.max([(np.abs(one - other) / _measures(other, least)).max() for one, other in pairs]))


def _measures(output: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """Return what each number of ``output`` is measured by: a mask's by itself."""
    return np.maximum(np.abs(output), np.float32(measure_of(output, least)))


def measure_of(output: NDArray[np.float32], least: float = 1.0) -> float:
    """Return the largest magnitude of ``output``, or ``least`` if that is more, or less where all of it is far smaller.

    What lies behind an output has numbers around 1, whose rounding is in it: that is all that ``least`` is for. A
    number far beyond all others that stands there several times is a mask, as -1e9 for classes that are left out, and
    no magnitude of theirs.
    """
    magnitudes = np.abs(output)
    largest = float(magnitudes.max())
    others = magnitudes[magnitudes < largest]
    if len(others) < magnitudes.size - 1 and largest > _MASK * (beyond := float(others.max(initial=0.0))) > 0:
        largest = beyond
    return max(largest, min(least, max(_FAR_SMALLER * largest, _ROUNDING)))


def difference_among_others(path: Path, images: NDArray[np.float32], *, given: str, answers: Sequence[str]) -> float:
    """Return by how much an image's outputs differ alone and among others, as ``largest_difference`` has it.

    The batch is half of ``images`` (N, C, H, W), and half of noise in their range: few may be given, or all alike.

    Raises:
        One of ``ENGINE_ERRORS``: if the file at ``path`` cannot be run on them.

    """
    some, least = images[: _AMONG // 2], float(images.min())
    shape = (_AMONG - len(some), *images.shape[1:])
    noise = np.random.default_rng(0).uniform(least, max(float(images.max()), least + 1), shape).astype(np.float32)
    batch = np.concatenate([some, noise])
    first, last, together = run_several(path, [batch[:1], batch[-1:], batch], images=given, answers=answers)
    return largest_difference([each[[0, -1]] for each in together], concatenated([first, last]))


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


def run_all_outputs(model: ir.Model | Path, images: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return each output (N, ...) of ``model`` in onnxruntime for ``images``, each (1, C, H, W), one at a time.

    Raises:
        GraphError: if it cannot be run.

    """
    session = session_of(model)
    (given,) = session.get_inputs()
    try:
        return concatenated(session.run(None, {given.name: image}) for image in images)
    except ENGINE_ERRORS as error:
        raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return options
