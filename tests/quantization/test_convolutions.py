"""Convolutions in integers: which are planned, that engines run them so, and how near the outputs stay to float32."""

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
from onnx_files import OnFile, calibrate, optimize_files, verified

from edgevit.backends import get_backend
from edgevit.errors import BundleError
from edgevit.graph.convolutions import find_convolutions, stages_of
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.linears import load_graph
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.multiply_adds import count_multiply_adds
from edgevit.quantization.accuracy.criteria import KlLimit
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.search import Search
from edgevit.quantization.accuracy.sensitivity import Form, rank_layers
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit import emit
from edgevit.quantization.float_fallback import float_in, note_float_in, revert_to_float
from edgevit.quantization.kernel_check import KernelError, check_convolutions
from edgevit.quantization.plan import ConvolutionPlan
from edgevit.quantization.planning.convolution_plan import plan_convolutions
from edgevit.quantization.ptq import CalibrationImages, PtqModel
from edgevit.statistics import mean_kl, sqnr_db

torch = pytest.importorskip("torch")
from small_hybrid import SmallHybrid, small_hybrid  # noqa: E402 - it needs torch

RNG = np.random.default_rng(0)
SEEN = RNG.normal(size=(12, 3, 32, 32)).astype(np.float32)
UNSEEN = RNG.normal(size=(8, 3, 32, 32)).astype(np.float32)
ENGINES = ("onnxruntime", "openvino")


def images(of=SEEN):
    return CalibrationImages(lambda: iter([of]), 1)


