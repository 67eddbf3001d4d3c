"""How fast onnxruntime's two operators for attention are beside each other, by the number of heads.

    python benchmarks/attention_forms.py [--heads 3 6 12] [--tokens 197] [--threads 2]

Prints a Markdown table: the time of ONNX's Attention over that of com.microsoft's MultiHeadAttention, heads of 64, one
image, median of interleaved rounds with the middle nine tenths. ``quantization/emit/fuse_attention.py`` goes by it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

_HEAD = 64
_ROUNDS, _RUNS = 60, 20


def session(
    operator: str, domain: str, heads: dict[str, int], tokens: int, threads: int
) -> onnxruntime.InferenceSession:
    """Return a session for the operator alone; ``heads`` is how it is told their number."""
    shape = [1, tokens, _HEAD * next(iter(heads.values()))]
    node = helper.make_node(operator, ["q", "k", "v"], ["y"], domain=domain, scale=_HEAD**-0.5, **heads)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"]
    graph = helper.make_graph(
        [node], "attention", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def seconds(model: onnxruntime.InferenceSession, feed: dict[str, NDArray[np.float32]]) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        model.run(None, feed)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--tokens", type=int, default=197)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print("| heads | Attention over MultiHeadAttention | from 5 % to 95 % |")
    print("| --- | --- | --- |")
    random = np.random.default_rng(0)
    for heads in options.heads:
        names = ({"q_num_heads": heads, "kv_num_heads": heads}, {"num_heads": heads})
        standard = session("Attention", "", names[0], options.tokens, options.threads)
        contributed = session("MultiHeadAttention", "com.microsoft", names[1], options.tokens, options.threads)
        feed = {name: random.normal(size=(1, options.tokens, heads * _HEAD)).astype(np.float32) for name in "qkv"}
        np.testing.assert_allclose(standard.run(None, feed)[0], contributed.run(None, feed)[0], atol=1e-4)
        ratios = [seconds(standard, feed) / seconds(contributed, feed) for _ in range(_ROUNDS)]
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        print(f"| {heads} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
