"""How long OpenVINO's integer Linear layers take over the number of rows: why tokens are padded.

    python benchmarks/openvino_rows.py [--width 192]... [--from 185] [--to 208] [--threads 2] [--output FILE]

The Linear layers of eight blocks of a ViT, one after the other, nothing between them but quantization, with random
weights. All numbers of rows take turns; each runs once before it is timed. Of each the fastest tenth of the rounds
counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from command_line import command_line
from comparison import machine, markdown
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgevit.files import write_atomically

BLOCKS, ROUNDS, WARM_UP, FASTEST = 8, 40, 3, 0.1


def chain(rows: int, width: int) -> bytes:
    """Return the model: (1, rows, width) in float32 to the same."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    scale, zero_point = constant("scale", np.array(0.02, np.float32)), constant("zero_point", np.array(128, np.uint8))
    value = "tokens"
    for number, (into, out) in enumerate([(1, 3), (3, 1), (1, 4), (4, 1)] * BLOCKS):
        weight = random.integers(-127, 128, (into * width, out * width)).astype(np.int8)
        scales = constant(f"weight_scale_{number}", np.full(out * width, 1e-3, np.float32))
        quantized, given, weights = f"quantized_{number}", f"input_{number}", f"weight_{number}"
        nodes += [
            helper.make_node("QuantizeLinear", [value, scale, zero_point], [quantized]),
            helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [given]),
            helper.make_node("DequantizeLinear", [constant(f"int8_{number}", weight), scales], [weights], axis=1),
            helper.make_node("MatMul", [given, weights], [f"output_{number}"]),
        ]
        value = f"output_{number}"
    tokens, answer = (helper.make_tensor_value_info(name, 1, [1, rows, width]) for name in ("tokens", value))
    graph = helper.make_graph(nodes, "chain", [tokens], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def milliseconds(counts: list[int], width: int, threads: int) -> list[float]:
    """Return what the layers take for each number of rows."""
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    requests = [
        core.compile_model(core.read_model(chain(rows, width)), "CPU", settings).create_infer_request()
        for rows in counts
    ]
    images = [np.zeros((1, rows, width), np.float32) for rows in counts]
    times = np.zeros((WARM_UP + ROUNDS, len(counts)))
    for row in times:
        for index, (request, image) in enumerate(zip(requests, images, strict=True)):
            request.infer([image])
            started = time.perf_counter()
            request.infer([image])
            row[index] = time.perf_counter() - started
    found: list[float] = (np.quantile(times[WARM_UP:], FASTEST, axis=0) * 1e3).tolist()
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, action="append", default=[])
    parser.add_argument("--from", type=int, default=185, dest="first")
    parser.add_argument("--to", type=int, default=208, dest="last")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/openvino-rows.md"))
    options = parser.parse_args()
    counts = list(range(options.first, options.last + 1))
    widths = options.width or [192, 384, 768]
    columns = [milliseconds(counts, width, options.threads) for width in widths]
    rows = [[str(count), *(f"{ms:.2f}" for ms in each)] for count, *each in zip(counts, *columns, strict=True)]
    text = [
        "# Rows that OpenVINO's integer kernels like",
        "",
        f"Written by `{command_line()}`: milliseconds of the Linear layers of eight blocks in INT8, by rows and width.",
        "",
        machine(options.threads),
        "",
        markdown(("rows", *(f"width {width}" for width in widths)), rows),
    ]
    write_atomically(options.output, ("\n".join(text) + "\n").encode())
    print("\n".join(text))


if __name__ == "__main__":
    main()
