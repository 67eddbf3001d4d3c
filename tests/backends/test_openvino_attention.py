"""OpenVINO's attention answers as onnxruntime's does whatever is added to its scores, on each processor it runs on."""

import numpy as np
import onnx
import onnxruntime
import pytest

from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
from edgevit.backends.openvino_attention import repeat_score_rows

TOKENS, WIDTH = 24, 32

#: What is done with the scores (B, h, n, N), and what it needs.
STEPS = {
    "nothing": ("s = Identity(a)", None),
    "a row is added": ("s = Add(a, row)", (1, 1, 1, TOKENS)),
    "the row comes first": ("s = Add(row, a)", (TOKENS,)),
    "a row is taken away": ("s = Sub(a, row)", (1, TOKENS)),
    "a row is the least": ("s = Max(a, row)", (1, 1, 1, TOKENS)),
    "they are scaled, too": ("t = Mul(a, half) s = Add(t, row)", (1, 1, 1, TOKENS)),
    "the row is made of another": ("n = Mul(row, half) s = Add(a, n)", (1, 1, 1, TOKENS)),
    "a row for each image": ("m = ReduceMean<keepdims=0>(x, last) r = Reshape(m, of_image) s = Add(a, r)", None),
    "a row for each head": ("s = Add(a, row)", "heads"),
    "a row for each query": ("s = Add(a, row)", "queries"),
}
#: How many rows of them are repeated.
ROWS = {step: int("row" in text and shape not in ("heads", "queries")) for step, (text, shape) in STEPS.items()}
ROWS["a row for each image"] = 1
KEY = "INFERENCE_PRECISION_HINT"


@pytest.fixture(autouse=True)
def _needs_openvino():
    pytest.importorskip("openvino")


@pytest.fixture
def attention(write_graph):
    """Return a function that writes an attention of INT8 scores, with so many heads and queries, to a file."""
    random = np.random.default_rng(0)

    def write(step, heads=2, queries=TOKENS):
        text, shape = STEPS[step]
        shape = {"heads": (1, heads, 1, TOKENS), "queries": (1, 1, queries, TOKENS)}.get(shape, shape)
        constants = {
            "shape": np.array([0, TOKENS, WIDTH]),
            "apart": np.array([0, 0, heads, -1]),
            "of_image": np.array([-1, 1, 1, TOKENS]),
            "last": np.array([-1]),
            "first": np.array([0]),
            "queries": np.array([queries]),
            "tokens": np.array([1]),
            "scale": np.float32(0.03),
            "zero": np.int8(0),
            "half": np.float32(0.5),
            "joined": np.array([0, -1]),
        }
        constants |= {name: random.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32) for name in ("wq", "wk", "wv")}
        if shape is not None:
            constants["row"] = random.normal(0, 2, shape).astype(np.float32)
        graph = f"""g (float[batch, 1, {TOKENS}, {WIDTH}] images) => (float[batch, n] logits) {{
            x = Reshape(images, shape)
            xq = Slice(x, first, queries, tokens)
            q0 = MatMul(xq, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv)
            q1 = Reshape(q0, apart) k1 = Reshape(k0, apart) v1 = Reshape(v0, apart)
            q2 = Transpose<perm=[0, 2, 1, 3]>(q1)
            k2 = Transpose<perm=[0, 2, 3, 1]>(k1)
            v = Transpose<perm=[0, 2, 1, 3]>(v1)
            q3 = QuantizeLinear(q2, scale, zero) q = DequantizeLinear(q3, scale, zero)
            k3 = QuantizeLinear(k2, scale, zero) k = DequantizeLinear(k3, scale, zero)
            a = MatMul(q, k)
            {text}
            p = Softmax<axis=-1>(s)
            o = MatMul(p, v)
            t2 = Transpose<perm=[0, 2, 1, 3]>(o)
            logits = Reshape(t2, joined)
        }}"""
        used = {name: value for name, value in constants.items() if name in graph}
        return write_graph(graph, used)

    return write


def images(count):
    return np.random.default_rng(1).normal(size=(count, 1, TOKENS, WIDTH)).astype(np.float32)


def by_onnxruntime(path, given):
    return onnxruntime.InferenceSession(path).run(None, {"images": given})[0]


