"""Races of a real bundle; times are given, as those of a machine that runs tests show nothing."""

import hashlib
import shutil
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny import SHAPES, content

import edgevit as public
from edgevit.backends.onnxruntime import OnnxRuntimeSession
from edgevit.bundle.manifest import Environment, Latency
from edgevit.bundle.measured import Energy
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.data.sources import load_dataset
from edgevit.errors import BundleError, DataError, InputError, MissingDependencyError, StorageError
from edgevit.report.junit import write_junit
from edgevit.runtime import load
from edgevit.stages import gate_limits
from edgevit.stages import race as stage
from edgevit.stages.validate import Measurement, measure_variants

MANY = "shapes:size=16,count=4096"  # enough to show a loss of 0.5 points, or none


@pytest.fixture
def times(monkeypatch):
    """Have variants timed with the milliseconds, and whether they are valid, that a test puts in here."""
    found: dict[str, tuple[float, bool]] = {}

    def benchmark(bundle, load, *, variants, progress):
        for name in variants:
            milliseconds, valid = found.get(name, (2.0 if name.startswith("float32") else 1.0, True))
            base = found.get("float32-onnxruntime", (2.0, True))[0]
            speedup = base / milliseconds
            latency = Latency(
                batch=1,
                threads=1,
                p50_ms=milliseconds,
                p90_ms=milliseconds * 1.1,
                p99_ms=milliseconds * 2,
                throughput_ips=1000 / milliseconds,
                speedup_vs_float32=speedup,
                speedup_ci95=(speedup * 0.95, speedup * 1.05),
                rss_mb=100.0,
                cold_start_ms=10.0,
                valid=valid,
                invalid_reason=None if valid else "two hogs took the cores",
                environment=ENVIRONMENT,
            )
            bundle = bundle.update_variant(name, latency=latency)
        return bundle, tuple(variants)

    monkeypatch.setattr(stage, "benchmark", benchmark)
    monkeypatch.setattr(stage, "measure_variants", measured_once)
    return found


def measured_once(bundle, images, *, variants, progress):
    """Measure as ever, but the same files on the same ``MANY`` pictures only once, as it takes long."""
    manifest = bundle.manifest
    if images.name != MANY:
        return measure_variants(bundle, images, variants=variants, progress=progress)
    files = tuple((each.name, each.files, tuple(each.settings.items())) for each in manifest.variants)
    patched = (OnnxRuntimeSession.infer, OnnxRuntimeSession.__init__)  # what a test makes engines answer
    key = (files, manifest.preprocess, manifest.labels, tuple(variants), patched)
    if key not in MEASURED:
        MEASURED[key] = measure_variants(bundle, images, variants=variants, progress=progress)
    return MEASURED[key]


MEASURED: dict[object, Measurement] = {}

ENVIRONMENT = Environment(
    machine="x86_64",
    cpu_features=(),
    cpu="a test",
    cores=2,
    os="Linux",
    python="3.11",
    packages={},
    measured_at="2026-11-30T00:00:00Z",
)


def race(bundle, **given):
    return public.race(bundle, **({"target": "x86-onnxruntime", "data": MANY, "precisions": ["int8"]} | given))


def with_broken_scale(path):
    """Make one scale of an activation in the INT8 variant ten times as large where it is rounded, as a defect would."""
    bundle = Bundle.open(path)
    variant = bundle.variant("int8-onnxruntime")
    place = path / variant.files[0].path
    model = onnx.load(place)
    node = next(each for each in model.graph.node if each.name == "head.input.quantize")
    (scale,) = [each for each in model.graph.initializer if each.name == node.input[1]]
    broken = numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(10), f"{scale.name}.broken")
    model.graph.initializer.append(broken)
    node.input[1] = broken.name
    return with_file(path, variant.name, model.SerializeToString())


def with_file(path, name, content):
    """Give a variant another model file, as if it had been made so."""
    bundle = Bundle.open(path)
    variant = bundle.variant(name)
    (path / variant.files[0].path).write_bytes(content)
    file = msgspec.structs.replace(variant.files[0], bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    changed = msgspec.structs.replace(variant, files=(file, *variant.files[1:]))
    variants = tuple(changed if each.name == name else each for each in bundle.manifest.variants)
    (path / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(bundle.manifest, variants=variants)))
    return path