@pytest.fixture(scope="module")
def float32(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrid")
    given = small_hybrid(folder / "given.onnx")
    model = open_onnx(given, "given", MetadataOverrides())
    write_verified(model, folder / "model.onnx", UNSEEN)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def optimized(float32):
    places = {scheme: float32.with_name(f"{scheme}.onnx") for scheme in ("asymmetric", "symmetric")}
    table, found = optimize_files(float32, images(), places)
    return {**found, "table": table}


def outputs(path, engine, of=UNSEEN):
    with get_backend(engine).open(path, threads=1, settings={}) as session:
        return session.infer(of), session.integer_products()


def test_all_but_patch_embeddings_are_found(float32, embedded):
    found = find_convolutions(load_graph(float32).graph)
    assert [(each.channels, each.depthwise, each.padded) for each in found] == [
        (3, False, True),
        (16, False, False),
        (32, True, True),
        (32, False, False),
        (16, False, True),
        (32, False, False),
    ]
    assert find_convolutions(embedded) == []


def test_stages_are_told_by_the_size_of_what_they_give(float32):
    found = find_convolutions(load_graph(float32).graph)
    names = [each.name for each in found]
    stages = stages_of(found, most=6)
    assert [stage.where for stage in stages] == ["16x16", "8x8", "7x7"]
    assert [len(stage.names) for stage in stages] == [4, 1, 1]
    assert [name for stage in stages for name in stage.names] == names
    assert [len(stage.names) for stage in stages_of(found, most=2)] == [4, 2]
    assert stages_of([], most=6) == ()
    found[1].output.shape = ir.Shape([1, 32, 1, 1])  # as of squeeze-and-excitation: of the stage in which it stands
    found[4].output.shape = None  # and so is what is not known
    assert [(stage.where, len(stage.names)) for stage in stages_of(found, most=6)] == [("16x16", 5), ("7x7", 1)]
    assert [stage.where for stage in stages_of(found[4:5], most=6)] == ["one size"]


@pytest.fixture
def embedded(tmp_path):
    """Return a graph with a patch embedding alone."""

    class Patches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Conv2d(3, 8, 8, 8), torch.nn.Linear(8, 7)

        def forward(self, x):
            return self.head(self.embed(x).flatten(2).transpose(1, 2).mean(1))

    return load_graph(small_hybrid(tmp_path / "patches.onnx", Patches())).graph


def test_the_plan_says_how_each_convolves(optimized):
    plan = optimized["asymmetric"].plan
    assert [each.depthwise for each in plan.convolutions] == [False, False, True, False, False, False]
    assert all(each.quantization.activation_type == "uint8" for each in plan.convolutions)
    stem = plan.convolutions[0]
    assert stem.output_zero_point == 0  # behind the ReLU
    assert np.isclose(stem.quantization.activation_scale * 255, SEEN.max() - SEEN.min(), rtol=1e-6)
    assert set(plan.integer_layers()) == {*plan.integer_linears(), *plan.integer_convolutions()}
    assert optimized["symmetric"].plan.convolutions == ()  # no dialect of signed activations has a form for them


def test_the_table_keeps_what_convolutions_give(optimized, tmp_path):
    table = optimized["table"]
    table.save(tmp_path / "table.npz")
    kept = CalibrationTable.load(tmp_path / "table.npz")
    assert kept.outputs == table.outputs
    assert set(kept.outputs) == {each.name for each in optimized["asymmetric"].plan.convolutions}
    assert all(seen.channels is not None for seen in kept.inputs.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_convolve_in_integers_and_stay_near_float32(engine, float32, optimized, tmp_path):
    found: OnFile = optimized["asymmetric"]
    emit(found.ptq, engine, tmp_path / "int8.onnx")
    expected, _ = outputs(float32, "onnxruntime")
    given, products = outputs(tmp_path / "int8.onnx", engine)
    check_convolutions(products, found.plan.integer_convolutions())
    assert len(found.plan.integer_convolutions()) == 6
    assert sqnr_db(expected, given) > 25
    counted = {node.name for node in count_multiply_adds(found.ptq.model).nodes if node.kind == "Conv"}
    assert counted == set(found.plan.integer_convolutions())


@pytest.mark.parametrize("engine", ENGINES)
def test_several_images_give_what_each_gives(engine, optimized, tmp_path):
    emit(optimized["asymmetric"].ptq, engine, tmp_path / "int8.onnx")
    together, _ = outputs(tmp_path / "int8.onnx", engine)
    alone = np.concatenate([outputs(tmp_path / "int8.onnx", engine, UNSEEN[[index]])[0] for index in range(8)])
    # An input on the edge between two integers may go to either.
    np.testing.assert_allclose(together, alone, atol=1e-3 * np.abs(alone).max())


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_float_in_a_dialect_convolves_as_before(engine, float32, optimized, tmp_path):
    ptq = optimized["asymmetric"].ptq
    names = ptq.plan.integer_convolutions()
    noted = PtqModel(ptq.model, note_float_in(ptq.plan, engine, dict.fromkeys(names, "it does not pay")))
    emit(float_in(noted, engine), engine, tmp_path / "float-convolutions.onnx")
    emit(ptq, engine, tmp_path / "int8.onnx")
    expected, _ = outputs(float32, "onnxruntime")
    given, products = outputs(tmp_path / "float-convolutions.onnx", engine)
    assert not set(names) & products
    assert sqnr_db(expected, given) > sqnr_db(expected, outputs(tmp_path / "int8.onnx", engine)[0]) + 3
    with pytest.raises(KernelError, match="6 of 6 quantized layers"):
        check_convolutions(products, names)
    other = "openvino" if engine == "onnxruntime" else "onnxruntime"
    assert float_in(noted, other) is noted


@pytest.mark.parametrize("dialect", ["portable", "tensorrt-legacy"])
def test_other_dialects_leave_convolutions_float(dialect, float32, optimized, tmp_path):
    emit(optimized["symmetric"].ptq, dialect, tmp_path / "int8.onnx")
    convolutions = [node for node in load_graph(tmp_path / "int8.onnx").graph if node.op_type == "Conv"]
    assert len(convolutions) == 6
    assert all(node.inputs[1].const_value is not None for node in convolutions)
    assert sqnr_db(outputs(float32, "onnxruntime")[0], outputs(tmp_path / "int8.onnx", "onnxruntime")[0]) > 25


def test_layers_alone_and_limits_know_of_convolutions(float32, optimized, tmp_path):
    ptq = optimized["asymmetric"].ptq
    evaluator = Evaluator(float32, [UNSEEN])
    form = Form("openvino", "openvino", {}, 8)
    ranked = rank_layers(ptq, evaluator, form, tmp_path)
    assert {cost.layer for cost in ranked} == set(ptq.plan.integer_layers())
    emit(ptq, "openvino", tmp_path / "all.onnx")
    whole = mean_kl(evaluator.reference, evaluator.outputs(tmp_path / "all.onnx", "openvino"))
    found = Search(ptq, evaluator, [form], KlLimit(whole / 2), tmp_path).run(lambda _form: ranked)
    assert found.plan.limit.passed
    reasons = {each.layer: each.reason for each in found.plan.float_layers()}
    assert reasons
    assert all("by what it costs alone" in reason for reason in reasons.values())
    assert ranked[0].kl > 0


def test_reverting_restores_a_convolution(float32, optimized, tmp_path):
    ptq = optimized["asymmetric"].ptq
    names = ptq.plan.integer_layers()
    emit(revert_to_float(ptq, dict.fromkeys(names, "tried")), "onnxruntime", tmp_path / "float.onnx")
    expected, _ = outputs(float32, "onnxruntime")
    np.testing.assert_allclose(outputs(tmp_path / "float.onnx", "onnxruntime")[0], expected, atol=1e-4)


def test_a_convolution_that_gives_nothing_stays_float(float32, tmp_path):
    dead = SmallHybrid()
    torch.nn.init.zeros_(dead.mixer.layers[2].weight)
    torch.nn.init.zeros_(dead.mixer.layers[2].bias)
    given = open_onnx(small_hybrid(tmp_path / "dead.onnx", dead), "dead", MetadataOverrides())
    write_verified(given, tmp_path / "model.onnx", UNSEEN)
    _, found = optimize_files(tmp_path / "model.onnx", images(), {"asymmetric": tmp_path / "optimized.onnx"})
    plan = found["asymmetric"].plan
    told = [each.fallback for each in plan.convolutions if each.quantization is None]
    assert told == ["its output was next to 0 on every image", "its input was next to 0 on every image"]
    emit(found["asymmetric"].ptq, "openvino", tmp_path / "int8.onnx")
    expected, _ = outputs(tmp_path / "model.onnx", "onnxruntime")
    assert sqnr_db(expected, outputs(tmp_path / "int8.onnx", "openvino")[0]) > 20


def test_biases_make_up_for_rounded_weights(optimized):
    """The mean of each output with the rounded weight and the correction is that with the exact weight."""
    table, plan = optimized["table"], optimized["asymmetric"].plan
    by_name = {each.name: each for each in plan.convolutions}
    for convolution in find_convolutions(optimized["asymmetric"].ptq.model.graph):
        planned = by_name[convolution.name]
        scales = np.array(planned.quantization.weight_scales, dtype=np.float32).reshape(-1, 1, 1, 1)
        lost = convolution.weight - np.rint(convolution.weight / scales) * scales
        mean = torch.from_numpy(table.inputs[planned.name].channels.mean.astype(np.float32))
        groups = convolution.channels // convolution.weight.shape[1]
        whole = mean[None, :, None, None].expand(1, -1, *lost.shape[2:])
        expected = torch.nn.functional.conv2d(whole, torch.from_numpy(lost), groups=groups).flatten()
        np.testing.assert_allclose(planned.quantization.bias_correction, expected, atol=1e-5)


def test_wide_channels_are_divided_for_openvino(float32, tmp_path):
    wide = SmallHybrid()
    with torch.no_grad():
        wide.mixer.layers[0].weight[:3] *= 30  # three channels of what the depthwise convolution reads
        wide.mixer.layers[4].weight[:, 3:] *= 10  # the others count all the same
    given = open_onnx(small_hybrid(tmp_path / "wide.onnx", wide), "wide", MetadataOverrides())
    write_verified(given, tmp_path / "model.onnx", UNSEEN)
    _, found = optimize_files(tmp_path / "model.onnx", images(), {"asymmetric": tmp_path / "optimized.onnx"})
    ptq = found["asymmetric"].ptq
    plans = {each.name: each for each in ptq.plan.convolutions}
    named = {each.name: each for each in find_convolutions(ptq.model.graph)}
    depthwise = next(each for each in plans.values() if each.depthwise)
    divisors = np.array(depthwise.equalized.divisors)
    assert divisors[:3].min() > 5 * np.median(divisors[3:])
    assert depthwise.equalized.quantization.weight_scales[0] > depthwise.quantization.weight_scales[0]
    assert [plans[name].equalized is None for name, each in named.items()] == [
        each.input.is_graph_input() or each.weight.shape[1] not in (1, each.channels) for each in named.values()
    ]  # not pixels, and not the grouped one
    plain = msgspec.structs.replace(
        ptq.plan,
        convolutions=tuple(msgspec.structs.replace(each, equalized=None) for each in ptq.plan.convolutions),
    )
    emit(ptq, "openvino", tmp_path / "int8.onnx")
    emit(PtqModel(ptq.model, plain), "openvino", tmp_path / "plain.onnx")
    expected, _ = outputs(tmp_path / "model.onnx", "onnxruntime")
    noise, products = outputs(tmp_path / "int8.onnx", "openvino")
    check_convolutions(products, ptq.plan.integer_convolutions())
    assert sqnr_db(expected, noise) > sqnr_db(expected, outputs(tmp_path / "plain.onnx", "openvino")[0]) + 3
    emit(ptq, "onnxruntime", tmp_path / "int8.onnx")
    emit(PtqModel(ptq.model, plain), "onnxruntime", tmp_path / "plain.onnx")
    assert (tmp_path / "int8.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def test_inputs_are_not_divided_where_the_recipe_wants_no_scaling(optimized, float32):
    graph, table = load_graph(float32), optimized["table"]
    assert all(each.equalized is None for each in plan_convolutions(graph, table, "minmax", "off"))
    assert all(each.equalized is None for each in plan_convolutions(graph, table, "average-minmax"))
    assert any(each.equalized is not None for each in plan_convolutions(graph, table, "minmax"))


def test_a_plan_that_divides_other_channels_is_refused(optimized, tmp_path):
    ptq = optimized["asymmetric"].ptq
    first, second, *rest = ptq.plan.convolutions
    wrong = msgspec.structs.replace(second.equalized, divisors=(1.0, 2.0))
    broken = msgspec.structs.replace(
        ptq.plan, convolutions=(first, msgspec.structs.replace(second, equalized=wrong), *rest)
    )
    with pytest.raises(BundleError, match="the plan divides 2 channels"):
        emit(PtqModel(ptq.model, broken), "openvino", tmp_path / "int8.onnx")


def test_a_network_without_linear_layers_is_quantized_too(tmp_path):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 7, 3), torch.nn.AdaptiveAvgPool2d(1)
    )
    given = small_hybrid(tmp_path / "given.onnx", torch.nn.Sequential(net, torch.nn.Flatten()))
    write_verified(open_onnx(given, "given", MetadataOverrides()), tmp_path / "model.onnx", UNSEEN)
    table = calibrate(tmp_path / "model.onnx", [SEEN], total=1)
    assert len(table.inputs) == 2
    _, found = optimize_files(tmp_path / "model.onnx", images(), {"asymmetric": tmp_path / "optimized.onnx"})
    for engine in ENGINES:
        emit(found["asymmetric"].ptq, engine, tmp_path / "int8.onnx")
        given, products = outputs(tmp_path / "int8.onnx", engine)
        check_convolutions(products, found["asymmetric"].plan.integer_convolutions())
        assert sqnr_db(outputs(tmp_path / "model.onnx", "onnxruntime")[0], given) > 25


def test_a_plan_that_cannot_be_is_refused(optimized):
    planned = optimized["asymmetric"].plan.convolutions[0]
    for change in ({"output_scale": 0.0}, {"output_zero_point": 256}):
        broken = msgspec.to_builtins(msgspec.structs.replace(planned)) | change
        with pytest.raises(BundleError, match=r"scale|zero point"):
            msgspec.convert(broken, ConvolutionPlan)


def test_a_file_is_read_back_with_its_plan(optimized):
    found = optimized["asymmetric"]
    loaded = PtqModel.load(verified(found.model), found.model.with_suffix(".json"))
    assert loaded.plan == found.ptq.plan
