import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx_files import emit, optimize_files

from edgevit.backends import get_backend
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.saving import save
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.planning.smoothing import HEADROOM, ChannelStatistics, choose_equalization
from edgevit.quantization.ptq import CalibrationImages
from edgevit.quantization.rewrites.channel_equalization import equalize_input, follows_activation
from edgevit.recipes import Rewrites


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_fc2_follows_an_activation_and_nothing_else_does(quantized):
    layers = find_linears(load_graph(quantized.path).graph)
    found = [layer.name for layer in layers if follows_activation(layer.input)]
    assert found == [f"blocks.{block}.mlp.fc2" for block in (0, 1)]


WRITTEN_OUT = {
    "GELU with Erf": "d = Div(h, two) e = Erf(d) p = Add(e, one) m = Mul(h, p) y = Mul(m, half)",
    "GELU with Erf, halved first": "d = Div(h, two) e = Erf(d) p = Add(e, one) m = Mul(h, half) y = Mul(m, p)",
    "GELU with Tanh": "c = Mul(h, h) d = Mul(c, h) t = Tanh(d) p = Add(one, t) m = Mul(half, h) y = Mul(m, p)",
    "SiLU": "e = Sigmoid(h) y = Mul(h, e)",
    "QuickGELU": "d = Mul(h, two) e = Sigmoid(d) y = Mul(h, e)",
    "no activation": "d = Add(h, one) y = Mul(d, half)",
    "too far behind": "e = Erf(h) a = Add(e, one) b = Add(a, one) c = Add(b, one) y = Mul(c, half)",
    "behind a product": "e = Erf(h) a = MatMul(e, u) y = Mul(a, half)",
}


@pytest.mark.parametrize("case", WRITTEN_OUT)
def test_activations_that_older_opsets_write_out_are_found(write_graph, case):
    path = write_graph(
        "g (float[n, 1, 8, 8] images) => (float[n, 5] logits) { x = Flatten(images) [fc1] h = MatMul(x, u) "
        f"{WRITTEN_OUT[case]} [fc2] logits = MatMul(y, w) }}",
        {
            "u": np.eye(64, dtype=np.float32),
            "w": np.ones((64, 5), dtype=np.float32),
            **{name: np.float32(value) for name, value in (("half", 0.5), ("one", 1), ("two", 2))},
        },
    )
    layer = {layer.name: layer for layer in find_linears(load_graph(path).graph)}["fc2"]
    assert follows_activation(layer.input) == (case not in ("no activation", "too far behind", "behind a product"))


def test_equalization_changes_no_logits(quantized, tmp_path):
    model = load_graph(quantized.path)
    for layer in find_linears(model.graph):
        if follows_activation(layer.input):
            scale = np.linspace(1, 8, len(layer.weight)).astype(np.float32)
            equalize_input(model.graph, layer, scale)
    save(model, tmp_path / "equalized.onnx")
    after = {layer.name: layer for layer in find_linears(load_graph(tmp_path / "equalized.onnx").graph)}
    before = {layer.name: layer for layer in find_linears(load_graph(quantized.path).graph)}
    name = "blocks.0.mlp.fc2"
    np.testing.assert_allclose(after[name].weight, before[name].weight * scale[:, None], rtol=1e-6)
    np.testing.assert_allclose(
        run(tmp_path / "equalized.onnx", quantized.images), run(quantized.path, quantized.images), atol=1e-5
    )


statistics = st.integers(2, 40).flatmap(
    lambda width: st.tuples(*[hnp.arrays(np.float64, width, elements=st.floats(0, 100)) for _ in range(3)])
)


@given(statistics, st.floats(0.01, 0.5))
def test_no_channel_is_made_wider_and_all_fit_what_is_left(values, share):
    low, high, variance = -values[0], values[1], values[2]
    equalization = choose_equalization(ChannelStatistics(low, high, variance, np.zeros_like(low)), share)
    assert (equalization.scale >= 1).all()
    assert (HEADROOM * high / equalization.scale <= equalization.high * (1 + 1e-9)).all()
    assert (HEADROOM * low / equalization.scale >= equalization.low - 1e-9 * abs(equalization.low)).all()
    assert (equalization.scale > 1).sum() <= max(1, share * len(low)) + 1e-9


@pytest.mark.parametrize(("scheme", "dialect"), [("asymmetric", "onnxruntime"), ("symmetric", "portable")])
def test_an_equalized_model_is_nearer_and_runs_in_integers(quantized, tmp_path, scheme, dialect):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    places = {scheme: tmp_path / "model.onnx"}
    one = optimize_files(quantized.path, images, places, rewrites=Rewrites(channel_equalization=0.25))[1][scheme]
    emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
    exact = run(quantized.path, quantized.images)
    error = ((run(tmp_path / "int8.onnx", quantized.images) - exact) ** 2).mean()
    assert error < ((run(quantized.int8[dialect], quantized.images) - exact) ** 2).mean()
    with get_backend("onnxruntime").open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        assert not check_kernels(session, one.plan.integer_layers()).float_linears
