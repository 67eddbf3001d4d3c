"""What TensorRT-RTX's compiler makes of models, counted in its own log; the table in benchmarks/ is of whole ones."""

import importlib.util
from pathlib import Path

import msgspec
import pytest
from onnx_ir.passes.common import ShapeInferencePass
from rtx import needs_rtx

from edgevit.backends.base import BatchProfile
from edgevit.backends.kernel_report import KernelReport
from edgevit.backends.tensorrt.bindings import load_bindings
from edgevit.backends.tensorrt.builder import EngineBuild, build_engine
from edgevit.backends.tensorrt.engine_report import report_of_log
from edgevit.backends.tensorrt.kernel_log import parse_graph
from edgevit.backends.tensorrt.log import DetailedLog
from edgevit.errors import BundleError
from edgevit.graph.linears import load_graph
from edgevit.graph.patterns import attention_around, attention_names, is_cut_apart
from edgevit.graph.products import weight_of
from edgevit.models.spec import BUILTIN, ModelSpec, preset

SOURCE = Path(__file__).parents[3] / "benchmarks" / "tensorrt_kernels.py"
#: ViT-Ti and ViT-S have twelve blocks: of what is only wider, four are enough. test_rtx.py compiles DeiT-tiny whole.
DEPTHS = {"fashion-micro": 6, "vit-tiny": 4, "vit-small": 4}
#: By form: the type that every Linear layer and the type that every attention is multiplied in.
TYPES = {
    "FP16": (None, "float16"),
    "INT8": ("int8", "float16"),
    "INT8, attention too": ("int8", "int8"),
    "FP8": ("float8", "float16"),
    "FP8, attention too": ("float8", "float8"),
}
#: Of a ViT of four blocks; with what recipe `default` multiplies twice.
MOST_KERNELS = {"FP16": 50, "INT8": 60, "INT8, attention too": 46, "FP8, attention too": 46}
GPUS = ("8.6", "8.9", "12.0")
#: The GPU that is enough for a form, unless --every-kernel asks for all: what is asserted holds for each. The smallest
#: model is compiled for all of them, but for quantized attention.
ATTENTION_ON = {"INT8, attention too": "8.6", "FP8, attention too": "8.9"}
ENOUGH = {
    "fashion-micro": ATTENTION_ON,
    "vit-tiny": {**ATTENTION_ON, "FP16": "12.0", "INT8": "8.9", "FP8": "12.0"},
    "vit-small": {**ATTENTION_ON, "FP16": "8.6", "INT8": "12.0", "FP8": "8.9"},
}

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def kernels():
    """Return the module that measures kernels."""
    spec = importlib.util.spec_from_file_location("tensorrt_kernels", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(kernels, tmp_path_factory):
    """Return a function that gives a model's float32 file and its plan, made once."""
    made = {}

    def model(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "model"
            if name in BUILTIN:
                made[name] = kernels.plan_model(name, folder)
            else:
                made[name] = kernels.plan_random(msgspec.structs.replace(preset(name), depth=DEPTHS[name]), folder)
        return made[name]

    return model


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "vit" in name else name for name in DEPTHS]
)
def test_every_linear_and_every_attention_is_one_kernel_in_its_type(kernels, models, request, name, form, gpu):
    if form.startswith("FP8") and gpu == "8.6":
        pytest.skip("this GPU has no FP8")
    if ENOUGH[name].get(form, gpu) != gpu and not request.config.getoption("--every-kernel"):
        pytest.skip("one GPU is enough; --every-kernel compiles for all")
    report = kernels.compile_form(load_bindings("tensorrt-rtx"), models(name), form, gpu)
    depth, (linear, attention) = DEPTHS[name], TYPES[form]
    assert len(report.linears) == 4 * depth + 1
    if linear is not None:
        assert {each.kernel for each in report.linears} == {f"gemm {linear}"}
        assert {each.weight for each in report.linears} == {linear}
    assert [each.integer for each in report.linears] == [linear == "int8"] * len(report.linears)
    assert report.counts.fused_attentions == {attention: depth}
    assert [each.name for each in report.attentions] == [f"blocks.{block}.attn" for block in range(depth)]
    assert report.warnings == ()
    assert sum(each.kind == "convolution" for each in report.kernels) == 1  # the patch embedding
    if "vit" in name and form in MOST_KERNELS:
        assert report.counts.kernels <= MOST_KERNELS[form]


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"image_size": (48, 48), "width": 64}, "up to 512 tokens, not 577"),
        ({"image_size": (8, 8), "width": 160}, "heads of 16, 32 or 64 features, not 80"),
    ],
)
def test_attention_that_cannot_be_integer_is_explained(kernels, tmp_path, changes, limit):
    spec = ModelSpec(patch_size=(2, 2), depth=2, heads=2, classes=10, **changes)
    model = kernels.plan_random(spec, tmp_path / "model")
    report = kernels.compile_form(load_bindings("tensorrt-rtx"), model, "INT8, attention too", "8.6")
    assert set(report.counts.gemms) == {"int8"}
    assert report.counts.fused_attentions == {"float16": 2}
    (warning,) = report.warnings
    assert warning.startswith(
        "'blocks.0.attn' and 1 more is in float16 and cannot be in INT8: INT8 attention is fused for"
    )
    assert warning.endswith(limit)


