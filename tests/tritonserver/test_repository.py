"""``edgevit pack --format triton``: what is in the folder, held against Triton's own description of it."""

import hashlib
import json
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tiny import finish
from triton_config import model_config, parsed

import edgevit as public
from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.engine_info import EngineInfo
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, InputError
from edgevit.files import atomic_folder
from edgevit.runtime import load
from edgevit.stages import pack_triton
from edgevit.stages.pack_triton import TritonResult

pytest.importorskip("google.protobuf")
UP_TO_FOUR = BatchProfile(min=1, opt=1, max=4)


def configs(folder):
    return {path.parent.name: parsed(path.read_text()) for path in folder.glob("*/config.pbtxt")}


@pytest.fixture(scope="module")
def repository(tiny_quantized, tmp_path_factory):
    made = public.pack(tiny_quantized, tmp_path_factory.mktemp("triton") / "models", format="triton", name="vit")
    assert isinstance(made, TritonResult)
    return made


def test_each_variant_has_a_model_and_the_bundle_one(repository):
    natives = ("float32", "float32-onnxruntime", "int8-onnxruntime", "float32-openvino", "int8-openvino")
    assert [model.name for model in repository.models] == ["vit", *(f"vit-{name}" for name in natives)]
    assert repository.left_out == {}
    assert "it has not been validated" in repository.models[3].notes
    assert set(configs(repository.path)) == {model.name for model in repository.models}


def test_the_configs_say_what_triton_needs(repository, tiny_quantized):
    proto = model_config()
    labels = Bundle.open(tiny_quantized).manifest.labels
    for name, config in configs(repository.path).items():
        folder = repository.path / name
        assert config.name == name
        taken = {each.name: (each.data_type, list(each.dims), each.optional) for each in config.input}
        if config.backend == "python":
            assert taken == {
                "images": (proto.TYPE_FP32, [3, 16, 16], True),
                "files": (proto.TYPE_STRING, [1], True),
            }
            assert config.max_batch_size > 1
        else:
            assert taken == {"images": (proto.TYPE_FP32, [3, 16, 16], False)}
        (output,) = config.output
        assert (output.data_type, list(output.dims)) == (proto.TYPE_FP32, [8])
        assert (folder / output.label_filename).read_text().splitlines() == list(labels)
        assert config.HasField("dynamic_batching") == (config.max_batch_size > 1)
        assert config.instance_group[0].kind == proto.ModelInstanceGroup.KIND_CPU
        assert config.version_policy.latest.num_versions == 1
        assert [path.name for path in folder.iterdir() if path.is_dir()] == ["1"]


def test_the_files_of_native_models_are_the_variants(repository, tiny_quantized):
    bundle = Bundle.open(tiny_quantized)
    for model in repository.models[1:]:
        for file in bundle.variant(model.variant).files:
            (found,) = (repository.path / model.name / "1").glob(f"*{Path(file.path).suffix}")
            assert hashlib.sha256(found.read_bytes()).hexdigest() == file.sha256
            assert found.stem == "model"


def test_the_pack_in_it_is_one_that_loads(repository):
    with load(repository.path / "vit" / "1" / "model.edgevit.zip", variant="int8-onnxruntime", threads=1) as model:
        assert model.variant.name == "int8-onnxruntime"


def test_one_variant_is_the_one_that_runs(tiny_quantized, tmp_path):
    public.pack(tiny_quantized, tmp_path / "models", format="triton", variants=["int8-openvino"], name="vit")
    found = configs(tmp_path / "models")
    assert set(found) == {"vit", "vit-int8-openvino"}
    assert found["vit"].parameters["variant"].string_value == "int8-openvino"


