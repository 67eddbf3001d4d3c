"""ncnn, by pnnx. Its quantizer is a program that no Python package brings: float32 alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.mobile.converter import Converter, Image

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.graph.torch_module import TorchGraph

_TRACED, _PARAM, _BIN = "model.pt", "model.ncnn.param", "model.ncnn.bin"


class Ncnn(Converter):
    """``torch.jit.trace`` and pnnx; weights in float32, of which ncnn makes float16 itself where it is asked to."""

    name = "ncnn"
    title = "ncnn"
    modules = ("ncnn", "pnnx")
    packages = ("ncnn", "pnnx")

    def convert(self, module: TorchGraph, image: Tensor, folder: Path) -> Path:
        """Write ``model.ncnn.param`` and ``model.ncnn.bin``."""
        import torch

        torch.jit.trace(module, image).save(str(folder / _TRACED))
        spec = find_spec("pnnx")
        program = Path(str(spec.origin)).with_name("pnnx") if spec else Path("pnnx")
        sizes = ",".join(map(str, image.shape))
        command = [str(program), _TRACED, f"inputshape=[{sizes}]f32", "fp16=0", "optlevel=2"]
        subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        for path in list(folder.iterdir()):
            if path.name not in (_PARAM, _BIN):
                path.unlink()
        _check_layers(folder / _PARAM)
        return folder / _PARAM

    def answers(self, model: Path, images: Sequence[Image] | Image) -> list[list[NDArray[np.float32]]]:
        """Run it in ncnn, in float32."""
        import ncnn

        net = ncnn.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        net.opt.num_threads = 1
        if net.load_param(str(model)) or net.load_model(str(model.with_name(_BIN))):
            raise RuntimeError("ncnn does not open what pnnx has written")
        (given,), names = net.input_names(), net.output_names()
        found = []
        for image in images:
            extractor = net.create_extractor()
            # Without a clone ncnn reads NumPy's memory, which may be gone.
            extractor.input(given, ncnn.Mat(np.ascontiguousarray(image)).clone())
            found.append([np.array(extractor.extract(name)[1]) for name in names])
        return found


def _check_layers(param: Path) -> None:
    """Check that all layers are ncnn's own: pnnx leaves others in the file, with the names that torch has for them.

    Raises:
        GraphError: if one is not.

    """
    layers = [line.split()[0] for line in param.read_text(encoding="utf-8").splitlines() if line.strip()]
    foreign = sorted({layer for layer in layers if "." in layer})
    if foreign:
        raise GraphError(f"ncnn has no layer for {', '.join(foreign)}", remedy="take another format")