def test_a_report_is_read_as_it_was_written(kernels, models, tmp_path):
    report = kernels.compile_form(load_bindings("tensorrt-rtx"), models("fashion-micro"), "INT8", "8.6")
    report.save(tmp_path / "kernels.json")
    assert KernelReport.load(tmp_path / "kernels.json") == report
    products = [kernel for kernel in report.kernels if kernel.kind == "gemm"]
    assert products[0].nodes[0] == "blocks.0.attn.qkv.split_0"
    assert (products[0].inputs, products[0].outputs) == (("int8",), ("float16",))


@pytest.mark.parametrize("form", ["FP16", "INT8, attention too"])
def test_the_nodes_of_a_builds_log_answer_as_those_of_the_file(kernels, models, form):
    model, log = models("fashion-micro"), DetailedLog()
    path = model.exported.with_name(f"{form}.onnx")
    kernels.FORMS[form](model, path)
    job = EngineBuild(model=path, compute_capability="8.6", batch=BatchProfile())
    build_engine(load_bindings("tensorrt-rtx"), job, log=log)
    graph = load_graph(path)
    ShapeInferencePass()(graph)
    of_file, of_log = (described(nodes) for nodes in (list(graph.graph), list(parse_graph(log.lines).values())))
    assert of_file == of_log
    assert len(of_log["attentions"]) == 6
    assert len(of_log["products"]) - 25 in ([0] if form == "FP16" else range(1, 25))  # residual ones, too


def described(nodes):
    """Return what is found among ``nodes``, by names."""
    attentions = [found for node in nodes if (found := attention_around(node)) is not None]
    return {
        "names": list(attention_names(nodes).values()),
        "attentions": [
            (each.scores.name, each.mixed.name, each.head_size, each.tokens, each.ends_quantized())
            for each in attentions
        ],
        "dequantizers": [node and node.name for each in attentions for node in each.dequantizers()],
        "products": [node.name for node in nodes if weight_of(node) is not None],
        "cut apart": [node.name for node in nodes if weight_of(node) is not None and is_cut_apart(node)],
    }


def test_a_log_without_kernels():
    with pytest.raises(BundleError, match="lists no kernels"):
        report_of_log(["Parsing node: a [MatMul]"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is no report of kernels"),
        (b"", "is no report of kernels"),
        (b"\xff{", "is no report of kernels"),
        (b"[" * 100_000, "is no report of kernels"),
        (b'{"kernels": []}', "missing required field"),
        (b" " * ((16 << 20) + 1), "too large"),
    ],
    ids=["missing", "empty", "no text", "deep", "other", "large"],
)
def test_a_damaged_report(tmp_path, content, problem):
    path = tmp_path / "kernels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=problem):
        KernelReport.load(path)


def test_a_report_of_another_version(kernels, models, tmp_path):
    report = kernels.compile_form(load_bindings("tensorrt-rtx"), models("fashion-micro"), "FP16", "8.6")
    assert isinstance(report, KernelReport)
    msgspec.structs.replace(report, schema_version=9).save(tmp_path / "kernels.json")
    with pytest.raises(BundleError, match="has version 9, not 1"):
        KernelReport.load(tmp_path / "kernels.json")