def words(found):
    return {each.name: each.word for each in found.entrants}


def test_the_fastest_that_is_shown_to_pass_wins_and_is_what_load_takes(quantized, times):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    found = race(quantized, max_drop=2.0)
    assert words(found) == {"int8-onnxruntime": "passed", "float32-onnxruntime": "passed"}
    assert (found.winner, found.passed, found.images) == ("int8-onnxruntime", True, 4096)
    with load(quantized) as model:
        assert model.variant.name == found.winner
    times["int8-onnxruntime"] = (3.0, True)  # slower than float32, as INT8 often is
    found = race(quantized, max_drop=2.0)
    assert words(found) == {"int8-onnxruntime": "failed", "float32-onnxruntime": "passed"}
    assert found.winner == "float32-onnxruntime"
    with load(quantized) as model:
        assert model.variant.name == found.winner


def test_load_takes_the_winner_where_a_limit_on_costs_decides(quantized, times):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    found = race(quantized, max_drop=2.0, min_speedup=3.0)
    assert words(found) == {"int8-onnxruntime": "failed", "float32-onnxruntime": "passed"}
    with load(quantized) as model:
        assert model.variant.name == found.winner == "float32-onnxruntime"


def test_labels_that_float32_itself_is_never_right_by_show_nothing(quantized, times):
    dataset = load_dataset("shapes:size=16,count=256", split="test")
    with load(quantized, variant="float32") as model:
        pictures = [dataset.image(place) for place in range(len(dataset))]
        answers = [int(model.infer_images([each]).argmax()) for each in pictures]
    classes = len(dataset.class_names)
    found = race(with_broken_scale(quantized), data=pictures, labels=[(each + 1) % classes for each in answers])
    assert words(found)["int8-onnxruntime"] == "not shown"
    assert "float32 itself is right on 0.00 %" in next(e.reason for e in found.entrants if e.precision == "int8")
    assert found.winner == "float32-onnxruntime"


OWN_TARGET = """
description = "mine"
backend = "onnxruntime"
dialect = "onnxruntime"
precisions = ["float32", "int8"]
why = "weights of 7 bits"
weight_bits = 7
"""


def test_a_race_for_a_target_of_ones_own_replaces_no_other_targets_variant(quantized, tiny_exported, tmp_path, times):
    target = tmp_path / "own.toml"
    target.write_text(OWN_TARGET)
    before = content(quantized)
    with pytest.raises(InputError, match="is there for x86-onnxruntime") as error:
        race(quantized, target=target, max_drop=2.0)
    assert f"edgevit quantize {quantized} --target {target} --precision int8" in error.value.remedy
    assert content(quantized) == before
    own = shutil.copytree(tiny_exported, tmp_path / "own.edgevit")
    found = race(own, target=str(target), max_drop=2.0, calibration_data=SHAPES)
    assert words(found)["int8-onnxruntime"] == "passed"
    assert found.winner == "int8-onnxruntime"
    assert any(name.startswith("float32") for name in words(found))
    again = race(own, target=str(target), max_drop=2.0)
    assert words(again) == words(found)


def test_memory_is_judged_where_other_programs_disturbed_the_times(quantized, times):
    times["int8-onnxruntime"] = (1.0, False)
    assert words(race(quantized, max_drop=2.0, max_memory=200))["int8-onnxruntime"] == "not shown"
    assert words(race(quantized, max_drop=2.0, max_memory=50))["int8-onnxruntime"] == "failed"


def test_the_bundle_keeps_what_was_shown_until_something_is_measured_again(quantized, times):
    found = race(quantized, max_drop=2.0)
    kept = Bundle.open(quantized)
    assert {each.name: each.evidence for each in found.entrants} == {
        each.name: each.evidence for each in kept.manifest.variants if each.evidence
    }
    public.validate(quantized, data=SHAPES, variants=["int8-onnxruntime"])
    assert not Bundle.open(quantized).variant("int8-onnxruntime").evidence
    assert Bundle.open(quantized).variant("float32-onnxruntime").evidence


def test_a_variant_with_one_wrong_scale_fails(quantized, times):
    times["int8-onnxruntime"] = (0.1, True)
    found = race(with_broken_scale(quantized))
    assert words(found)["int8-onnxruntime"] == "failed"
    assert found.winner == "float32-onnxruntime"


