"""Exports that the tests of the graph share; each takes seconds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import traces
from numpy.typing import NDArray
from once import once

from edgevit.data.preprocess import Preprocess
from edgevit.graph import torch_export
from edgevit.graph.metadata import OPSET
from edgevit.graph.verify import ExportCheck, export_verified
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer

SPECS = {
    "class-learned": ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5),
    "mean-sincos": ModelSpec(
        image_size=(16, 16),
        patch_size=(4, 4),
        width=32,
        depth=2,
        heads=2,
        classes=5,
        pooling="mean",
        position_embedding="sincos",
    ),
    # Weights above the size that onnxscript folds by itself; nothing square; grey; one class.
    "wide": ModelSpec(
        image_size=(8, 24), patch_size=(4, 8), width=264, depth=1, heads=3, classes=1, channels=1, pooling="mean"
    ),
}


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace each time: for what tests that."""
    trace_anew(monkeypatch)


def trace_anew(patch: pytest.MonkeyPatch) -> None:
    """Take back what the other tests have in the place of the exporter."""
    patch.setattr(torch_export, "trace", traces.trace)


class Exported(NamedTuple):
    """A model, the file that it was exported to, and images to compare them on."""

    model: VisionTransformer
    path: Path
    images: NDArray[np.float32]
    check: ExportCheck
    preprocess: Preprocess
    labels: tuple[str, ...]

    def graph(self) -> ir.Graph:
        return ir.load(self.path).graph


def preprocess_of(spec: ModelSpec) -> Preprocess:
    statistics = (0.5,) * spec.channels
    order = "L" if spec.channels == 1 else "RGB"
    return Preprocess(size=spec.image_size, resize=None, mean=statistics, std=statistics, channel_order=order)


def model_of(spec: ModelSpec) -> VisionTransformer:
    """Return a model with no two parameters alike, so that none can be taken for another."""
    torch.manual_seed(0)
    model = VisionTransformer(spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images_of(spec: ModelSpec, count: int) -> NDArray[np.float32]:
    shape = (count, spec.channels, *spec.image_size)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def export(factory: pytest.TempPathFactory, name: str, spec: ModelSpec, model: VisionTransformer) -> Exported:
    """Return ``model``, which is the same for all workers, with its file, which one of them makes."""
    images, preprocess = images_of(spec, 9), preprocess_of(spec)
    labels = tuple(f"class {index}" for index in range(spec.classes))

    def make(folder: Path) -> None:
        path = folder / "export" / "model.onnx"
        path.parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            trace_anew(patch)
            check = export_verified(model, path, images, preprocess=preprocess, labels=labels)
        (folder / "check.json").write_bytes(msgspec.json.encode(check))

    folder = once(factory, f"graph-{name}", make)
    check = msgspec.json.decode((folder / "check.json").read_bytes(), type=ExportCheck)
    return Exported(model, folder / "export" / "model.onnx", images, check, preprocess, labels)


@pytest.fixture(scope="session", params=SPECS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an exported model, one of several architectures."""
    spec = SPECS[request.param]
    return export(tmp_path_factory, request.param, spec, model_of(spec))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return one exported model as it is initialised: biases zero, LayerNorms the identity."""
    spec = SPECS["class-learned"]
    torch.manual_seed(0)
    return export(tmp_path_factory, "small", spec, VisionTransformer(spec))


@pytest.fixture(scope="session")
def parse() -> Callable[..., ir.Model]:
    """Return a function that makes a model of the ONNX text of its graph and its constants, by name."""

    def parse_graph(text: str, constants: Mapping[str, NDArray[np.float32]]) -> ir.Model:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {OPSET}]> {text}')
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
        return ir.from_proto(model)

    return parse_graph


@pytest.fixture(scope="session")
def run() -> Callable[..., NDArray[np.float32]]:
    """Return a function that gives a graph's only output, by onnxruntime without its optimisations."""

    def run_graph(model: ir.Model, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]

    return run_graph
