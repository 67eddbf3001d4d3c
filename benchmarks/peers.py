"""What others make of the same float32 model and the same calibration images, one function for each way to do it.

Each peer is used as its own documentation shows, with the options named in its description. Needs
``pip install -r benchmarks/requirements-peers.txt`` in an environment of its own, and for ModelOpt another one
(``pip install nvidia-modelopt[onnx]==0.47.0``), whose Python the variable ``MODELOPT_PYTHON`` names. A peer that is not
installed, or that fails on the model, is listed with the reason.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevit.data.batches import Strict, batches
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.graph.linears import find_linears, load_graph
from edgevit.models.checkpoints import Checkpoint

MODELOPT_PYTHON = "MODELOPT_PYTHON"


@dataclass(frozen=True, slots=True)
class Material:
    """What every peer starts from: the checkpoint, its float32 ONNX file, and the calibration images."""

    checkpoint: Checkpoint
    float32: Path
    calibration: Dataset
    threads: int

    def images(self) -> Iterator[NDArray[np.float32]]:
        """Yield the calibration images one by one (1, C, H, W), preprocessed."""
        preprocess: Preprocess = self.checkpoint.preprocess
        for batch in batches(self.calibration, preprocess, batch_size=1, unreadable=Strict()):
            yield batch.images


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to quantize; ``make`` writes a file for ``backend`` into a folder and returns it."""

    name: str
    description: str
    backend: str
    needs: str
    make: Callable[[Material, Path], Path]

    def missing(self) -> str | None:
        """Return the package that it needs and that is not installed, None if there is none."""
        return None if importlib.util.find_spec(self.needs) is not None else self.needs


def _linears(material: Material) -> list[str]:
    graph = load_graph(material.float32).graph
    return [str(layer.matmul.name) for layer in find_linears(graph)]


def _cleared(source: Path, target: Path) -> Path:
    """Copy an ONNX file without its intermediate shapes, which quantize_dynamic takes for true once it changed them."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    onnx.save(model, target)
    return target


def _static(material: Material, source: Path, target: Path, **options: Any) -> Path:  # noqa: ANN401
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = material.images()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {name: image}

    quantize_static(str(source), str(target), Reader(), **options)
    return target


def ort_static(material: Material, folder: Path) -> Path:
    """All operators that onnxruntime quantizes by default."""
    return _static(material, material.float32, folder / "model.onnx", per_channel=True)


def ort_static_linears(material: Material, folder: Path) -> Path:
    """Only the Linear layers, unsigned activations: its most accurate static form on a ViT."""
    from onnxruntime.quantization import QuantType

    return _static(
        material,
        material.float32,
        folder / "model.onnx",
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=_linears(material),
    )


def ort_static_qoperator(material: Material, folder: Path) -> Path:
    """MatMul and Gemm, in the QOperator format."""
    from onnxruntime.quantization import QuantFormat, QuantType

    return _static(
        material,
        material.float32,
        folder / "model.onnx",
        quant_format=QuantFormat.QOperator,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
    )


def ort_static_fused(material: Material, folder: Path) -> Path:
    """The Linear layers, after onnxruntime's own optimizer for ViTs has fused attention and norms."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.transformers import optimizer

    spec = material.checkpoint.spec
    fused = folder / "fused.onnx"
    optimized = optimizer.optimize_model(
        str(material.float32), model_type="vit", num_heads=spec.heads, hidden_size=spec.width, opt_level=0
    )
    optimized.save_model_to_file(str(fused))
    return _static(
        material,
        fused,
        folder / "model.onnx",
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
    )


def ort_dynamic(material: Material, folder: Path) -> Path:
    """Weights in INT8, activations quantized again in every run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = _cleared(material.float32, folder / "cleared.onnx")
    target = folder / "model.onnx"
    quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)
    return target


def _nncf(material: Material, folder: Path, **options: Any) -> Path:  # noqa: ANN401
    import nncf
    import openvino

    model = openvino.convert_model(str(material.float32))
    images = list(material.images())
    quantized = nncf.quantize(
        model, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images), **options
    )
    target = folder / "model.xml"
    openvino.save_model(quantized, str(target), compress_to_fp16=False)
    return target


def nncf_default(material: Material, folder: Path) -> Path:
    """NNCF for transformers, as it is."""
    return _nncf(material, folder)


def nncf_best(material: Material, folder: Path) -> Path:
    """NNCF for transformers with asymmetric activations and the accurate bias correction."""
    import nncf

    return _nncf(material, folder, preset=nncf.QuantizationPreset.MIXED, fast_bias_correction=False)


def inductor_pt2e(material: Material, folder: Path) -> Path:
    """PyTorch 2 export quantization for x86; saved before it is compiled, which happens when it is opened."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    spec = material.checkpoint.spec
    example = (torch.zeros(1, spec.channels, *spec.image_size),)
    exported = torch.export.export(material.checkpoint.model(), example).module()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for image in material.images():
            prepared(torch.from_numpy(image))
        converted = convert_pt2e(prepared)
        program = torch.export.export(converted, example)
    target = folder / "model.pt2"
    torch.export.save(program, target)
    return target


def inductor_float32(material: Material, folder: Path) -> Path:
    """PyTorch in float32, compiled by inductor."""
    import torch

    spec = material.checkpoint.spec
    example = (torch.zeros(1, spec.channels, *spec.image_size),)
    target = folder / "model.pt2"
    torch.export.save(torch.export.export(material.checkpoint.model(), example), target)
    return target


def modelopt(material: Material, folder: Path) -> Path:
    """NVIDIA's ModelOpt on the ONNX file, INT8, in the environment of ``MODELOPT_PYTHON``."""
    python = os.environ.get(MODELOPT_PYTHON)
    if python is None:
        raise RuntimeError(f"{MODELOPT_PYTHON} names no Python that has nvidia-modelopt[onnx]")
    calibration, target = folder / "calibration.npy", folder / "model.onnx"
    np.save(calibration, np.concatenate(list(material.images())))
    script = Path(__file__).with_name("run_modelopt.py")
    subprocess.run([python, script, material.float32, calibration, target], check=True)
    return target


PEERS = (
    Peer("ort static", "quantize_static, default operators, per channel", "onnxruntime", "onnxruntime", ort_static),
    Peer("ort static, Linears", "Linear layers, U8, per channel", "onnxruntime", "onnxruntime", ort_static_linears),
    Peer("ort static, QOperator", "MatMul and Gemm, U8, QOperator", "onnxruntime", "onnxruntime", ort_static_qoperator),
    Peer(
        "ort static, fused",
        "transformers optimizer (vit), then MatMul and Gemm, U8",
        "onnxruntime",
        "onnxruntime",
        ort_static_fused,
    ),
    Peer("ort dynamic", "quantize_dynamic, per channel", "onnxruntime", "onnxruntime", ort_dynamic),
    Peer("nncf", "quantize, TRANSFORMER", "openvino", "nncf", nncf_default),
    Peer("nncf, best", "TRANSFORMER, MIXED preset, accurate bias correction", "openvino", "nncf", nncf_best),
    Peer("inductor PT2E", "torchao X86InductorQuantizer, static", "inductor", "torchao", inductor_pt2e),
    Peer("inductor float32", "torch.compile with freezing", "inductor", "torch", inductor_float32),
    Peer("ModelOpt", "modelopt.onnx.quantization, int8", "onnxruntime", "onnxruntime", modelopt),
)