def test_layers_that_run_in_float_though_they_should_not_fail(quantized, times):
    bundle = Bundle.open(quantized)
    kernels = bundle.variant("int8-onnxruntime").kernels
    seen = msgspec.structs.replace(kernels, float_linears=("head",), integer_linears=kernels.linears - 1)
    bundle.update_variant("int8-onnxruntime", kernels=seen)
    times["float32-onnxruntime"] = (2.0, True)
    found = race(quantized, max_drop=2.0)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert (int8.word, int8.reason) == ("failed", f"1 of {kernels.linears} Linear layers run in float")


def test_an_engine_that_is_not_its_onnx_fails_whatever_its_answers_are(quantized, times, monkeypatch):
    infer, opened = OnnxRuntimeSession.infer, OnnxRuntimeSession.__init__

    def init(self, *arguments, optimize=True, **options):
        opened(self, *arguments, optimize=optimize, **options)
        self.is_wrong = optimize and "int8" in str(self._model)

    monkeypatch.setattr(OnnxRuntimeSession, "__init__", init)
    monkeypatch.setattr(
        OnnxRuntimeSession, "infer", lambda self, images: infer(self, images) * np.float32(0.5 if self.is_wrong else 1)
    )
    result = race(quantized)
    (int8,) = [each for each in result.entrants if each.precision == "int8"]
    assert int8.word == "failed"
    assert "the engine is wrong: onnxruntime is " in int8.reason
    assert result.winner != int8.name


@pytest.mark.parametrize("limits", [{}, {"max_kl": 0.1}])
def test_float32_without_finite_numbers_shows_nothing_and_does_not_win(quantized, times, monkeypatch, limits):
    infer = OnnxRuntimeSession.infer

    def answers(self, images):
        found = infer(self, images)
        return found if "int8" in str(self._model) else np.where(np.arange(len(found))[:, None] == 0, np.nan, found)

    monkeypatch.setattr(OnnxRuntimeSession, "infer", answers)
    result = race(quantized, data=SHAPES, **limits)
    assert set(words(result).values()) <= {"not shown", "failed"}
    assert result.winner is None


def test_too_few_images_show_nothing_and_are_told_how_many_would(exported, times):
    times["int8-onnxruntime"] = (0.1, True)
    found = race(exported, data=SHAPES)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert int8.word == "not shown"
    assert int8.evidence[0].needed > 96
    assert f"about {int8.evidence[0].needed} images" in int8.reason
    assert found.winner == "float32-onnxruntime"
    with load(exported) as model:
        assert model.variant.name == "float32-onnxruntime"  # what is not shown is not taken


def test_a_noisy_run_shows_no_speed(quantized, times):
    times |= {"int8-onnxruntime": (0.1, False), "float32-onnxruntime": (1.0, False)}
    found = race(quantized)
    assert set(words(found).values()) == {"not shown"}
    assert found.winner is None
    assert "two hogs" in found.entrants[0].reason


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({"min_speedup": 3.0}, "speed"),
        ({"max_p99": 0.5}, "p99"),
        ({"max_size": 0.001}, "size"),
        ({"max_memory": 50}, "memory"),
    ],
)
def test_each_limit_fails_what_misses_it(quantized, times, limits, limit):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    found = race(quantized, max_drop=2.0, **limits)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert [each.limit for each in int8.evidence if each.word == "failed"] == [limit]
    assert int8.word == "failed"


def test_without_labels_images_that_float32_is_sure_of_decide(quantized, times, tmp_path):
    from edgevit.data.shapes import load_shapes

    images = [load_shapes("test", "size=16,count=64").image(index) for index in range(64)]
    found = race(quantized, data=images, calibration_data=SHAPES)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert "no labels" in int8.evidence[0].reason
    assert int8.word in ("not shown", "failed")


def test_flips_say_which_image_and_both_answers(quantized, times):
    found = race(with_broken_scale(quantized), data="shapes:size=16,count=256")
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    labels = Bundle.open(quantized).manifest.labels
    assert int8.flips
    assert len({flip.image for flip in int8.flips}) == len(int8.flips)
    for flip in int8.flips:
        assert flip.float32 != flip.variant
        assert {flip.float32, flip.variant, flip.label} <= set(labels)


