"""What the stages promise beyond what the commands show; see tests/cli for those."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from notes import Notes
from once import traces
from tiny import PREPROCESS, SHAPES, content, finish

from edgevit.backends import backend_class, get_backend
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.data.shapes import load_shapes
from edgevit.errors import InputError, MissingDependencyError, VerificationError
from edgevit.evaluation.load import Load
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.models.spec import ModelSpec
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.lint.tensorrt_rules import lint
from edgevit.quantization.plan import QuantizationPlan
from edgevit.recipes import load_recipe
from edgevit.runtime import load
from edgevit.stages import pipeline as stages
from edgevit.stages.benchmark import benchmark
from edgevit.stages.build import build
from edgevit.stages.export import CHECKED, GOLDEN, default_images, export
from edgevit.stages.images import DataSource
from edgevit.stages.pipeline import PipelineJob, pipeline
from edgevit.stages.quantize import quantize
from edgevit.stages.validate import measure_variants, validate
from edgevit.targets import load_target

IMAGES = DataSource(SHAPES, "train", Unreadable(), samples=16)


def test_default_images_need_nothing_from_outside():
    for channels in (1, 3):
        dataset = DataSource(default_images(channels), "test", Unreadable(), samples=CHECKED).load()
        assert len(dataset) == CHECKED


def test_golden_images_show_as_many_classes_as_they_can(exported):
    golden = Bundle.open(exported).golden()
    assert len(golden.images) == GOLDEN
    answers = golden.logits.argmax(axis=1)
    with load(exported, check="files") as model:
        found = model.infer(model.prepare(golden.images))
        assert np.allclose(found, golden.logits, atol=1e-4)
    # One of each class that the model finds at all, before any class comes twice.
    distinct = len(set(answers.tolist()))
    assert len(set(answers[:distinct].tolist())) == distinct > 3


def test_a_file_that_differs_from_torch_makes_no_bundle(tiny_checkpoint, tmp_path, monkeypatch):
    from edgevit.graph import verify
    from edgevit.models.loading import load_checkpoint

    monkeypatch.setattr(verify, "TOLERANCE", 0.0)
    with pytest.raises(VerificationError, match="differ from torch's"):
        export(load_checkpoint(str(tiny_checkpoint)), tmp_path / "new.edgevit", IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_a_dialect_misses_is_float_there_and_another_target_is_made(quantized):
    right = load_target("portable")
    wrong = msgspec.structs.replace(load_target("x86-onnxruntime"), dialect="openvino")
    bundle = quantize(Bundle.open(quantized), IMAGES, {"right": right, "wrong": wrong}).bundle
    assert bundle.variant("int8-portable").fallback == ()
    (kept,) = bundle.variant("int8-openvino").fallback
    assert (kept.layer, kept.reason) == ("head", "onnxruntime runs it in float (Gemm)")


def test_a_validation_that_is_interrupted_does_not_replace_whole_figures(quantized):
    bundle = validate(Bundle.open(quantized), IMAGES, max_drop=100.0)[0]
    before = content(quantized)
    cut = replace(measure_variants(bundle, IMAGES), interrupted_of=1000)
    with pytest.raises(KeyboardInterrupt):
        cut.noted(bundle, OutputLimits())
    assert content(quantized) == before


def test_what_gives_the_same_variant_is_refused_before_the_work(quantized):
    target = load_target("x86-openvino")
    with pytest.raises(InputError, match="one and two would both make the variant int8-openvino"):
        quantize(Bundle.open(quantized), IMAGES, {"one": target, "two": target})


@pytest.mark.parametrize("steps", [("2", "5", "end"), pytest.param(("1", "3", "4"), marks=pytest.mark.slow)])
def test_a_pipeline_that_is_killed_leaves_the_bundle_that_it_was_to_replace(
    forked_with_torch, tmp_path_factory, tmp_path, tiny_checkpoint, quantized, steps
):
    files = (traces(tmp_path_factory), tiny_checkpoint, quantized)
    script = Path(__file__).with_name("pipeline_kills.py")
    done = finish(forked_with_torch(*files, *steps, what=script, scratch=tmp_path / "scratch"))
    assert done.code == 0, done.err
    assert done.out.split() == list(steps)


def pipeline_job(source, output, **changes):
    fields = {"data": SHAPES, "targets": {"x86-onnxruntime": load_target("x86-onnxruntime")}, "load": Load()}
    fields |= {"recipe": load_recipe("default"), "unreadable": Unreadable()}
    return PipelineJob(**{**fields, "source": str(source), "output": output, **changes})


@pytest.mark.parametrize("flat", [True, False])
def test_a_pipeline_says_when_it_measures_on_what_it_calibrates_with(flat, tiny_checkpoint, tmp_path, monkeypatch):
    shapes = load_shapes("train", "size=16,count=16")
    for index, label in enumerate(shapes.labels):
        part = "" if flat else ("train", "test")[index % 2]
        path = tmp_path / "data" / part / shapes.class_names[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shapes.image(index).save(path)

    def failing(*arguments, **options):
        raise VerificationError("far enough", remedy="none")

    monkeypatch.setattr(stages, "export", failing)
    progress = Notes()
    with pytest.raises(VerificationError, match="far enough"):
        pipeline(pipeline_job(tiny_checkpoint, tmp_path / "x.edgevit", data=str(tmp_path / "data")), progress=progress)
    assert any("16 of the 16 calibration images are also measured on" in line for line in progress.said) == flat


def test_a_pipeline_that_fails_leaves_the_bundle_that_it_was_to_replace(tiny_checkpoint, quantized, monkeypatch):
    before = content(quantized)

    def failing(*arguments, **options):
        assert not Bundle.open(quantized).manifest.variants[0].accuracy, "the old bundle serves meanwhile"
        raise VerificationError("the stage before failed", remedy="none")

    monkeypatch.setattr(stages, "measure_variants", failing)
    job = pipeline_job(tiny_checkpoint, quantized, existing="replace")
    with pytest.raises(VerificationError, match="the stage before failed"):
        pipeline(job)
    assert content(quantized) == before
    assert not (quantized / ".draft").exists()


@pytest.mark.parametrize(
    ("kind", "linears"),
    [
        ({"projection": 16, "pre_norm": True, "activation": "quick_gelu"}, 5),
        ({"pooling": "attention", "class_token": False, "activation": "gelu_tanh"}, 8),
        pytest.param({"pooling": "class+mean", "gated_mlp": True, "register_tokens": 2}, 4, marks=pytest.mark.slow),
        pytest.param({"pooling": "mean", "norm_after_pooling": True, "l2_normalize": True}, 4, marks=pytest.mark.slow),
    ],
    ids=["CLIP", "SigLIP", "DINOv2", "mean"],
)
def test_every_kind_of_embedding_model_is_quantized_and_measured(kind, linears, tmp_path):
    import torch

    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.vit import VisionTransformer

    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=1, heads=2, classes=0, **kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(spec)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    bundle = export(Checkpoint(spec, model.state_dict(), PREPROCESS, (), "random"), tmp_path / "x.edgevit", IMAGES)
    bundle = quantize(bundle, IMAGES, {"x86": load_target("x86-onnxruntime")}).bundle
    bundle, _ = validate(bundle, IMAGES)
    variant = bundle.variant("int8-onnxruntime")
    quantized = linears + 1  # the patch embedding, too
    assert (variant.kernels.linears, variant.kernels.integer_linears) == (quantized, quantized)
    assert variant.accuracy.passed
    assert 0.99 < variant.accuracy.similarity.cosine_mean < 1


def test_the_portable_variant_runs_in_integers_on_both_engines(exported):
    bundle = quantize(Bundle.open(exported), IMAGES, {"portable": load_target("portable")}).bundle
    assert [variant.name for variant in bundle.manifest.variants] == ["float32", "int8-portable"]
    variant = bundle.variant("int8-portable")
    assert variant.kernels.integer_linears == variant.kernels.linears > 0
    found = msgspec.structs.replace(variant.kernels, arithmetic=None)  # the session alone counts nothing
    path = bundle.verify_files("int8-portable")
    plan = QuantizationPlan.load(bundle.verify_extra("calibration/plan-symmetric.json").path)
    for name in ("onnxruntime", "openvino"):
        with get_backend(name).open(path, threads=1, settings={}) as session:
            assert check_kernels(session, plan.integer_layers()) == found
    with load(bundle.path, variant="int8-portable") as model:  # answers to the golden images as float32 does
        assert model.variant.target == "portable"


@pytest.mark.skipif(backend_class("tensorrt").available(), reason="TensorRT and a GPU are here, and are used")
@pytest.mark.parametrize(("name", "opset"), [("tensorrt", 20), ("tensorrt-legacy", 17)])
def test_what_is_built_on_the_device_is_kept_as_onnx_and_not_run_here(exported, name, opset):
    notes = Notes()
    bundle = quantize(Bundle.open(exported), IMAGES, {name: load_target(name)}).bundle
    variant = bundle.variant(f"int8-{name}")
    assert (variant.backend, variant.kernels, len(variant.files)) == ("tensorrt", None, 1)
    path = bundle.verify_files(variant.name)
    assert onnx.load(path).opset_import[0].version == opset
    assert lint(path, name) == []
    test = replace(IMAGES, split="test")
    bundle, names = validate(bundle, test, max_drop=100, progress=notes)
    assert names == ("float32",)
    said = [each for each in notes.said if not each.startswith("Validating")]
    assert said == [f"Leaving out int8-{name}: {backend_class('tensorrt').unavailable_reason()}"]
    with pytest.raises(MissingDependencyError, match=f"int8-{name} cannot be run here: there is no NVIDIA driver"):
        validate(bundle, test, variants=[f"int8-{name}"], max_drop=100)
    with pytest.raises(MissingDependencyError, match="cannot be run here"):
        benchmark(bundle, Load(duration_s=0.02), variants=[f"int8-{name}"])
    with pytest.raises(MissingDependencyError, match=r"'tensorrt' is not installed|no NVIDIA driver"):
        load(bundle.path, variant=variant.name)
    with load(bundle.path) as model:  # of what there is, it takes what is for this machine
        assert model.variant.name == "float32"


def test_plans_of_another_scheme_are_kept_for_the_variants_that_were_made_from_them(quantized):
    before = Bundle.open(quantized).verify_extra("calibration/plan.json").path.read_bytes()
    bundle = quantize(Bundle.open(quantized), IMAGES, {"portable": load_target("portable")}).bundle
    assert bundle.verify_extra("calibration/plan.json").path.read_bytes() == before
    again = build(bundle, "x86-openvino", load_target("x86-openvino"), "int8").bundle
    assert again.variant("int8-openvino").kernels == bundle.variant("int8-openvino").kernels


def test_a_file_that_tensorrt_would_reject_is_not_kept(exported, monkeypatch):
    from edgevit.quantization.emit import onnxruntime, portable

    wrong = replace(portable.DIALECT, emit=onnxruntime.emit)
    monkeypatch.setattr(portable, "DIALECT", wrong)
    before = content(exported)
    with pytest.raises(VerificationError, match="MatMulIntegerToFloat is an operator of com"):
        quantize(Bundle.open(exported), IMAGES, {"portable": load_target("portable")})
    assert content(exported) == before
