"""Find what does not fit float16: run the model in float32 on real images, and look at each value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends.base import check_images
from edgevit.errors import DataError, GraphError
from edgevit.graph.linears import find_linears
from edgevit.graph.running import ENGINE_ERRORS, session_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.float16.convert import Float16Plan, floats, node_names, note_types

#: The largest number of float16.
LARGEST = float(np.finfo(np.float16).max)
#: How far beyond the scanned images' largest value others may go: twice, one bit. It is a choice: more keeps more nodes
#: in float32, less overflows for an image that goes a little farther.
HEADROOM = 2.0
#: Relative root mean square error of rounding that is too much. Where all numbers are normal it is 2**-11 at the most;
#: four times that is a choice, for tensors with some numbers below the normal ones.
TOLERANCE = 2.0**-9

#: Root mean square from which on rounding need not be tried: a normal number changes by 2**-11 of itself at the most,
#: a smaller one by 2**-25, which is 2**-10 of this.
_SMALL = 2.0**-15

#: Operators that move values and leave them as they are: what holds for their inputs holds for their outputs.
_MOVES = frozenset(
    "Concat Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split()  # noqa: SIM905
)


class Scan:
    """The largest magnitude of a tensor, and what rounding it to float16 costs, over all that was seen of it."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._squares = 0.0
        self._errors = 0.0

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in ``values`` of any shape."""
        # np.maximum, unlike max(), keeps a NaN whichever side it is on.
        self.largest = float(np.maximum(self.largest, np.maximum(values.max(initial=0), -values.min(initial=0))))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told from ``largest``
            squares = float(np.dot(values.ravel(), values.ravel()))
        if squares < values.size * _SMALL**2:
            exact = values.ravel().astype(np.float64)  # squares may be too small for float32
            squares = float(np.dot(exact, exact))
            errors = exact.astype(np.float16) - exact
            self._errors += float(np.dot(errors, errors))
        self._squares += squares

    def unfit_reason(self, headroom: float = 1.0) -> str | None:
        """Return why the tensor does not fit float16; None if it does. ``headroom`` is what is left for others."""
        if not self.largest * headroom <= LARGEST:
            how = "exceeds" if self.largest > LARGEST else "comes too near to"
            return f"{how} float16's largest number, {LARGEST:.0f}: {self.largest:.4g}"
        if self._errors > TOLERANCE**2 * self._squares:
            error = (self._errors / self._squares) ** 0.5
            return f"is at most {self.largest:.2g}, and rounding it to float16 changes it by {100 * error:.2g} %"
        return None


def scan_float16(
    model: ir.Model,
    batches: Iterable[NDArray[np.float32]],
    *,
    total: int,
    model_sha256: str,
    progress: Progress = SILENT,
) -> Float16Plan:
    """Run the float32 ``model`` on images (B, C, H, W) and say which nodes float16 is no good for.

    ``model``, which is used up, was read from the file with ``model_sha256``.

    Every float tensor is looked at: constants, and what each node gives on each image, one image at a time. A node
    stays float32 if one of its inputs, constants or outputs comes within a factor of ``HEADROOM`` of float16's
    largest number, or is so small that rounding changes it by more than ``TOLERANCE``. ``total`` is the number of
    batches, for the progress bar.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, a value is not finite, or not one Linear
            layer fits float16; the message names the node.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    note_types(model)
    graph = model.graph
    watched = {value: Scan() for node in graph if node.op_type not in _MOVES for value in floats(node.outputs)}
    session = _WatchedModel(model, list(watched))
    images = progress.track(batches, total=total, label="Scanning for float16")
    count, images_sha256 = _scan(session, watched, images)
    kept = _kept(graph, {value: reason for value, scan in watched.items() if (reason := scan.unfit_reason(HEADROOM))})
    names = node_names(graph)
    products = [layer.matmul for layer in find_linears(graph)]
    if all(product in kept for product in products):
        raise GraphError(
            f"no Linear layer of this model fits float16; '{names[products[0]]}' for one: {kept[products[0]]}",
            remedy="use --precision int8, or the float32 model",
        )
    return Float16Plan(
        model_sha256=model_sha256,
        images=count,
        images_sha256=images_sha256,
        float32_nodes={names[node]: reason for node, reason in kept.items()},
    )


def _scan(
    session: _WatchedModel, watched: Mapping[ir.Value, Scan], batches: Iterable[NDArray[np.float32]]
) -> tuple[int, str]:
    """Look at all values ``watched`` on each image; return how many images there were, and their SHA-256."""
    digest, count = hashlib.sha256(), 0
    for image in single_images(batches):
        for (value, scan), found in zip(watched.items(), session.run(image), strict=True):
            scan.update(found)
            if not np.isfinite(scan.largest):
                raise GraphError(
                    f"'{value.name}' has values that are not finite on calibration image {count}",
                    remedy="check that the model gives finite logits on this image in float32; are its weights broken?",
                )
        digest.update(image.tobytes())
        count += 1
    if not count:
        raise DataError("there are no calibration images", remedy="give at least one image with --data, better 128")
    return count, digest.hexdigest()


class _WatchedModel:
    """The model in onnxruntime with the values ``watched`` as its outputs."""

    def __init__(self, model: ir.Model, watched: Sequence[ir.Value]) -> None:
        outputs = list(model.graph.outputs)
        if len(model.graph.inputs) != 1:
            raise GraphError(
                f"the model has {len(model.graph.inputs)} inputs, not one",
                remedy="give a model that takes images alone",
            )
        model.graph.outputs[:] = watched
        self._engine = session_of(model)
        model.graph.outputs[:] = outputs
        self._watched = [str(value.name) for value in watched]
        (given,) = self._engine.get_inputs()
        self._input = given.name
        self._shape = [size if isinstance(size, int) else None for size in given.shape]

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the watched values for one image (1, C, H, W)."""
        check_images(image, self._shape)
        try:
            found: list[NDArray[np.float32]] = self._engine.run(self._watched, {self._input: image})
        except ENGINE_ERRORS as error:
            raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
        return found


def _kept(graph: ir.Graph, reasons: dict[ir.Value, str]) -> dict[ir.Node, str]:
    """Return the nodes that must stay float32, and why; ``reasons`` are those of activations that do not fit."""
    reasons = dict(reasons)
    kept: dict[ir.Node, str] = {}
    for node in graph:
        inputs = list(floats(node.inputs))
        found = [
            f"its constant '{value.name}' {reason}" for value in inputs if (reason := _unfit_constant_reason(value))
        ]
        found += [f"its input '{value.name}' {reasons[value]}" for value in inputs if value in reasons]
        if node.op_type in _MOVES:
            inherited = [reasons[value] for value in inputs if value in reasons]
            reasons.update((value, inherited[0]) for value in floats(node.outputs) if inherited)
        found += [f"its output {reasons[value]}" for value in floats(node.outputs) if value in reasons]
        if found:
            kept[node] = found[0]
    return kept


def _unfit_constant_reason(value: ir.Value) -> str | None:
    if value.const_value is None or value.is_graph_input():
        return None
    scan = Scan()
    scan.update(value.const_value.numpy())
    return scan.unfit_reason()
