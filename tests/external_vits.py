"""ViTs of timm and transformers with random weights, as torch's exporters write them: images of 32x32, 5 classes."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import oracles
import pytest
from once import kept, made
from oracles import import_timm

if TYPE_CHECKING:
    from torch import nn

TOKENS = 17
CLASSES = 5
#: Linear layers: four in each of timm's two blocks, six in each of transformers', and the head.
LINEARS = {"timm": 9, "hugging-face": 13}


def _randomise(model: nn.Module) -> nn.Module:
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def timm_vit(*, fused: bool = True) -> nn.Module:
    """Return a small ViT of timm's; ``fused`` False writes its attention out, which old opsets need."""
    timm = import_timm()
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    for block in model.blocks:
        block.attn.fused_attn = fused
    return _randomise(model)


def hugging_face_vit(*, head: bool = True) -> nn.Module:
    """Return a small ViT of transformers', with a classifier, or with two outputs: hidden states and pooled vector."""
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=64, num_labels=CLASSES)
    return _randomise(ViTForImageClassification(config) if head else ViTModel(config))


def write_old(
    model: nn.Module,
    path: Path,
    *,
    batch: int | None = None,
    opset: int = 17,
    size: tuple[int, int, int] = (3, 32, 32),
    **options: Any,
) -> Path:
    """Write ``model`` by torch's older exporter; with ``batch`` None it takes any number of images."""
    import torch

    axes = {} if batch else {"dynamic_axes": {"x": {0: "b"}}}
    options = {"input_names": ["x"], "output_names": ["y"], **axes, **options}
    images = torch.zeros(batch or 1, *size)
    return _quietly(
        lambda: torch.onnx.export(model, (images,), path, dynamo=False, opset_version=opset, **options), path
    )


def write_new(model: nn.Module, path: Path, *, batch: int | None = None, external: bool = False) -> Path:
    """Write ``model`` by torch's newer exporter; with ``external`` its weights lie in another file."""
    import torch

    shapes = None if batch else ({0: torch.export.Dim("b")},)
    images = torch.zeros(batch or 2, 3, 32, 32)
    return _quietly(
        lambda: torch.onnx.export(
            model,
            (images,),
            path,
            dynamo=True,
            verbose=False,
            external_data=external,
            dynamic_shapes=shapes,
            input_names=["x"],
        ),
        path,
    )


def _quietly(export: Callable[[], object], path: Path) -> Path:
    import torch

    with torch.random.fork_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        export()
    return path


def as_gemm(source: Path, path: Path) -> Path:
    """Write ``source`` with a Gemm between two Reshapes for each MatMul and Add, as other exporters do."""
    model = onnx.load(source)
    graph = model.graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    nodes, gemm = [], {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            gemm[node.output[0]] = node
            continue
        product = next((gemm.pop(name) for name in node.input if name in gemm), None)
        if product is None:
            nodes.append(node)
            continue
        assert node.op_type == "Add"
        (bias,) = (name for name in node.input if name != product.output[0])
        name, (width, outputs) = product.name, constants[product.input[1]].shape
        for key, shape in (("in", [-1, width]), ("out", [-1, TOKENS, outputs])):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), f"{name}.{key}"))
        flat, short = f"{name}.flat", f"{name}.short"
        nodes += [
            onnx.helper.make_node("Reshape", [product.input[0], f"{name}.in"], [flat], name=f"{name}.flatten"),
            onnx.helper.make_node("Gemm", [flat, product.input[1], bias], [short], name=name),
            onnx.helper.make_node("Reshape", [short, f"{name}.out"], [node.output[0]], name=f"{name}.unflatten"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


def optimised(source: Path, path: Path) -> Path:
    """Write ``source`` as onnxruntime's session has it: fused, in operators of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return path


def for_transformers(source: Path, path: Path, *, half: bool = False) -> Path:
    """Write ``source`` as onnxruntime's tool for transformers leaves it, in float16 with ``half``."""
    from onnxruntime.transformers import optimizer

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = optimizer.optimize_model(str(source), model_type="vit", num_heads=2, hidden_size=32)
        if half:
            model.convert_float_to_float16(keep_io_types=False)
        model.save_model_to_file(str(path))
    return path


def with_branches(model: nn.Module, path: Path) -> Path:
    """Write ``model`` behind scripted tests of sizes, which torch's older exporter keeps as If."""
    import torch

    def one_more(images: torch.Tensor) -> torch.Tensor:
        if images.dim() == 4 and images.size(1) == 3:
            if images.size(2) > 1000:
                return images[:, :, ::2]
            return images + 0.0
        return images.unsqueeze(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(one_more)

    class Scripted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.model(scripted(images))
            return answer

    return write_old(Scripted().eval(), path, opset=13)


EVERY_AXIS = {0: "batch_size", 1: "num_channels", 2: "height", 3: "width"}
WRITERS: dict[str, Callable[[Path], object]] = {
    "old": lambda path: write_old(timm_vit(), path),
    "new": lambda path: write_new(timm_vit(), path),
    "external": lambda path: write_new(timm_vit(), path, external=True),
    "opset 12": lambda path: write_old(timm_vit(fused=False), path, opset=12),
    "one image, old": lambda path: write_old(timm_vit(), path, batch=1),
    "one image, new": lambda path: write_new(timm_vit(), path, batch=1),
    "two images": lambda path: write_old(timm_vit(), path, batch=2),
    "hugging face, old": lambda path: write_old(hugging_face_vit(), path),
    "hugging face, new": lambda path: write_new(hugging_face_vit(), path),
    "hugging face, one image": lambda path: write_new(hugging_face_vit(), path, batch=1),
    "any size": lambda path: write_old(hugging_face_vit(), path, dynamic_axes={"x": EVERY_AXIS}),
    "branches": lambda path: with_branches(timm_vit(fused=False), path),
    "hidden": lambda path: write_old(hugging_face_vit(head=False), path, output_names=["last", "pooled"]),
}
#: What other tools make of a file, and of which.
REWRITERS: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "gemm": ("old", as_gemm),
    "optimised": ("old", optimised),
    "optimised, opset 12": ("opset 12", optimised),
    "for transformers": ("hugging face, old", for_transformers),
    "for transformers, half": ("opset 12", partial(for_transformers, half=True)),
}


def exports(factory: pytest.TempPathFactory, *more: Path) -> Path:
    """Return a shelf for what the code here, and that in ``more`` files, has torch export."""
    packages = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "timm", "transformers", "numpy")
    return kept(factory, "external", [Path(__file__), Path(oracles.__file__), *more], packages)


class ExternalVits:
    """A file of each kind, written when it is asked for: torch takes seconds for some."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._shelf = exports(factory)

    def __getitem__(self, kind: str) -> Path:
        if kind in REWRITERS:
            source, rewrite = REWRITERS[kind]
            given = self[source]
            write: Callable[[Path], object] = partial(rewrite, given)
        else:
            write = WRITERS[kind]
        name = kind.replace(", ", "-").replace(" ", "-") + ".onnx"
        return made(self._shelf, f"external-{name}", lambda folder: write(folder / name)) / name
