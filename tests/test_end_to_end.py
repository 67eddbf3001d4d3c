"""The whole way on the built-in model and on a real pretrained ViT; nothing here depends on how fast the machine is."""

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
from deit import PHOTOS
from once import kept, made, once
from tiny import ENGINES, SHAPES, SPEC

from edgevit.backends.probes import PROBES
from edgevit.bundle.store import Bundle
from edgevit.data import fashion_mnist
from edgevit.data.fashion_mnist import load_fashion_mnist_sample
from edgevit.models.spec import BUILTIN
from edgevit.quantization.emit import scheme_of
from edgevit.runtime import load
from edgevit.stages.availability import command_abilities, target_availability
from edgevit.stages.settings_race import fastest_settings
from edgevit.targets import load_profile, target_names

pytestmark = pytest.mark.slow

VARIANTS = ("float32", "float32-onnxruntime", "int8-onnxruntime", "float32-openvino", "int8-openvino")


def run(*arguments, expected=0):
    from edgevit.cli.app import run as command

    assert command([str(argument) for argument in arguments]) == expected


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Return the bundle that the pipeline makes of the built-in model and the images in the package."""

    def make(folder):
        path = folder / "fashion-micro.edgevit"
        with pytest.MonkeyPatch.context() as patch:  # the whole way: see conftest.do_not_race
            patch.setattr("edgevit.stages.precisions.fastest_settings", fastest_settings)
            run("pipeline", "fashion-micro", "--data", "fashion-mnist-sample", "-o", path, "--duration", "0.2")

    made = once(tmp_path_factory, "fashion", make) / "fashion-micro.edgevit"
    return shutil.copytree(made, tmp_path_factory.mktemp("fashion") / made.name)


def test_the_built_in_model_is_what_is_listed():
    from edgevit.models.loading import load_checkpoint

    for name in BUILTIN:
        checkpoint = load_checkpoint(name)
        checkpoint.model()
        assert checkpoint.labels == fashion_mnist.CLASS_NAMES


def test_the_pipeline_measures_every_variant_on_integer_kernels(fashion):
    manifest = Bundle.open(fashion).manifest
    assert tuple(variant.name for variant in manifest.variants) == VARIANTS
    for variant in manifest.variants:
        assert variant.accuracy.images == 2000
        assert variant.accuracy.passed, variant.accuracy.reason
        assert variant.latency.p50_ms > 0
        integer = variant.kernels.linears if variant.precision == "int8" else 0
        if variant.name != "float32":
            assert variant.kernels.linears == 4 * manifest.spec.depth + 1 + (variant.precision == "int8")
            assert variant.kernels.integer_linears == integer
    report = json.loads((fashion / "report/report.json").read_bytes())
    assert [entry["name"] for entry in report["variants"]] == list(VARIANTS)
    page = (fashion / "report/index.html").read_text()
    assert all(name in page for name in VARIANTS)


def test_the_table_shows_every_variant(fashion, edgevit):
    shown = edgevit("inspect", fashion)
    assert shown.code == 0
    assert all(name in shown.out for name in VARIANTS)
    assert "reference" in shown.out or "in doubt" in shown.out


def every_target():
    """Return every target that ships, each edition by its first name."""
    profiles = {name: load_profile(name) for name in target_names()}
    return {
        f"{name}@{edition.names[0]}" if edition else name: profile.target(edition)
        for name, profile in profiles.items()
        for edition in profile.editions or (None,)
    }


def test_every_target_that_can_be_built_here_is_built_and_the_others_say_what_doctor_says(quantized, edgevit):
    bundle, few = quantized, ("--data", SHAPES, "--samples", "8", "--recipe", "fast")
    run("quantize", bundle, *few, "--dialect", "tensorrt")
    run("quantize", bundle, *few, "--precision", "fp16", "--dialect", "onnxruntime")
    findings = [found for probe in PROBES.values() for found in probe()]
    commands = command_abilities(findings)
    built = set()
    for name, target in every_target().items():
        verdict = target_availability(name, target, findings, commands, platform.machine())
        for precision in dict.fromkeys((target.precisions[0], "int8")):
            done = edgevit("build", bundle, "--target", name, "--precision", precision, "--json")
            assert done.code == (3 if verdict.build == "no" else 0), (name, precision, done.err)
            if verdict.build == "no":
                said = done.data()["error"]
                assert (said["message"], said["remedy"]) == (verdict.problem, verdict.remedy)
                continue
            (variant,) = done.data()["variants"]
            assert (variant["path"].endswith(".onnx")) == (
                verdict.build == "onnx" or target.backend == "onnxruntime"
            ), name
            if precision == "int8" and verdict.build == "yes":
                linears = 4 * SPEC.depth + 1 + (scheme_of(target.dialect) == "asymmetric")  # with the patch embedding
                assert variant["kernels"]["integer_linears"] == variant["kernels"]["linears"] == linears, name
            built.add(name)
    assert {name.partition("@")[0] for name in built} >= set(target_names()) - {"intel-igpu", "intel-npu"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_predict_and_the_runtime_say_the_same_of_a_picture(fashion, edgevit, tmp_path, variant):
    sample = load_fashion_mnist_sample("test")
    paths = []
    for index in range(20):
        paths.append(tmp_path / f"{index}.png")
        sample.image(index).save(paths[-1])
    said = edgevit("predict", fashion, *paths, "--variant", variant, "--top", 10, "--json").data()
    right = 0
    with load(fashion, variant=variant) as model:
        together = model.predict_batch(paths, top=10)
        for index, entry in enumerate(said["images"]):
            assert [found["label"] for found in entry["predictions"]] == [each.label for each in together[index]]
            expected = model.predict(paths[index], top=10)
            assert entry["predictions"][0]["label"] == expected[0].label
            # Of one image alone, the engine may round an integer the other way.
            found = {each["label"]: each["probability"] for each in entry["predictions"]}
            assert found == pytest.approx({each.label: each.probability for each in expected}, abs=0.02)
            right += expected[0].label == fashion_mnist.CLASS_NAMES[sample.labels[index]]
    assert right >= 15


def test_accuracy_on_all_test_images_of_fashion_mnist(fashion, edgevit):
    if not fashion_mnist.available():
        pytest.skip("needs the full Fashion-MNIST on this machine; 'edgevit validate ... --data fashion-mnist' gets it")
    done = edgevit("validate", fashion, "--data", "fashion-mnist", "--max-drop", "0.3", "--json")
    assert done.code == 0, done.out
    said = done.data()
    assert said["images"] == 10_000
    top1 = {variant["name"]: variant["top1"] for variant in said["variants"]}
    assert top1["float32"] >= 0.91
    assert top1["float32-openvino"] >= 0.91
    for name in ("int8-onnxruntime", "int8-openvino"):
        assert top1[name] >= top1["float32"] - 0.003


@pytest.mark.shared
def test_deit_runs_in_integers_and_agrees_with_float(deit):
    variants = {variant.name: variant for variant in Bundle.open(deit.validated()).manifest.variants}
    assert set(variants) == set(VARIANTS)
    for name, variant in variants.items():
        assert variant.accuracy.images == PHOTOS
        assert variant.accuracy.passed, name
        if variant.precision == "int8":
            assert variant.accuracy.agreement >= 0.97
            assert variant.kernels.linears == variant.kernels.integer_linears == 50
    assert variants["float32"].accuracy.top1 > 0.65
    assert variants["float32-openvino"].accuracy.agreement == 1


@pytest.mark.shared
def test_deit_answers_as_torch_does(deit, tmp_path_factory):
    def make(folder):
        import torch

        from edgevit.models.loading import load_checkpoint

        model = load_checkpoint(str(deit.weights)).model()
        with torch.inference_mode():
            logits = torch.cat([model(torch.from_numpy(batch)) for batch in deit.images()])
        np.save(folder / "answers.npy", logits.argmax(dim=1).numpy())

    tests = Path(__file__).parent
    sources = (tests.parent / "edgevit/models", deit.weights, deit.pixels(), tests / "deit.py", Path(__file__))
    shelf = kept(tmp_path_factory, "torch", sources, ("torch", "numpy"))
    expected = np.load(made(shelf, "deit", make) / "answers.npy")
    assert len(expected) == PHOTOS
    for engine in ENGINES:
        assert np.array_equal(deit.answers(engine).argmax(axis=1), expected)