def test_several_outputs_and_features(tiny_dense, tiny_embedding, tmp_path):
    public.pack(tiny_dense, tmp_path / "dense", format="triton", name="dense", variants=["float32"])
    for config in configs(tmp_path / "dense").values():
        found = {each.name: (list(each.dims), each.label_filename) for each in config.output}
        assert found == {"tokens": ([16, 32], ""), "block_0": ([32, 4, 4], ""), "logits": ([8], "labels.txt")}
    public.pack(tiny_embedding, tmp_path / "embedding", format="triton", name="e", variants=["float32"])
    for config in configs(tmp_path / "embedding").values():
        assert [(list(each.dims), each.label_filename) for each in config.output] == [([32], "")]
    assert not list((tmp_path / "embedding").glob("*/labels.txt"))


def test_hostile_labels_and_versions_stay_what_they_are(quantized, tmp_path):
    bundle = Bundle.open(quantized)
    labels = ('"', "}\x1b", "é\u2028", "\\n", "#", " ", "a" * 1000, "{")
    variants = [
        replace(one, versions='>=1"\nname: "x' if one.name == "float32" else None) for one in bundle.manifest.variants
    ]
    manifest = replace(bundle.manifest, labels=labels, variants=tuple(variants))
    (quantized / "manifest.json").write_bytes(encode_manifest(manifest))
    public.pack(quantized, tmp_path / "models", format="triton", name="vit")
    found = configs(tmp_path / "models")
    assert found["vit-float32"].name == "vit-float32"
    assert found["vit-float32"].parameters["edgevit_needs"].string_value == 'onnxruntime >=1"\nname: "x'
    assert (tmp_path / "models/vit/labels.txt").read_bytes() == "".join(f"{each}\n" for each in labels).encode()
    (quantized / "manifest.json").write_bytes(encode_manifest(replace(manifest, labels=("a\nb", *labels[1:]))))
    with pytest.raises(BundleError, match="cannot be a line"):
        public.pack(quantized, tmp_path / "others", format="triton", name="vit")
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("name", ["edgevit.json", "", "../up", "a b", "a/b", ".hidden", "x" * 129, 'a"', 7])
def test_a_name_that_is_no_folder_is_refused(tiny_quantized, tmp_path, name):
    with pytest.raises(InputError):
        public.pack(tiny_quantized, tmp_path / "models", format="triton", name=name)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_with_its_variants_is_refused(quantized, tmp_path):
    bundle = Bundle.open(quantized)
    (one, *rest) = bundle.manifest.variants
    long = replace(rest[0], name="v" * 128)
    (quantized / "manifest.json").write_bytes(
        encode_manifest(replace(bundle.manifest, variants=(one, long, *rest[1:])))
    )
    (quantized / rest[0].name).rename(quantized / long.name)
    files = tuple(replace(file, path=file.path.replace(rest[0].name, long.name)) for file in long.files)
    manifest = replace(bundle.manifest, variants=(one, replace(long, files=files), *rest[1:]))
    (quantized / "manifest.json").write_bytes(encode_manifest(manifest))
    with pytest.raises(InputError, match="too long"):
        public.pack(quantized, tmp_path / "models", format="triton", name="n" * 128)


def test_what_is_there_is_replaced_only_if_all_of_it_is_ours(tiny_quantized, tmp_path, edgevit):
    place = tmp_path / "models"
    options = ("--format", "triton", "--variant", "float32", "-o", place)
    assert edgevit("pack", tiny_quantized, *options).code == 0
    _, remedy = edgevit("pack", tiny_quantized, *options).failure()
    assert "--overwrite" in remedy
    assert edgevit("pack", tiny_quantized, *options, "--overwrite", "--name", "other").code == 0
    assert set(configs(place)) == {"other", "other-float32"}
    (place / "mine").mkdir()
    message, _ = edgevit("pack", tiny_quantized, *options, "--overwrite").failure()
    assert "is no model repository that EdgeViT alone has written" in message
    assert (place / "mine").is_dir()
    (place / "mine").rmdir()
    (tmp_path / "link").symlink_to(place)
    for other in (tmp_path / "link", tmp_path, tiny_quantized):
        assert edgevit("pack", tiny_quantized, "--format", "triton", "-o", other, "--overwrite").code == 2
    (place / "edgevit.json").write_text("{")
    assert edgevit("pack", tiny_quantized, *options, "--overwrite").code == 2