def test_embeddings_are_judged_by_their_cosine(embedding, times):
    found = race(embedding, data=SHAPES, min_cosine=0.9)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert "mean cosine with float32" in int8.evidence[0].reason
    assert int8.word == "passed"
    with pytest.raises(InputError, match="max-drop"):
        race(embedding, data=SHAPES, max_drop=1.0)


def test_what_is_missing_is_made_and_what_cannot_be_is_said(exported, times):
    found = race(exported, data=SHAPES, precisions=["int8", "fp16"])
    assert {each.precision for each in found.entrants} == {"float32", "int8", "fp16"}
    assert not found.left_out
    with pytest.raises(InputError, match="fp8") as error:
        race(exported, precisions=["fp8"])
    assert "int8" in error.value.remedy


def test_a_user_and_ci_read_the_verdicts(edgevit, quantized, times, tmp_path):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    path = tmp_path / "junit.xml"
    command = ("race", quantized, "--target", "x86-onnxruntime", "--data", MANY, "--precision", "int8")
    done = edgevit(*command, "--max-drop", "2", "--junit", path)
    assert done.code == 0
    assert "int8-onnxruntime wins" in done.out
    suite = ET.parse(path).getroot()[0]
    assert suite.attrib == {
        "name": "edgevit race x86-onnxruntime",
        "tests": "3",
        "failures": "0",
        "errors": "0",
        "skipped": "0",
    }
    failing = edgevit(*command, "--max-p99", "0.1", "--junit", path)
    assert failing.code == 1
    assert "nothing is shown to pass" in failing.out
    assert ET.parse(path).getroot()[0].get("failures") == "2"
    told = edgevit(*command, "--json").data()
    assert {each["verdict"] for each in told["variants"]} <= {"passed", "failed", "not shown"}


@pytest.mark.parametrize("junit", ["/proc/verdicts.xml", "/dev/null"])
def test_a_place_that_takes_no_verdicts_is_refused_before_the_race(edgevit, quantized, times, junit, monkeypatch):
    monkeypatch.setattr(stage, "measure_variants", lambda *_, **__: pytest.fail("it raced"))
    command = ("race", quantized, "--target", "x86-onnxruntime", "--data", SHAPES, "--junit", junit)
    failed = edgevit(*command)
    assert failed.code == 3
    assert f"cannot write {junit}" in failed.err
    assert "--junit" in failed.err


def test_verdicts_are_shown_where_their_file_cannot_be_written_any_more(
    edgevit, quantized, times, tmp_path, monkeypatch
):
    def full(*_):
        raise StorageError("cannot write x.xml: No space left on device", remedy="free some space")

    monkeypatch.setattr("edgevit.cli.race.write_junit", full)
    command = ("race", quantized, "--target", "x86-onnxruntime", "--data", SHAPES, "--precision", "int8")
    done = edgevit(*command, "--junit", tmp_path / "x.xml", "--json")
    assert done.code == 3
    assert "No space left" in done.data()["junit_error"]
    assert done.data()["variants"]
    done = edgevit(*command, "--junit", tmp_path / "x.xml")
    assert done.code == 3
    assert "error: cannot write x.xml: No space left on device" in done.out
    assert "int8-onnxruntime" in done.out


def test_junit_holds_what_xml_cannot_and_what_was_left_out(tmp_path):
    path = tmp_path / "x.xml"
    write_junit(path, 'a\x00\x1b\ud800<&"', {}, {"int8": "it does\x00 not ]]> pay"})
    (suite,) = ET.parse(path).getroot()
    assert suite.attrib == {"name": 'a<&"', "tests": "1", "failures": "0", "errors": "0", "skipped": "1"}
    assert suite[0][0].attrib == {"message": "it does not ]]> pay"}


def test_images_that_cannot_be_used_are_no_reason_to_leave_a_precision_out(exported, times, tmp_path):
    with pytest.raises(DataError, match="missing"):
        race(exported, calibration_data=str(tmp_path / "missing"), data=SHAPES)


