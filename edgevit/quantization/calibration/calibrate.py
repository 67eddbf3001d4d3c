"""Observe the inputs of a model's Linear layers while it runs on calibration images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.backends.base import check_images
from edgevit.backends.onnxruntime import engine_errors
from edgevit.errors import DataError, GraphError
from edgevit.graph.linears import find_linears
from edgevit.graph.node_facts import before_fake_quant
from edgevit.graph.passes.prune_tokens import PruneToClassToken, pooled_token
from edgevit.graph.saving import serialize, tidy
from edgevit.graph.weights import letting_go
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.observers import InputObserver, Resumable, State, joined, restore
from edgevit.quantization.calibration.pixels import PixelObserver
from edgevit.quantization.calibration.statistics import CalibrationTable


class LayerObserver(Protocol):
    """Takes in a layer's inputs, image by image, in memory that does not grow."""

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the input (..., K) for one image."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """How many images passed, and a SHA-256 of all of them in order, each hashed with the one of those before."""

    images: int
    sha256: str

    def then(self, image: NDArray[np.float32]) -> Seen:
        """Return what was seen with one image more."""
        digest = hashlib.sha256(self.sha256.encode())
        digest.update(np.ascontiguousarray(image).data)
        return Seen(self.images + 1, digest.hexdigest())

    def check(self) -> None:
        """Check that there was an image.

        Raises:
            DataError: if there was none.

        """
        if not self.images:
            raise DataError("there are no calibration images", remedy="give at least one image with --data, better 128")


def calibrate(
    model: ir.Model,
    batches: Iterable[NDArray[np.float32]],
    *,
    total: int,
    model_sha256: str,
    rotated: bool = False,
    progress: Progress = SILENT,
) -> CalibrationTable:
    """Run the float32 ``model`` on preprocessed images and return what its Linear layers' inputs do.

    Images pass one at a time, so memory depends on the model alone, not on how many images there are or how they are
    batched. One pass, in float32, on the CPU.

    Args:
        model: with one input (batch, C, H, W); it stays as it is.
        batches: of images (B, C, H, W).
        total: number of batches, for the progress bar.
        model_sha256: of the file that ``model`` was read from.
        rotated: whether its residual stream has been rotated since, by ``rewrites.rotation``.
        progress: where to report to.

    Raises:
        GraphError: if it has no Linear layers, or an activation is not finite; the message names the layer.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    observation = Observation(model, model_sha256, rotated=rotated)
    for batch in progress.track(batches, total=total, label="Calibrating"):
        observation.update(batch)
    return observation.table()


class Observation:
    """The pass over the images, as far as it has come; it can stop after any batch and go on in another process."""

    def __init__(self, model: ir.Model, model_sha256: str, *, rotated: bool = False) -> None:
        """Open the float32 ``model``; ``model_sha256`` and ``rotated`` are as in ``calibrate``.

        Raises:
            GraphError: if it has no Linear layers, or cannot be run.

        """
        self._model_sha256 = model_sha256
        self._rotated = rotated
        self._engine = ObservedModel(model)
        self._observers = {
            name: InputObserver(width) for name, width in zip(self._engine.layers, self._engine.widths, strict=True)
        }
        self._pixels = PixelObserver()
        self.seen = Seen(0, "")

    def update(self, batch: NDArray[np.float32]) -> None:
        """Take in images (B, C, H, W).

        Raises:
            GraphError: if an activation is not finite; the message names the layer and the image.
            DataError: if they do not fit the model or are not finite.

        """
        for image in one_by_one([batch]):
            self.seen = observe_image(self._engine, self._observers, image, self.seen)
            self._pixels.update(image)

    def table(self, selection_sha256: str = "") -> CalibrationTable:
        """Return what was seen.

        Raises:
            DataError: if there were no images.

        """
        self.seen.check()
        return CalibrationTable(
            inputs={name: observer.statistics() for name, observer in self._observers.items()},
            images=self.seen.images,
            model_sha256=self._model_sha256,
            images_sha256=self.seen.sha256,
            selection_sha256=selection_sha256,
            pixels=self._pixels.statistics(),
            rotated=self._rotated,
        )

    def state(self) -> State:
        """Return all there is to know, for ``restore``; there must have been an image."""
        seen = {"images": np.array(self.seen.images), "sha256": np.array(self.seen.sha256)}
        return joined(self._parts()) | seen

    def restore(self, state: State) -> None:
        """Go on from the ``state`` of a pass over the same model.

        Raises:
            ValueError: if it is of another model; any of ``arrays.DAMAGE`` if it is none.

        """
        fields = dict(state)
        seen = Seen(int(fields.pop("images")), str(fields.pop("sha256")))
        restore(self._parts(), fields)
        self.seen = seen

    def _parts(self) -> dict[str, Resumable]:
        layers = {str(index): observer for index, observer in enumerate(self._observers.values())}
        return {**layers, "pixels": self._pixels}


