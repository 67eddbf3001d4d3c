"""How fast onnxruntime's operators for attention are beside each other, by the number of heads.

    python benchmarks/attention_forms.py [--heads 3 6 12] [--tokens 197] [--threads 2]

Prints a Markdown table: the time of ONNX's Attention over that of com.microsoft's MultiHeadAttention, the same with a
number added to the scores of each key, as for merged tokens, and with the integer products in front the time of
com.microsoft's QAttention over that of three MatMulIntegerToFloat and the faster of the two. Heads of 64, one image,
median of interleaved rounds with the middle nine tenths. ``fuse_attention.py`` and ``fuse_quantized_attention.py`` in
``quantization/emit/`` go by it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_DOMAIN = "com.microsoft"
_FLOAT = ("Attention", "MultiHeadAttention")
_HEAD = 64
_ROUNDS, _RUNS = 60, 20


def float_model(operator: str, heads: int, tokens: int, *, biased: bool = False) -> onnx.ModelProto:
    """Return the operator alone, ``biased`` with what makes a bias of all queries of one number for each key."""
    node, shape = attention(operator, heads), [1, tokens, _HEAD * heads]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"]
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    if not biased:
        return model([node], inputs, given)
    node.input.extend(["bias"] if operator == "Attention" else ["", "", "bias"])
    inputs.append(helper.make_tensor_value_info("sizes", TensorProto.FLOAT, [1, 1, 1, tokens]))
    size = numpy_helper.from_array(np.array([1, 1, tokens, 1]), "size")
    return model([helper.make_node("Expand", ["sizes", "size"], ["bias"]), node], inputs, given, [size])


def integer_model(operator: str, heads: int, tokens: int) -> onnx.ModelProto:
    """Return the operator with the integer products for query, key and value."""
    width, random = _HEAD * heads, np.random.default_rng(0)
    weight = random.integers(-127, 128, (width, 3 * width)).astype(np.int8)
    constants = {"scale": np.float32(0.02), "zero": np.uint8(128)}
    if operator == "QAttention":
        scales, bias = np.full(3 * width, 1e-3, np.float32), np.zeros(3 * width, np.float32)
        constants |= {"weight": weight, "scales": scales, "bias": bias, "weight_zero": np.int8(0)}
        names = ["x", "weight", "bias", "scale", "scales", "", "zero", "weight_zero"]
        nodes = [helper.make_node(operator, names, ["y"], domain=_DOMAIN, num_heads=heads)]
    else:
        nodes = [attention(operator, heads)]
        scales, bias = np.full(width, 1e-3, np.float32), np.zeros(width, np.float32)
        constants |= {"scales": scales, "bias": bias}
        for index, name in enumerate("kvq"):
            part = weight[:, [width, 2 * width, 0][index] :][:, :width]
            constants[f"weight_{name}"] = np.ascontiguousarray(part)
            names = ["x", f"weight_{name}", "scale", "scales", "zero", "", "bias"]
            nodes.insert(0, helper.make_node("MatMulIntegerToFloat", names, [name], domain=_DOMAIN))
    taken = [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, tokens, width])]
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, tokens, width])
    return model(nodes, taken, given, [numpy_helper.from_array(np.asarray(each), n) for n, each in constants.items()])


def attention(operator: str, heads: int) -> onnx.NodeProto:
    """Return the node that takes q, k and v and gives y."""
    standard = operator == "Attention"
    count = {"q_num_heads": heads, "kv_num_heads": heads} if standard else {"num_heads": heads}
    domain = "" if standard else _DOMAIN
    return helper.make_node(operator, ["q", "k", "v"], ["y"], domain=domain, scale=_HEAD**-0.5, **count)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """Return a checked model of ``nodes``."""
    graph = helper.make_graph(nodes, "attention", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(_DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(made)
    return made


def session(made: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Return what runs a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])


def seconds(run: onnxruntime.InferenceSession, feed: dict[str, NDArray[Any]]) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run.run(None, feed)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--tokens", type=int, default=197)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print("| heads | Attention over MultiHeadAttention | with a bias | QAttention over products and the faster |")
    print("| --- | --- | --- | --- |")
    random = np.random.default_rng(0)
    for heads in options.heads:
        shape = (1, options.tokens, heads * _HEAD)
        feed: dict[str, NDArray[Any]] = {name: random.normal(size=shape).astype(np.float32) for name in "qkv"}
        middle, cell = compare(
            [float_model(operator, heads, options.tokens) for operator in _FLOAT], feed, options.threads
        )
        sizes = random.integers(1, 6, (1, 1, 1, options.tokens))
        biased = [float_model(operator, heads, options.tokens, biased=True) for operator in _FLOAT]
        _, with_bias = compare(biased, {**feed, "sizes": np.log(sizes).astype(np.float32)}, options.threads)
        faster = _FLOAT[0 if middle < 1 else 1]
        integers = [integer_model(operator, heads, options.tokens) for operator in ("QAttention", faster)]
        _, other = compare(integers, {"x": random.integers(0, 256, shape, dtype=np.uint8)}, options.threads)
        print(f"| {heads} | {cell} | {with_bias} | {other} |", flush=True)


def compare(models: list[onnx.ModelProto], feed: dict[str, NDArray[Any]], threads: int) -> tuple[float, str]:
    """Return the time of the first model over that of the second, with a cell that shows how it varies."""
    one, other = (session(each, threads) for each in models)
    np.testing.assert_allclose(one.run(None, feed)[0], other.run(None, feed)[0], atol=1e-4)
    ratios = [seconds(one, feed) / seconds(other, feed) for _ in range(_ROUNDS)]
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    return float(middle), f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