def test_images_with_labels_of_another_model_are_refused_before_anything_is_made(exported, times, monkeypatch):
    from edgevit.data.shapes import load_shapes

    images = [load_shapes("test", "size=16,count=2").image(index) for index in range(2)]
    monkeypatch.setattr(stage, "quantize", lambda *_, **__: pytest.fail("it was quantized"))
    with pytest.raises(DataError, match="dog"):
        race(exported, data=images, labels=["cat", "dog"], calibration_data=SHAPES)


def test_a_damaged_variant_is_an_error(quantized, times):
    model = next((quantized / "int8-onnxruntime").glob("*.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        race(quantized, data=SHAPES)


def test_an_engine_that_is_not_here_is_said_before_anything_is_made(exported, times, monkeypatch):
    def missing(name):
        raise MissingDependencyError(f"there is no {name}", remedy="pip install it")

    monkeypatch.setattr(stage.backends, "get_backend", missing)
    monkeypatch.setattr(stage, "quantize", lambda *_, **__: pytest.fail("it was quantized"))
    with pytest.raises(MissingDependencyError, match="nothing for jetson-thor can be raced") as error:
        race(exported, target="jetson-thor", precisions=[], data=SHAPES)
    assert "on the device" in error.value.remedy


@pytest.mark.parametrize(("bundle", "target"), [("exported", "x86-onnxruntime"), ("quantized", "arm64-onnxruntime")])
def test_nothing_to_race_is_an_error_and_no_race_of_others(request, times, bundle, target):
    with pytest.raises(InputError, match=f"nothing to race for {target}"):
        race(request.getfixturevalue(bundle), target=target, precisions=["float32"], data=SHAPES)


def test_what_comes_next_depends_on_what_is_not_shown(edgevit, quantized, times):
    command = ("race", quantized, "--target", "x86-onnxruntime", "--precision", "int8", "--data")
    times |= {"float32-onnxruntime": (1.0, False), "int8-onnxruntime": (1.0, False)}
    assert "race again while nothing else runs" in edgevit(*command, "shapes:size=16,count=96", "--max-drop", "100").out
    times |= {"float32-onnxruntime": (1.0, True), "int8-onnxruntime": (0.5, True)}
    few = edgevit(*command, SHAPES, "--max-p99", "0.01", "--min-speedup", "1.95").out
    assert "images or more" in few


def test_a_recipe_may_have_the_limits_and_options_go_before_it(quantized, times, tmp_path):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    recipe = tmp_path / "own.toml"
    recipe.write_text("[gate]\nmax_drop = 2\nmin_speedup = 3\n")
    found = race(quantized, recipe=recipe)
    assert words(found)["int8-onnxruntime"] == "failed"
    assert words(race(quantized, recipe=recipe, min_speedup=1.5))["int8-onnxruntime"] == "passed"
    recipe.write_text("[gate]\nmax_loss = 2\n")
    with pytest.raises(InputError, match="max_loss"):
        race(quantized, recipe=recipe)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"min_cosine": 0.5, "max_drop": 5.0}, "passed"),
        ({"min_cosine": 1.0, "max_drop": 5.0}, "failed"),
        ({"min_cosine": 0.5, "max_drop": 0.0}, "not shown"),
    ],
)
def test_limits_count_for_models_of_other_outputs_too(dense, times, limits, word):
    found = race(dense, data=SHAPES, **limits)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert (int8.word, found.images) == (word, 96), int8.reason


def test_what_was_not_measured_does_not_pass(quantized, times, monkeypatch):
    times |= {"float32-onnxruntime": (2.0, True), "int8-onnxruntime": (1.0, True)}
    timed = stage.benchmark

    def without_memory(bundle, load, *, variants, progress):
        bundle, names = timed(bundle, load, variants=variants, progress=progress)
        for name in names:
            latency = msgspec.structs.replace(bundle.variant(name).latency, rss_mb=None)
            bundle = bundle.update_variant(name, latency=latency)
        return bundle, names

    monkeypatch.setattr(stage, "benchmark", without_memory)
    found = race(quantized, max_drop=2.0, max_memory=1000, max_energy=40)
    assert set(words(found).values()) == {"not shown"}
    assert found.winner is None
    for each in found.entrants:
        assert {"memory", "energy"} <= {limit.limit for limit in each.evidence if limit.word == "not shown"}