def observe(
    engine: ObservedModel, observers: Mapping[str, LayerObserver], batches: Iterable[NDArray[np.float32]]
) -> Seen:
    """Show the input of each layer that has one of ``observers`` to it, one image after the other.

    Raises:
        GraphError: if an activation is not finite; the message names the layer and the image.
        DataError: if there are no images, or they do not fit the model or are not finite.

    """
    seen = Seen(0, "")
    for image in one_by_one(batches):
        seen = observe_image(engine, observers, image, seen)
    seen.check()
    return seen


def observe_image(
    engine: ObservedModel, observers: Mapping[str, LayerObserver], image: NDArray[np.float32], before: Seen
) -> Seen:
    """Show the layers' inputs for one image (1, C, H, W) to ``observers``, and return what was seen with it."""
    for name, values in zip([*engine.layers, *engine.others], engine.run(image), strict=True):
        if name in observers:
            _check_finite(name, values, before.images)
            observers[name].update(values)
    return before.then(image)


class ObservedModel:
    """The model in onnxruntime, with the inputs of its Linear layers as its outputs.

    Tokens that the head does not look at are left out behind the last attention, as emitters leave them out: what is
    seen of the layers there is what counts. ``also`` gives further values to look at, by the names they shall have;
    ``layers`` and ``others`` are the names of both. ``token`` is the one that the head looks at, None where that is not
    one.
    """

    def __init__(self, model: ir.Model, also: Callable[[ir.Graph], Mapping[str, ir.Value]] = lambda _: {}) -> None:
        """Open ``model``, which stays as it is.

        Raises:
            GraphError: if it has no Linear layers, more inputs than one, or a fixed batch, or cannot be run.

        """
        with letting_go(model.clone()) as observed:
            graph = observed.graph
            common.ShapeInferencePass()(observed)  # files of others seldom say the shapes of values
            self.token = pooled_token(graph)
            PruneToClassToken()(observed)
            self.widths, layers = _inputs(graph)
            others = also(graph)
            values = {**layers, **others}
            if len(graph.inputs) != 1:
                raise GraphError(
                    f"the model has {len(graph.inputs)} inputs, not one", remedy="give a model that takes images alone"
                )
            self.layers, self.others = list(layers), list(others)
            self._values = [str(value.name) for value in values.values()]
            self._distinct = list(dict.fromkeys(self._values))
            self._input = str(graph.inputs[0].name)
            _give(graph, list(dict.fromkeys(values.values())))
            tidy(observed)
            self._session = session_of(observed)
        shape = self._session.get_inputs()[0].shape
        self._shape = [size if isinstance(size, int) else None for size in shape]
        if self._shape and self._shape[0] is not None:
            raise GraphError(
                f"the model takes {self._shape[0]} images at a time and no other number",
                remedy="export it with a dynamic batch: dynamic_axes or dynamic_shapes of torch.onnx.export",
            )

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return for one image (1, C, H, W) the input of each layer, then the other values."""
        check_images(image, self._shape)
        try:
            found = dict(zip(self._distinct, self._session.run(self._distinct, {self._input: image}), strict=True))
        except engine_errors() as error:
            raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
        return [found[name] for name in self._values]


def _inputs(graph: ir.Graph) -> tuple[list[int], dict[str, ir.Value]]:
    """Return how wide each Linear layer's input is, and by the layer's name what it is."""
    linears = find_linears(graph)
    return [len(layer.weight) for layer in linears], {layer.name: before_fake_quant(layer.input) for layer in linears}


def _give(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Let ``graph`` give ``values`` instead of what it gave."""
    graph.outputs.clear()
    graph.outputs.extend(values)
    for value in values:
        value.dtype = value.dtype or ir.DataType.FLOAT


def session_of(model: ir.Model | Path) -> onnxruntime.InferenceSession:
    """Return ``model``, in memory or a file, in onnxruntime, on the CPU.

    Raises:
        GraphError: if it cannot be run.

    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Threads that spin on after a run would take the cores from the observers: a pass takes half as long again.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        content = str(model) if isinstance(model, Path) else serialize(model)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except engine_errors() as error:
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
    except engine_errors() as error:
        raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error


def one_by_one(batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield each image as a batch of one (1, C, H, W)."""
    for batch in batches:
        for image in batch:
            if not np.isfinite(image).all():
                raise DataError("a calibration image has values that are not finite", remedy="leave that image out")
            yield np.ascontiguousarray(image[None])


def _check_finite(name: str, values: NDArray[np.float32], image: int) -> None:
    if not np.isfinite(values).all():
        raise GraphError(
            f"the input of '{name}' has values that are not finite on calibration image {image}",
            remedy="check that the model gives finite logits on this image in float32: its weights may be broken",
        )
