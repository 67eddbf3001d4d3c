"""ViTs of nn.MultiheadAttention, as torch's exporters write them, in the form of EdgeViT's own exports."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from external_vits import exports, write_new, write_old
from once import made, once
from onnx_files import emit, optimize_files
from onnx_ir.passes import common

from edgevit.graph.attention import find_attentions
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.passes.fuse_gelu import FuseGelu
from edgevit.graph.passes.prune_tokens import pooled_token
from edgevit.quantization.ptq import CalibrationImages
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.rewrites.smoothing_mappings import find_smoothing_mappings
from edgevit.statistics import sqnr_db

torch = pytest.importorskip("torch")
nn = torch.nn

WIDTH, TOKENS = 32, 17
RNG = np.random.default_rng(0)
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
PIXELS = RNG.integers(0, 256, size=(48, 3, 32, 32)) / 255
IMAGES = ((PIXELS - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32)


class Block(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=first)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        return x + self.mlp(self.norm2(x))


class MultiheadViT(nn.Module):
    def __init__(self, first, outliers):
        super().__init__()
        self.first, self.embed = first, nn.Conv2d(3, WIDTH, 8, 8)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(Block(first), Block(first))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.2)
        if outliers:
            with torch.no_grad():
                for block in self.blocks:
                    plant(block)

    def forward(self, images):
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(images.shape[0], -1, -1), patches], dim=1) + self.positions
        x = self.norm(self.blocks(x if self.first else x.transpose(0, 1)))
        return self.head(x[:, 0] if self.first else x[0])


def plant(block):
    """Widen some channels behind the norms and of the values, and narrow what reads them: the function stays."""
    attention, wide = block.attention, [3, 11, 27]
    for norm, reader in ((block.norm1, attention.in_proj_weight), (block.norm2, block.mlp[0].weight)):
        norm.weight[wide] *= 30
        reader[:, wide] /= 30
    attention.in_proj_weight[[2 * WIDTH + channel for channel in wide]] *= 50
    attention.out_proj.weight[:, wide] /= 50


WRITERS = {
    "opset 13": lambda model, path: write_old(model, path, opset=13),
    "opset 17, one image": lambda model, path: write_old(model, path, batch=1),
    "dynamo": write_new,
    "dynamo, one image": lambda model, path: write_new(model, path, batch=1),
}
KINDS = [(first, name) for first in (True, False) for name in WRITERS]


@pytest.fixture
def written(tmp_path_factory):
    """Write a ViT of nn.MultiheadAttention, and return the file given and the bundle's."""

    def write(first, name, *, outliers=False):
        def make(folder):
            model = open_onnx(given, "given.onnx", MetadataOverrides(image_size=(32, 32)))
            write_verified(model, folder / "model.onnx", IMAGES[:8])

        def export(folder):
            WRITERS[name](MultiheadViT(first, outliers).eval(), folder / "given.onnx")

        key = f"multihead-{first}-{name.replace(', ', '-').replace(' ', '-')}-{outliers}"
        given = made(exports(tmp_path_factory, Path(__file__)), key, export) / "given.onnx"
        return given, once(tmp_path_factory, key, make) / "model.onnx"

    return write


def opened(path):
    model = ir.load(path)
    common.ShapeInferencePass()(model)
    return model