@pytest.mark.parametrize(
    ("energy", "word"),
    [((30.0, 28.0, 32.0), "passed"), ((50.0, 48.0, 52.0), "failed"), ((41.0, 35.0, 47.0), "not shown")],
)
def test_energy_is_judged_by_its_interval(energy, word):
    mj, low, high = energy
    measured = Energy(mj=mj, mj_ci95=(low, high), source="s", covers="c", idle_w=1, load_w=2, blocks=20)
    latency = SimpleNamespace(energy=measured, energy_reason=None)
    shown = gate_limits._of_energy(latency, 40.0, 10.0)
    assert shown.word == word
    assert "above idle" in shown.reason
    assert (shown.needed is not None) == (word == "not shown")


def test_why_energy_was_not_measured_is_said():
    shown = gate_limits._of_energy(SimpleNamespace(energy=None, energy_reason="only root may"), 40.0, 10.0)
    assert shown == ("not shown", "energy could not be measured (only root may); 40 mJ allowed", None)


def test_outputs_are_judged_one_by_one_and_few_images_show_nothing(dense, times):
    found = race(dense, data=MANY, min_cosine=0.5, max_drop=5.0)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    outputs = {f"accuracy of {output.name}" for output in found.bundle.manifest.typed_outputs}
    assert {each.limit for each in int8.evidence} == {*outputs, "speed"}
    assert int8.word == "passed", int8.reason
    few = race(dense, data="shapes:size=16,count=20", min_cosine=0.5, max_drop=5.0)
    (int8,) = [each for each in few.entrants if each.precision == "int8"]
    assert (int8.word, int8.evidence[0].needed) == ("not shown", 30)


def test_a_limit_on_kl_decides_alone(quantized, times):
    found = race(quantized, data=SHAPES, max_kl=0.05)
    (int8,) = [each for each in found.entrants if each.precision == "int8"]
    assert [each.limit for each in int8.evidence] == ["kl", "speed"]
    assert int8.word == "passed", int8.reason
    both = race(quantized, data=SHAPES, max_kl=1e-9, max_drop=90.0)
    (int8,) = [each for each in both.entrants if each.precision == "int8"]
    assert {each.limit: each.word for each in int8.evidence} == {
        "accuracy": "passed",
        "kl": "failed",
        "speed": "passed",
    }


def test_float32_of_an_engine_that_answers_otherwise_must_show_that_it_keeps_the_limits(quantized, times):
    variant = Bundle.open(quantized).variant("float32-onnxruntime")
    model = onnx.load(quantized / variant.files[0].path)
    (bias,) = [each for each in model.graph.initializer if each.name == "head.bias"]
    changed = numpy_helper.to_array(bias) + np.linspace(0, 7e-3, 8, dtype=np.float32)
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    with_file(quantized, variant.name, model.SerializeToString())
    found = race(quantized, data=SHAPES)
    (float32,) = [each for each in found.entrants if each.name == "float32-onnxruntime"]
    assert float32.word == "not shown"
    assert found.winner is None


@pytest.mark.parametrize("limits", [{"max_kl": 1.0}, {"min_miou": 0.9}])
def test_a_limit_of_another_kind_of_model_is_refused(embedding, times, limits):
    with pytest.raises(InputError):
        race(embedding, data=SHAPES, **limits)


def test_token_budgets_race_beside_all_tokens_and_one_that_cannot_be_is_left_out(quantized, times):
    times["int8-onnxruntime-tokens80"] = (0.5, True)
    found = race(quantized, token_budgets=[0.8, 0.01], max_kl=5.0)
    names = {each.name for each in found.entrants}
    assert {"int8-onnxruntime", "int8-onnxruntime-tokens80"} <= names
    assert found.winner == "int8-onnxruntime-tokens80"
    assert "too small for this model" in found.left_out["int8, token budget 0.01"]


@pytest.mark.parametrize("budget", [0, 1, 1.5, -0.2, float("nan"), "0.8", True, 0.123])
def test_a_budget_that_is_no_share_is_refused(quantized, budget):
    with pytest.raises(InputError, match="token budget"):
        race(quantized, token_budgets=[budget])


def test_budgets_and_hosts_do_not_go_together(quantized):
    with pytest.raises(InputError, match="tokens are merged on this machine"):
        race(quantized, token_budgets=[0.8], hosts=["me@board"])