def test_the_command_says_what_to_type_next_and_a_pack_has_no_name(tiny_quantized, tmp_path, edgevit):
    made = edgevit("pack", tiny_quantized, "--format", "triton", "-o", tmp_path / "models", "--name", "vit")
    assert "--model-control-mode explicit --load-model vit" in made.out
    assert "by Triton's openvino" in made.out
    assert edgevit("pack", tiny_quantized, "--name", "vit", "-o", tmp_path / "a.zip").code == 2
    assert edgevit("pack", tiny_quantized, "--format", "tritn").code == 2
    with pytest.raises(InputError, match="format"):
        public.pack(tiny_quantized, format="tar")


def test_a_variant_that_missed_the_gate_has_no_model_unless_it_is_named(quantized, tmp_path):
    public.validate(quantized, data="shapes:size=16,count=64")
    bundle = Bundle.open(quantized)
    variants = tuple(
        replace(one, accuracy=replace(one.accuracy, passed=False)) if one.name == "int8-onnxruntime" else one
        for one in bundle.manifest.variants
    )
    (quantized / "manifest.json").write_bytes(encode_manifest(replace(bundle.manifest, variants=variants)))
    made = public.pack(quantized, tmp_path / "all", format="triton", name="vit")
    assert made.left_out == {"int8-onnxruntime": "it missed the gate on accuracy"}
    named = public.pack(quantized, tmp_path / "one", format="triton", name="vit", variants=["int8-onnxruntime"])
    assert named.left_out == {}


def test_tensorrt_engines_are_plans_bound_to_their_version(exported, tmp_path):
    def fill(folder, batch=UP_TO_FOUR):
        (folder / "model.engine").write_bytes(b"an engine")
        source = shutil.copyfile(exported / "float32/model.onnx", folder / "model.onnx")
        sums = {
            path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in ("model.engine", source.name)
        }
        EngineInfo(
            flavour="tensorrt",
            version="10.3.0",
            driver="python",
            compute_capability="8.7",
            batch=batch,
            precision="fp16",
            settings={},
            engine_sha256=sums["model.engine"],
            source_sha256=sums["model.onnx"],
        ).save(folder / "engine.json")
        return [folder / "model.engine", folder / "engine.json", folder / "model.onnx"]

    def onnx(folder):
        return [shutil.copyfile(exported / "float32/model.onnx", folder / "model.onnx")]

    bundle = Bundle.open(exported)
    for name, backend, make in (
        ("fp16-tensorrt", "tensorrt", fill),
        ("fp16-of-two", "tensorrt", lambda folder: fill(folder, BatchProfile(min=2, opt=2, max=2))),
        ("fp16-onnx", "tensorrt", onnx),
        ("fp16-rtx", "tensorrt-rtx", onnx),
    ):
        bundle = bundle.add_variant(name, precision="fp16", backend=backend, target="t", fill=make)
    made = public.pack(exported, tmp_path / "models", format="triton", name="vit")
    config = configs(tmp_path / "models")["vit-fp16-tensorrt"]
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 4)
    assert config.instance_group[0].kind == model_config().ModelInstanceGroup.KIND_GPU
    assert "TensorRT 10.3.0" in config.parameters["edgevit_note_1"].string_value
    assert (tmp_path / "models/vit-fp16-tensorrt/1/model.plan").read_bytes() == b"an engine"
    assert set(made.left_out) == {"fp16-of-two", "fp16-onnx", "fp16-rtx"}


def test_images_that_go_alone_are_not_batched(quantized, tmp_path):
    bundle = Bundle.open(quantized)
    variants = tuple(
        replace(one, settings={"images": "one-by-one"}) if one.name == "float32-onnxruntime" else one
        for one in bundle.manifest.variants
    )
    (quantized / "manifest.json").write_bytes(encode_manifest(replace(bundle.manifest, variants=variants)))
    public.pack(quantized, tmp_path / "models", format="triton", name="vit")
    found = configs(tmp_path / "models")
    assert found["vit-float32-onnxruntime"].max_batch_size == 1
    assert found["vit-float32"].max_batch_size == 8


