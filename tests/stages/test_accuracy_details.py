"""What ``validate`` keeps behind the figures, and engines that are not what they were built from."""

import shutil
import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny import SHAPES

import edgevit as public
from edgevit.backends.onnxruntime import OnnxRuntimeSession
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError, StorageError
from edgevit.evaluation.accuracy_details import AccuracyDetails, ClassChange
from edgevit.stages.accuracy_details import read_details

MANY = "shapes:size=16,count=512"


def blurred(path, name="int8-onnxruntime", factor=6):
    """Make one scale of a variant so large that answers change, as a defect in calibration would."""
    bundle = Bundle.open(path)
    place = path / bundle.variant(name).files[0].path
    model = onnx.load(place)
    node = next(each for each in model.graph.node if each.name == "head.input.quantize")
    (scale,) = [each for each in model.graph.initializer if each.name == node.input[1]]
    scale.CopyFrom(numpy_helper.from_array(np.asarray(numpy_helper.to_array(scale) * np.float32(factor)), scale.name))
    model = model.SerializeToString()

    def fill(folder):
        (folder / "model.onnx").write_bytes(model)
        return [folder / "model.onnx"]

    variant = bundle.variant(name)
    bundle.add_variant(name, precision="int8", backend="onnxruntime", target=variant.target, fill=fill)
    return path


def details(path, name="int8-onnxruntime"):
    return read_details(Bundle.open(path)).details[name]


def test_what_changed_is_kept_beside_the_manifest(quantized):
    before = public.validate(blurred(quantized), data=MANY, max_drop=100, variants=["int8-onnxruntime"])
    found, accuracy = details(quantized), before.accuracies["int8-onnxruntime"]
    assert found.labelled
    assert found.images == accuracy.images == 512
    assert found.flips_total == round((1 - accuracy.agreement) * 512) > 10
    net = sum(each.gained - each.lost for each in found.classes)
    assert net == round(accuracy.delta_top1 * 512)
    assert sum(each.variant - each.float32 for each in found.classes) == net
    assert found.shifts[0].variant > found.shifts[0].float32
    assert found.calibration != found.float32_calibration
    margins = [each.float32_margin for each in found.flips]
    assert margins == sorted(margins, reverse=True)
    assert all(each.float32 != each.variant for each in found.flips)
    names = {each.thumbnail for each in found.flips}
    assert names <= set(read_details(Bundle.open(quantized)).thumbnails)
    assert (quantized / "manifest.json").stat().st_size < 64 << 10
    (said,) = before.to_dict()["variants"]
    assert said["details"]["flips"] == found.flips_total
    assert said["details"]["calibration_error"] == found.calibration.ece
    assert said["details"]["engine_wrong"] is None
    assert found.say().startswith(f"{found.flips_total} of 512 answers changed")


def test_a_line_says_what_changed_beyond_chance():
    change = ClassChange(
        label="owl", images=99, float32=90, variant=60, lost=30, gained=0, interval=(-0.4, -0.2), p=1e-9, changed=True
    )
    basis = AccuracyDetails(variant="v", file_sha256="a" * 64, data_sha256="a" * 64, images=1000, labelled=True)
    assert basis.say() is None
    flipped = msgspec.structs.replace(basis, flips_total=30, classes_judged=5)
    assert flipped.say() == "30 of 1,000 answers changed, no class beyond chance"
    changed = msgspec.structs.replace(flipped, classes=(change,) * 5)
    assert changed.say() == "30 of 1,000 answers changed; beyond chance: owl, owl, owl and 2 more"
    assert changed.to_dict()["classes_changed"] == ["owl"] * 5
    assert msgspec.structs.replace(flipped, labelled=False).say() == "30 of 1,000 answers changed"


def test_details_of_variants_that_are_not_measured_stay_and_those_of_replaced_files_do_not(quantized):
    public.validate(quantized, data=SHAPES)
    assert set(read_details(Bundle.open(quantized)).details) == {
        each.name for each in Bundle.open(quantized).manifest.variants
    }
    public.validate(quantized, data=MANY, variants=["int8-openvino"])
    assert (details(quantized).images, details(quantized, "int8-openvino").images) == (96, 512)
    blurred(quantized)
    found = read_details(Bundle.open(quantized)).details
    assert "int8-onnxruntime" not in found
    assert "int8-openvino" in found


@pytest.mark.parametrize("kept", [0, 2])
def test_so_many_thumbnails_are_kept_as_a_user_wants(quantized, kept):
    public.validate(blurred(quantized), data=MANY, max_drop=100, thumbnails=kept, variants=["int8-onnxruntime"])
    assert len([each for each in details(quantized).flips if each.thumbnail]) == kept
    assert bool(list(quantized.glob("accuracy/thumbnails/*.jpg"))) == bool(kept)
    with pytest.raises(InputError, match="thumbnails"):
        public.validate(quantized, data=MANY, thumbnails=25)


