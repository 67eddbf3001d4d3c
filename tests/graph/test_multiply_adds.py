import io
import warnings

import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgevit.graph.multiply_adds import count_multiply_adds


def exported(module, size, dynamic=False):
    """Return the graph that torch's exporter of before, which keeps what a module does, makes of ``module``."""
    file = io.BytesIO()
    axes = {"x": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), torch.zeros(size), file, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes
        )
    return ir.serde.from_proto(onnx.load_from_string(file.getvalue()))


def flops(module, size):
    """Return torch's own count of multiply-adds: it counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(size))
    return counter.get_total_flops() // 2


@given(
    groups=st.sampled_from([1, 2, 4]),
    into=st.integers(1, 3),
    out=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    transposed=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_convolutions_count_as_torch_counts_them(groups, into, out, kernel, stride, padding, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    module = kind(groups * into, groups * out, kernel, stride, padding=min(padding, kernel - 1), groups=groups)
    size = (1, groups * into, 9, 8)
    counted = count_multiply_adds(exported(module, size))
    assert counted.unknown == ()
    assert [(node.kind, node.macs) for node in counted.nodes] == [("Conv", flops(module, size))]


MODELS = {
    "vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5},
    "mobilevit_xxs": {"num_classes": 5},
    "convnext_atto": {"num_classes": 5},
    "fastvit_t8": {"num_classes": 5},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_whole_models_count_as_torch_counts_them(timm, name, dynamic):
    size = (1, 3, 32, 32) if name.startswith("vit") else (1, 3, 64, 64)
    module = timm.create_model(name, **MODELS[name])
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False  # torch counts nothing of its fused attention on a CPU
    counted = count_multiply_adds(exported(module, size, dynamic))
    assert counted.unknown == ()
    assert sum(node.macs for node in counted.nodes) == flops(module, size)


def test_each_node_has_a_kind_and_a_name(timm):
    module = timm.create_model("vit_tiny_patch16_224", **MODELS["vit_tiny_patch16_224"])
    counted = count_multiply_adds(exported(module, (1, 3, 32, 32)))
    kinds = [node.kind for node in counted.nodes]
    assert (kinds.count("Conv"), kinds.count("Linear"), kinds.count("attention")) == (1, 9, 4)
    assert len({node.name for node in counted.nodes}) == 14


class Queries(nn.Module):
    """Learned queries read tokens, as in DETR's decoder: how many there are the exporter has computed."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queries", torch.randn(1, 5, 12))
        self.query, self.key, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        queries, keys = self.query(self.queries.expand(x.shape[0], -1, -1)), self.key(x)
        return self.out((queries @ keys.transpose(1, 2)).softmax(-1) @ keys)


def test_sizes_that_are_computed_are_found_by_running_the_graph():
    module, size = Queries(), (1, 9, 12)
    counted = count_multiply_adds(exported(module, size, dynamic=True))
    assert counted.unknown == ()
    queries = 5 * 12 * 12  # which are the same for all images
    assert sum(node.macs for node in counted.nodes) == flops(module, size) - queries
    assert {node.kind for node in counted.nodes} == {"Linear", "attention"}


def written(text):
    return ir.serde.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 23, "other": 1]> {text}'))


def test_an_attention_is_both_of_its_products():
    graph = written(
        "g (float[b, 7, 12] q, float[b, 9, 12] k, float[b, 9, 6] v) => (float[b, 7, 6] y) "
        "{ y = Attention <q_num_heads = 3, kv_num_heads = 3> (q, k, v) }"
    )
    (node,) = count_multiply_adds(graph).nodes
    assert (node.kind, node.macs) == ("attention", 7 * 9 * 12 + 7 * 9 * 6)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[b, n, 12] x) => (float[b, n, 12] y) <float[12, 12] w = {%s}> { y = MatMul (x, w) }",
        "g (float[b, 7, 12] x) => (float[b, 7, 12] y) { z = Relu (x) y = other.Magic (z) }",
        'g (float[b, 7, 12] x) => (float[b, 7, 7] y) { y = Einsum <equation = "bij,bkj->bik"> (x, x) }',
    ],
)
def test_what_cannot_be_counted_is_named(text):
    zeros = ", ".join(["0"] * 144)
    assert len(count_multiply_adds(written(text % zeros if "%s" in text else text)).unknown) == 1


def test_what_is_the_same_for_all_images_is_not_counted():
    graph = written(
        "g (float[b, 2] x) => (float[b, 2] y) <float[2, 2] w = {1, 0, 0, 1}> { v = MatMul (w, w) y = MatMul (x, v) }"
    )
    assert [node.macs for node in count_multiply_adds(graph).nodes] == [4]
