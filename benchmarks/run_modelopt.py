"""Quantize an ONNX file with NVIDIA's ModelOpt: ``python run_modelopt.py FLOAT32.onnx CALIBRATION.npy OUTPUT.onnx``.

Run by ``peers.py`` with the Python of another environment: ModelOpt's ONNX part brings its own, older onnxruntime.
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize


def main() -> None:
    """Quantize."""
    model, calibration, output = sys.argv[1:]
    quantize(
        model,
        quantize_mode="int8",
        calibration_data=np.load(calibration),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=output,
    )


if __name__ == "__main__":
    main()