def test_what_is_damaged_or_made_up_is_left_out(quantized):
    public.validate(blurred(quantized), data=MANY, max_drop=100, variants=["int8-onnxruntime"])
    bundle = Bundle.open(quantized)
    found = details(quantized)
    hostile = msgspec.structs.replace(found.flips[0], thumbnail="evil.jpg")

    def fill(folder):
        (folder / "thumbnails").mkdir()
        (folder / "thumbnails" / "evil.jpg").write_bytes(b"<svg onload='alert(1)'/>")
        msgspec.structs.replace(found, flips=(hostile,)).save(folder / "int8-onnxruntime.json")
        (folder / "int8-openvino.json").write_text("{}")
        return [folder / "int8-onnxruntime.json"]

    kept = read_details(bundle.add_extra("accuracy", fill))
    assert kept.details["int8-onnxruntime"].flips == (hostile,)
    assert "int8-openvino" not in kept.details
    assert kept.thumbnails == {}


def test_a_pack_is_measured_and_stays_as_it_is(quantized, tmp_path):
    pack = public.pack(quantized, output=tmp_path / "small.evit", variants=["float32", "int8-onnxruntime"]).path
    before = pack.read_bytes()
    assert public.validate(pack, data=SHAPES).accuracies
    assert pack.read_bytes() == before


def test_a_full_disk_leaves_the_bundle_whole(quantized, monkeypatch):
    def full(self, path):
        raise StorageError("the disk is full", remedy="free some space")

    before = public.validate(quantized, data=SHAPES, variants=["int8-onnxruntime"])
    monkeypatch.setattr(AccuracyDetails, "save", full)
    with pytest.raises(StorageError):
        public.validate(quantized, data=MANY, variants=["int8-onnxruntime"])
    monkeypatch.undo()
    assert {each.images for each in before.accuracies.values()} == {96}
    assert Bundle.open(quantized).verify_files("int8-onnxruntime")
    assert read_details(Bundle.open(quantized)).details == {}  # they are of the images of before


@pytest.fixture
def wrong_engine(monkeypatch):
    """Give onnxruntime a defect that only its optimised graph has, as an engine in FP16 may have it."""
    infer = OnnxRuntimeSession.infer
    opened = OnnxRuntimeSession.__init__

    def init(self, *arguments, optimize=True, **options):
        opened(self, *arguments, optimize=optimize, **options)
        self.is_wrong = optimize and "int8" in str(self._model)

    def overflow(self, images):
        found = infer(self, images)
        return found * np.float32(0.5) - found.mean() if self.is_wrong else found

    monkeypatch.setattr(OnnxRuntimeSession, "__init__", init)
    monkeypatch.setattr(OnnxRuntimeSession, "infer", overflow)


def test_an_engine_that_differs_from_its_onnx_fails_though_its_answers_are_the_same(quantized, wrong_engine, edgevit):
    found = public.validate(quantized, data=SHAPES, variants=["int8-onnxruntime", "int8-openvino"])
    wrong, right = (found.accuracies[name] for name in found.names)
    assert wrong.agreement > 0.9  # the order of the classes is the same
    assert not wrong.passed
    assert wrong.reason.startswith("the engine is wrong: onnxruntime is ")
    assert right.passed
    steps = details(quantized).steps
    assert steps.engine_to_onnx.sqnr_db < steps.least_db < steps.onnx_to_float32.sqnr_db
    assert edgevit("validate", quantized, "--data", SHAPES, "--variant", "int8-onnxruntime").code == 1


def test_an_engine_of_another_calibration_is_not_compared_with_this_one(quantized):
    stale = shutil.copytree(quantized / "int8-openvino", quantized.parent / "stale")
    public.quantize(quantized, data="shapes:size=16,count=48", seed=7)
    bundle = Bundle.open(quantized)
    variant = bundle.variant("int8-openvino")

    def fill(folder):
        for path in stale.iterdir():
            shutil.copy(path, folder / path.name)
        return [folder / "model.xml"]

    bundle.add_variant(
        variant.name, precision="int8", backend="openvino", target=variant.target, settings=variant.settings, fill=fill
    )
    public.validate(quantized, data=SHAPES, variants=["int8-openvino"])
    steps = details(quantized, "int8-openvino").steps
    assert "another calibration" in steps.missing
    assert steps.wrong is None
    assert steps.engine_to_float32.sqnr_db > 5


def test_an_embedding_model_has_steps_alone(embedding):
    public.quantize(embedding, data="shapes:size=16,count=48")
    public.validate(embedding, data=SHAPES)
    found = details(embedding, "int8-onnxruntime")
    assert (found.flips, found.classes, found.calibration) == ((), (), None)
    assert found.steps.engine_to_onnx.kl is None
    assert found.steps.wrong is None


def test_a_device_measures_without_what_writes_onnx():
    hidden = "for name in ('onnx', 'onnx_ir', 'torch', 'jinja2'): sys.modules[name] = None"
    subprocess.run([sys.executable, "-c", f"import sys\n{hidden}\nimport edgevit.stages.validate"], check=True)