def answers(path, images, size):
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: part})[0] for part in np.split(images, len(images) // size)])


@pytest.mark.parametrize(("first", "name"), KINDS)
def test_multihead_attention_has_the_form_of_our_own_exports(written, first, name):
    given, path = written(first, name)
    graph = opened(path).graph
    assert [attention.packed() is not None for attention in find_attentions(graph)] == [True, True]
    assert len(find_smoothing_mappings(graph)) == 7  # three in each block, and the head
    assert pooled_token(graph) == (0, TOKENS)
    kinds = [node.op_type for node in graph]
    assert (kinds.count("Gelu"), kinds.count("LayerNormalization"), kinds.count("Gemm")) == (2, 5, 0)
    assert rotate_stream(graph)
    expected = answers(given, IMAGES[:8], 1 if "one image" in name else 8)
    for size in (1, 4, 8):
        np.testing.assert_allclose(answers(path, IMAGES[:8], size), expected, atol=1e-4)


@pytest.mark.parametrize(("first", "name"), [(True, "opset 13"), (False, "dynamo, one image")])
def test_planted_outliers_cost_little(written, tmp_path, first, name):
    found = []
    for outliers in (False, True):
        _, path = written(first, name, outliers=outliers)
        source = CalibrationImages(lambda: iter(np.split(IMAGES[:24], 3)), 3)
        _, optimized = optimize_files(path, source, {"asymmetric": tmp_path / "optimized.onnx"})
        emit(optimized["asymmetric"].model, optimized["asymmetric"].plan, "onnxruntime", tmp_path / "int8.onnx")
        exact = answers(path, IMAGES[24:], 24)
        found.append(sqnr_db(exact, answers(tmp_path / "int8.onnx", IMAGES[24:], 24)))
    assert found[0] > 20
    assert found[0] - found[1] < 3


@pytest.mark.parametrize("kind", ["hugging face, new", "hugging face, one image"])
def test_a_mask_that_hides_nothing_is_left_out(external_vits, tmp_path, kind):
    model = open_onnx(external_vits[kind], "given.onnx", MetadataOverrides(image_size=(32, 32)))
    write_verified(model, tmp_path / "model.onnx", IMAGES[:4])
    graph = opened(tmp_path / "model.onnx").graph
    assert len(find_attentions(graph)) == 2
    assert "IsNaN" not in {node.op_type for node in graph}


def test_a_query_of_the_class_token_alone_does_not_scale_what_keys_read(external_vits, tmp_path):
    # Behind the last norm the query's layer was seen with one token, those of key and value with all.
    given = external_vits["hugging face, old"]
    path = tmp_path / "model.onnx"
    write_verified(open_onnx(given, "given.onnx", MetadataOverrides(image_size=(32, 32))), path, IMAGES[:4])
    source = CalibrationImages(lambda: iter(np.split(IMAGES[:24], 3)), 3)
    _, optimized = optimize_files(path, source, {"asymmetric": tmp_path / "optimized.onnx"})
    emit(optimized["asymmetric"].model, optimized["asymmetric"].plan, "onnxruntime", tmp_path / "int8.onnx")
    exact = answers(path, IMAGES[24:], 24)
    assert sqnr_db(exact, answers(tmp_path / "int8.onnx", IMAGES[24:], 24)) > 35  # 27 where one token scaled all


HEADS_INSIDE = """<ir_version: 9, opset_import: ["": 20]>
g (float[b, 3, 32, 32] images) => (float[b, 5] logits)
<int64[3] cut = {-1, 96, 32}, int64[5] apart = {-1, 96, 2, 3, 16}, int64[1] third = {1}, int64[3] tokens = {-1, 96, 32},
 int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, float scale = {2.0}>
{
    x = Reshape(images, cut)
    p = MatMul(x, w)
    y = Add(p, b)
    heads = Reshape(y, apart)
    q4 = Slice(heads, zero, one, three)
    k4 = Slice(heads, one, two, three)
    v4 = Slice(heads, two, three, three)
    q3 = Squeeze(q4, three)
    k3 = Squeeze(k4, three)
    v3 = Squeeze(v4, three)
    q = Transpose<perm = [0, 2, 1, 3]>(q3)
    k = Transpose<perm = [0, 2, 3, 1]>(k3)
    v = Transpose<perm = [0, 2, 1, 3]>(v3)
    raw = MatMul(q, k)
    scores = Div(raw, scale)
    weights = Softmax<axis = -1>(scores)
    mixed = MatMul(weights, v)
    back = Transpose<perm = [0, 2, 1, 3]>(mixed)
    joined = Reshape(back, tokens)
    mean = ReduceMean<keepdims = 0>(joined, one)
    logits = MatMul(mean, h)
}"""


def test_heads_that_hold_query_key_and_value_each_are_put_in_order(tmp_path):
    constants = {"w": (32, 96), "b": (96,), "h": (32, 5)}
    model = ir.from_onnx_text(HEADS_INSIDE, initializers=[
        ir.tensor(RNG.normal(size=shape).astype(np.float32) * 0.3, name=name) for name, shape in constants.items()
    ])  # fmt: skip
    ir.save(model, tmp_path / "given.onnx")
    given = open_onnx(tmp_path / "given.onnx", "given.onnx", MetadataOverrides())
    write_verified(given, tmp_path / "model.onnx", IMAGES[:4])
    (attention,) = find_attentions(opened(tmp_path / "model.onnx").graph)
    assert attention.packed() is not None
    assert (attention.heads, attention.scale) == (2, 0.5)


GELU = """<ir_version: 9, opset_import: ["": 20]>
g (float[b, 8] x) => (float[b, 8] y)
<float root = {1.4142135}, float one = {1.0}, float half = {0.5}, float cube = {3.0}, float c = {0.044715},
 float k = {0.7978846}>
{ BODY }"""
ERF = "a = Div(x, root) e = Erf(a) s = Add(e, one)"
TANH = "p = Pow(x, cube) q = Mul(c, p) s = Add(x, q) t = Mul(s, k) e = Tanh(t) u = Add(one, e)"


@pytest.mark.parametrize(
    ("body", "approximate"),
    [
        (f"{ERF} m = Mul(x, s) y = Mul(m, half)", "none"),
        (f"{ERF} m = Mul(x, half) y = Mul(m, s)", "none"),
        (f"{TANH} h = Mul(half, x) y = Mul(h, u)", "tanh"),
        (f"{ERF} y = Mul(x, s)", None),
        (f"{TANH} y = Mul(x, u)", None),
    ],
)
def test_gelu_is_known_by_what_it_gives(body, approximate):
    model = ir.from_onnx_text(GELU.replace("BODY", body))
    x = RNG.normal(size=(4, 8)).astype(np.float32)

    def run():
        content = ir.serde.serialize_model(model).SerializeToString()
        return onnxruntime.InferenceSession(content).run(None, {"x": x})[0]

    before = run()
    FuseGelu()(model)
    common.RemoveUnusedNodesPass()(model)
    gelus = [node.attributes.get_string("approximate") for node in model.graph if node.op_type == "Gelu"]
    assert gelus == ([] if approximate is None else [approximate])
    np.testing.assert_allclose(run(), before, atol=1e-6)