def test_openvino_for_another_device_or_with_rounded_activations_is_left_out(quantized, tmp_path):
    bundle = Bundle.open(quantized)
    own = {"float32-openvino": {"DEVICE": "GPU"}, "int8-openvino": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}}
    variants = tuple(
        replace(one, settings={**one.settings, **own.get(one.name, {})}) for one in bundle.manifest.variants
    )
    (quantized / "manifest.json").write_bytes(encode_manifest(replace(bundle.manifest, variants=variants)))
    made = public.pack(quantized, tmp_path / "models", format="triton", name="vit")
    assert set(made.left_out) == set(own)


def test_a_damaged_variant_leaves_nothing(quantized, tmp_path):
    path = Bundle.open(quantized).verify_files("int8-onnxruntime")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="damaged"):
        public.pack(quantized, tmp_path / "models", format="triton")
    assert not list(tmp_path.glob("mod*"))
    assert not list(tmp_path.glob(".mod*"))


def test_killed_at_any_moment_it_is_the_old_one_or_the_new_one(forked, tiny_quantized, tmp_path):
    place, scratch = tmp_path / "models", tmp_path / "scratch"
    public.pack(tiny_quantized, place, format="triton", name="old", variants=["float32"])
    for milliseconds in (0, 5, 10, 20, 40):
        process = forked(
            "pack", tiny_quantized, "--format", "triton", "--name", "new", "-o", place, "--overwrite", scratch=scratch
        )
        for _ in process.stderr:  # it has begun to check files
            break
        signal.sigtimedwait([], milliseconds / 1000)
        process.kill()
        process.communicate()
        names = set(configs(place)) if place.exists() else set()
        written = json.loads((place / "edgevit.json").read_bytes()) if place.exists() else {"models": []}
        assert names == {model["name"] for model in written["models"]}
        assert not place.exists() or names in ({"old", "old-float32"}, names - {"old", "old-float32"})


def test_json_is_plain_data(tiny_quantized, tmp_path, edgevit):
    found = edgevit("pack", tiny_quantized, "--format", "triton", "-o", tmp_path / "m", "--json").data()
    assert found["models"][0]["backend"] == "python"
    assert found["path"] == str(tmp_path / "m")
    assert msgspec.json.decode((tmp_path / "m/edgevit.json").read_bytes())["format"] == "triton"


def test_its_size_is_told_though_another_process_puts_its_own_there_at_once(tiny_quantized, tmp_path, monkeypatch):
    @contextmanager
    def replaced(folder):
        with atomic_folder(folder) as draft:
            yield draft
        shutil.rmtree(folder)

    usual = public.pack(tiny_quantized, tmp_path / "usual", format="triton", name="vit")
    assert usual.bytes == sum(path.stat().st_size for path in (tmp_path / "usual").rglob("*") if path.is_file())
    monkeypatch.setattr(pack_triton, "atomic_folder", replaced)
    assert public.pack(tiny_quantized, tmp_path / "models", format="triton", name="vit").bytes == usual.bytes


def test_two_that_write_at_once_leave_one_whole_repository(forked, tiny_quantized, tmp_path):
    place = tmp_path / "models"
    for _ in range(2):  # to where there is nothing, and to where there is one
        running = [
            forked(
                "pack", tiny_quantized, "--format", "triton", "--name", name, "-o", place, "--overwrite",
                scratch=tmp_path / "scratch",
            )
            for name in ("one", "two")
        ]  # fmt: skip
        outcomes = [finish(process) for process in running]
        assert {outcome.code for outcome in outcomes} == {0}, outcomes
        written = {model["name"] for model in json.loads((place / "edgevit.json").read_bytes())["models"]}
        assert set(configs(place)) == written
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".models")]
