"""How near the forms for TensorRT are to float32, computed by onnxruntime: no GPU has to be there.

    python benchmarks/tensorrt_accuracy.py BUNDLE --data IMAGES [--samples 500]

BUNDLE must have been calibrated: `edgevit quantize BUNDLE --data IMAGES --dialect tensorrt`. The files are those that
TensorRT builds from. onnxruntime runs them node by node, and rounds where the Q/DQ nodes stand: the figures are of the
form, and a GPU adds up in another order.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tensorrt_kernels import FORMS, Model

from edgevit import statistics
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches
from edgevit.quantization.plan import QuantizationPlan
from edgevit.stages.images import DataSource
from edgevit.stages.precisions import OPTIMIZED, PLANS

_BATCH = 8


def logits_of(path: Path, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the logits of batches of images, as the file says: onnxruntime's rewrites do not know FP8."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (input_,) = session.get_inputs()
    return np.concatenate([session.run(None, {input_.name: batch})[0] for batch in images])


def lines(bundle: Bundle, images: list[NDArray[np.float32]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| form | agreement | KL (nats) | SQNR |"
    yield "| --- | --- | --- | --- |"
    plan = QuantizationPlan.load(bundle.verify_extra(PLANS["symmetric"]).path)
    exported = bundle.verify_files("float32")
    model = Model(exported, bundle.verify_extra(OPTIMIZED["symmetric"]).path, plan)
    expected = logits_of(exported, images)
    for form, write in FORMS.items():
        if form == "FP16":  # README.md has it: `edgevit validate` measures it
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write(model, path)
            found = logits_of(path, images)
        agreement, kl = statistics.agreement(expected, found), statistics.mean_kl(expected, found)
        yield f"| {form} | {agreement:.1%} | {kl:.4f} | {statistics.sqnr_db(expected, found):.1f} dB |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int)
    options = parser.parse_args()
    bundle, unreadable = Bundle.open(options.bundle), Strict()
    dataset = DataSource(options.data, "test", unreadable, samples=options.samples).load()
    read = batches(dataset, bundle.manifest.preprocess, batch_size=_BATCH, unreadable=unreadable)
    images = [batch.images for batch in read]
    for line in lines(bundle, images):
        print(line, flush=True)


if __name__ == "__main__":
    main()