@pytest.mark.parametrize(("heads", "queries"), [(2, TOKENS), (2, 1), (1, TOKENS)])
@pytest.mark.parametrize("step", STEPS)
def test_answers_are_onnxruntimes(attention, tmp_path, step, heads, queries):
    path, given = attention(step, heads, queries), images(3)
    expected = by_onnxruntime(path, given)
    largest = np.abs(expected).max()
    for batch in (None, BatchProfile(min=1, opt=1, max=1)):
        built = get_backend("openvino").build(path, tmp_path / str(batch is None), BuildOptions(batch=batch))[0]
        for precision, tolerance in (("f32", 1e-4), ("bf16", 0.2)):
            with get_backend("openvino").open(built, threads=1, settings={KEY: precision}) as session:
                alone = np.concatenate([session.infer(image[None]) for image in given])
                assert np.abs(alone - expected).max() < tolerance * largest
                if batch is None:
                    assert np.abs(session.infer(given) - expected).max() < tolerance * largest


@pytest.mark.parametrize(("step", "heads", "changed"), [(step, 2, ROWS[step]) for step in STEPS])
def test_what_is_one_row_is_repeated_and_nothing_else(attention, step, heads, changed):
    engine = get_backend("openvino")._engine
    model = engine.Core().read_model(attention(step, heads))
    before = {node.get_friendly_name() for node in model.get_ops()}
    assert repeat_score_rows(engine, model) == changed
    new = [node for node in model.get_ops() if node.get_friendly_name() not in before]
    assert sum(node.get_type_name() == "Tile" for node in new) == changed
    for node in new:
        if node.get_type_name() == "Tile":
            assert list(node.get_output_partial_shape(0))[-3:] == [2, 1, TOKENS]
    assert repeat_score_rows(engine, model) == 0  # what was read once more is left as it is


def test_attentions_share_a_repeated_row(write_graph):
    text = f"""g (float[batch, 2, {TOKENS}, {TOKENS}] images) => (float[batch, 2, {TOKENS}, {TOKENS}] logits) {{
        a = MatMul(images, images) b = Add(a, row) c = Softmax(b)
        d = MatMul(c, images) e = Add(row, d) f = Softmax(e)
        logits = MatMul(f, images)
    }}"""
    path = write_graph(text, {"row": np.zeros((1, 1, 1, TOKENS), np.float32)})
    engine = get_backend("openvino")._engine
    model = engine.Core().read_model(path)
    assert repeat_score_rows(engine, model) == 2
    assert sum(node.get_type_name() == "Tile" for node in model.get_ops()) == 1


def test_rows_of_one_name_are_each_its_own(write_graph):
    text = f"""g (float[batch, 2, {TOKENS}, {TOKENS}] images) => (float[batch, 2, {TOKENS}, {TOKENS}] logits) {{
        r = Mul(row, two) q = Mul(row, three)
        a = MatMul(images, images) b = Add(a, r) c = Softmax(b)
        d = MatMul(c, images) e = Add(d, q) logits = Softmax(e)
    }}"""
    row = np.linspace(0, 1, TOKENS, dtype=np.float32).reshape(1, 1, 1, -1)
    path = write_graph(text, {"row": row, "two": np.float32(2), "three": np.float32(3)})
    given = np.random.default_rng(1).normal(size=(2, 2, TOKENS, TOKENS)).astype(np.float32)
    expected = by_onnxruntime(path, given)  # which does not take two nodes of one name
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = "same"
    onnx.save(model, path)
    with get_backend("openvino").open(path, threads=1, settings={KEY: "f32"}) as session:
        np.testing.assert_allclose(session.infer(given).reshape(expected.shape), expected, rtol=1e-3, atol=1e-5)


def test_a_softmax_of_something_else_is_left_as_it_is(write_graph):
    text = "g (float[b, 2, 3, 8] images) => (float[b, 2, 3, 8] logits) { a = Add(images, row) logits = Softmax(a) }"
    engine = get_backend("openvino")._engine
    model = engine.Core().read_model(write_graph(text, {"row": np.zeros((1, 1, 1, 8), np.float32)}))
    assert repeat_score_rows(engine, model) == 0
