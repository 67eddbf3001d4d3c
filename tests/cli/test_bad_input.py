"""What users get wrong: one clear line, what to do, the right exit code, and everything as it was before."""

import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from tiny import SHAPES, content, entries

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.errors import VerificationError
from edgevit.runtime import load

LONG = "a" * 300


@pytest.fixture
def photos(tmp_path):
    """Return a folder with sixteen pictures of two shapes, 40x40, as a user's photos lie there."""
    shapes = load_shapes("test", "size=40,count=64")
    folder = tmp_path / "photos"
    for index in range(len(shapes)):
        name = shapes.class_names[shapes.labels[index]]
        if name in ("circle", "star"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shapes.image(index).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def refused(edgevit):
    """Return a function that runs a command which must be refused, and gives its error and remedy."""

    def run(*arguments, code=2, bundle=None):
        before = content(bundle) if bundle else None
        done = edgevit(*arguments)
        assert done.code == code, done.err
        assert bundle is None or content(bundle) == before
        return done.failure()

    return run


# Data


def test_no_such_data(refused, quantized):
    for command in ("quantize", "validate"):
        message, remedy = refused(command, quantized, "--data", "nowhere/photos", bundle=quantized)
        assert message == "there is no folder or file nowhere/photos"
        assert "check the path" in remedy


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["validate", "b.edgevit", "--data", ""], "--data"),
        (["validate", "b.edgevit", "--data="], "--data"),
        (["train", "-o", ""], "-o"),
        (["predict", "b.edgevit", ""], "an argument"),
        (["", "b.edgevit"], "an argument"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(refused, arguments, named):
    message, remedy = refused(*arguments)
    assert message == f"{named} is empty"
    assert "leave it out" in remedy


@pytest.mark.parametrize("key", ["data", "root", "from", "model", "teacher", "images.preprocess"])
def test_an_empty_path_in_a_recipe_is_not_the_current_folder(refused, tmp_path, key):
    (tmp_path / "r.toml").write_text(f'{key} = ""\n')
    message, _ = refused("train", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "run")
    assert f"r.toml, line 1: {key}: " in message
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_is_nearly_named(refused, quantized):
    message, remedy = refused("validate", quantized, "--data", "fashion-mnist-sampel", bundle=quantized)
    assert "there is no data set or folder 'fashion-mnist-sampel'" in message
    assert "did you mean fashion-mnist-sample?" in remedy


@pytest.mark.parametrize("command", ["quantize", "validate"])
def test_a_folder_without_images(refused, quantized, tmp_path, command):
    (tmp_path / "empty" / "circle").mkdir(parents=True)
    message, remedy = refused(command, quantized, "--data", tmp_path / "empty", bundle=quantized)
    assert message == f"{tmp_path / 'empty'} has no images"
    assert "CLASS/image.jpg" in remedy


@pytest.mark.parametrize("command", ["quantize", "validate"])
def test_a_folder_without_classes_serves_where_no_labels_are_needed(edgevit, exported, photos, tmp_path, command):
    shutil.rmtree(photos / "star")
    flat = [*(photos / "circle").iterdir()]
    found = []
    for folder in (photos, photos / "circle"):
        done = edgevit(command, exported, "--data", folder, "--json")
        assert done.code == 0, done.err
        assert "its images are taken without labels" in done.err
        found.append(done.data())
    if command == "validate":
        assert [each["images"] for each in found] == [len(flat)] * 2
        assert found[0]["variants"][0]["top1"] is None


def test_training_on_one_class_or_nothing_leaves_no_run(refused, photos, tmp_path):
    shutil.rmtree(photos / "star")
    assert "only one class" in refused("train", "--data", photos, "-o", tmp_path / "run")[0]
    shutil.rmtree(photos / "circle")
    assert "has no images" in refused("train", "--data", photos, "-o", tmp_path / "run")[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["quantize", "validate"])
def test_a_truncated_image_is_named_and_counted(edgevit, refused, exported, photos, command):
    cut = photos / "circle" / "cut.png"
    shutil.copy(next((photos / "star").iterdir()), cut)
    os.truncate(cut, cut.stat().st_size // 2)
    arguments = (command, exported, "--data", photos)
    assert str(cut) in refused(*arguments, "--strict", bundle=exported)[0]
    done = edgevit(*arguments, "--json")
    assert done.code == 0
    assert done.data()["unreadable"] == [str(cut)]
    if command == "validate":
        assert done.data()["images"] == 16
    assert f"left out 1 image that cannot be read: {cut}" in edgevit(*arguments).out


def test_export_names_a_truncated_image(edgevit, refused, tiny_checkpoint, photos, tmp_path):
    cut = photos / "circle" / "cut.png"
    cut.write_bytes(b"\x89PNG\r\n")
    arguments = ("export", tiny_checkpoint, "-o", tmp_path / "new.edgevit", "--data", photos)
    assert str(cut) in refused(*arguments, "--strict")[0]
    assert not (tmp_path / "new.edgevit").exists()
    assert f"left out 1 image that cannot be read: {cut}" in edgevit(*arguments).out


def test_nothing_but_truncated_images(refused, quantized, photos):
    for path in photos.rglob("*.png"):
        os.truncate(path, 20)
    message, remedy = refused("validate", quantized, "--data", photos, bundle=quantized)
    assert message.startswith(f"none of the 16 images of {photos} can be read: {photos / 'circle'}")
    assert "damaged or cut short" in message
    assert "copy it again" in remedy


def test_unusual_but_good_images_are_read(edgevit, quantized, photos):
    picture = Image.open(next((photos / "star").iterdir()))
    picture.convert("CMYK").save(photos / "star" / "cmyk.jpg")
    picture.quantize(16).save(photos / "star" / "four-bit.png", bits=4)
    picture.convert("L").save(photos / "star" / "grey.png")
    done = edgevit("validate", quantized, "--data", photos, "--strict", "--max-drop", "100", "--json")
    assert done.code == 0
    assert done.data()["images"] == 19
    for name in ("cmyk.jpg", "four-bit.png", "grey.png"):
        assert edgevit("predict", quantized, photos / "star" / name).code == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one", "Only 1 image to calibrate on"),
        ("flat", "20 of 20 calibration images are of one colour"),
        ("black", "20 of 20 calibration images are of one colour"),
        ("grey", "have no colour"),
        ("sizes", None),
    ],
)
def test_unusual_calibration_images_are_warned_of_and_enough(edgevit, exported, tmp_path, kind, said):
    random = np.random.default_rng(0)
    sizes = [(16, 400 - 3 * index) if kind == "sizes" else (16, 16) for index in range(1 if kind == "one" else 20)]
    for index, size in enumerate(sizes):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        changed = {"flat": np.full_like(pixels, index), "black": 0 * pixels, "grey": np.repeat(pixels[..., :1], 3, 2)}
        Image.fromarray(changed.get(kind, pixels)).save(tmp_path / f"{index}.png")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index}.png\n" for index in range(len(sizes))))
    done = edgevit("quantize", exported, "--dialect", "onnxruntime", "--data", tmp_path / "list.csv")
    assert done.code == 0
    assert "10 of 10 Linear layers in integers" in done.out
    warnings = [line for line in done.err.splitlines() if "calibrat" in line and not line.startswith("Calibrating")]
    assert len(warnings) == (said is not None), warnings
    assert said is None or said in warnings[0]


def test_what_loading_will_refuse_is_said_when_it_is_made(edgevit, exported, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (tmp_path / "noise").mkdir()
    Image.fromarray(noise).save(tmp_path / "noise" / "0.png")  # unlike the shapes that the model was made for
    quantizing = ("quantize", exported, "--dialect", "onnxruntime", "--data", tmp_path / "noise")
    said, found = edgevit(*quantizing).out, edgevit(*quantizing, "--json").data()["refused"]
    with pytest.raises(VerificationError) as caught:
        load(exported, variant="int8-onnxruntime")
    reason = found["int8-onnxruntime"]
    assert caught.value.message.endswith(f": {reason}")
    assert f"int8-onnxruntime is refused when it is loaded, as it does not answer as float32 does: {reason}" in said
    assert "try: images for calibration that are like those that the model will see" in said
    building = ("build", exported, "--target", "x86-onnxruntime", "--precision", "int8", "--json")
    assert edgevit(*building).data()["refused"] == found


def test_too_few_images_for_a_search_leave_the_bundle_alone(refused, exported, photos, tmp_path):
    arguments = ("quantize", exported, "--data", photos, "--samples", "2", "--recipe", "search")
    message, remedy = refused(*arguments, bundle=exported)
    assert "too few" in message
    assert "128" in remedy


def test_a_variant_is_no_model_to_export(refused, quantized, tmp_path):
    path = quantized / "int8-onnxruntime" / "model.onnx"
    message, remedy = refused("export", path, "-o", tmp_path / "new.edgevit")
    assert "is quantized already: it has DequantizeLinear, MatMulIntegerToFloat" in message
    assert "float32 model" in remedy


@pytest.mark.parametrize(("label", "hint"), [("8", "8 classes"), ("99", "8 classes"), ("-2", "not a class index")])
def test_a_label_out_of_range(refused, quantized, photos, tmp_path, label, hint):
    first, second, *_ = (path.relative_to(tmp_path) for path in sorted(photos.rglob("*.png")))
    (tmp_path / "list.csv").write_text(f"path,label\n{first},1\n{second},{label}\n")
    message, _ = refused("validate", quantized, "--data", tmp_path / "list.csv", bundle=quantized)
    assert "line 3" in message
    assert f"label {label}" in message
    assert hint in message


def test_a_class_that_the_model_does_not_know(refused, quantized, photos):
    (photos / "star").rename(photos / "dog")
    message, remedy = refused("validate", quantized, "--data", photos, bundle=quantized)
    assert message == "the model has no class called 'dog'"
    assert "'circle'" in remedy


def test_a_listed_file_that_is_missing_is_an_unreadable_image(edgevit, refused, quantized, photos, tmp_path):
    first = sorted(photos.rglob("*.png"))[0].relative_to(tmp_path)
    (tmp_path / "list.csv").write_text(f"path,label\n{first},circle\nphotos/star/gone.png,star\n")
    arguments = ("validate", quantized, "--data", tmp_path / "list.csv", "--max-drop", "100")
    assert "gone.png" in refused(*arguments, "--strict", bundle=quantized)[0]
    done = edgevit(*arguments, "--json")
    assert done.code == 0
    assert done.data()["images"] == 1
    assert "gone.png" in done.data()["unreadable"][0]


@pytest.mark.parametrize("name", ["missing.jpg", "words.jpg", "folder"])
def test_predict_on_what_is_no_image(refused, quantized, tmp_path, name):
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "folder").mkdir()
    message, _ = refused("predict", quantized, tmp_path / name, bundle=quantized)
    assert message.startswith(str(tmp_path / name))


# Checkpoints


@pytest.fixture
def broken(tiny_checkpoint, tmp_path):
    """Return a function that writes the checkpoint again with its tensors changed."""
    from safetensors.torch import load_file, save_file

    def write(change):
        from safetensors import safe_open

        with safe_open(tiny_checkpoint, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(tiny_checkpoint)
        change(tensors)
        path = tmp_path / "broken.safetensors"
        save_file(tensors, path, metadata=metadata)
        return path

    return write


def _set(name, *shape, value=0.0):
    def change(tensors):
        import torch

        tensors[name] = torch.full(shape, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("blocks.1.mlp.fc2.weight"), "missing: blocks.1.mlp.fc2.weight"),
        (_set("head.weight", 8, 31), "misshapen: head.weight is (8, 31), not (8, 32)"),
        (_set("extra", 1), "left over: extra"),
        (_set("norm.weight", 32, value=float("nan")), "not finite: norm.weight"),
        (dict.clear, "0 tensors for 2 blocks"),
    ],
)
def test_a_checkpoint_whose_tensors_do_not_fit(refused, broken, exported, change, said):

    for target in (exported, exported.parent / "new.edgevit"):
        path = broken(change)
        message, remedy = refused("export", path, "-o", target, "--overwrite", bundle=exported)
        assert said in message
        assert remedy
    assert entries(exported.parent) == ["broken.safetensors", "tiny.edgevit"]


def test_a_checkpoint_that_asks_for_more_than_it_brings(refused, tiny_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    hostile = tmp_path / "hostile.safetensors"
    text = '{"spec": {"image_size": [16, 16], "patch_size": [4, 4], "width": 1048576, "depth": 1, "heads": 1, '
    text += '"classes": 1048576}, "preprocess": {"size": [16, 16], "resize": 16, "mean": [0.5, 0.5, 0.5], '
    text += '"std": [0.5, 0.5, 0.5]}, "labels": [' + ", ".join(['"x"'] * 1048576) + "]}"
    save_file(load_file(tiny_checkpoint), hostile, metadata={"edgevit": text})
    message, _ = refused("export", hostile, "-o", tmp_path / "new.edgevit")
    assert "misshapen" in message
    assert not (tmp_path / "new.edgevit").exists()


@pytest.mark.parametrize("name", ["blocks.x.norm1.weight", "blocks.99999999999.norm1.weight"])
def test_a_timm_checkpoint_with_odd_blocks(refused, tiny_checkpoint, tmp_path, name):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_checkpoint)
    tensors[name] = torch.zeros(32)
    save_file(tensors, tmp_path / "timm.safetensors")
    message, _ = refused("export", tmp_path / "timm.safetensors", "-o", tmp_path / "new.edgevit")
    assert f"left over: {name}" in message


@pytest.mark.parametrize(
    ("content_", "name"), [(b"", "m.safetensors"), (b"\xff" * 100, "m.safetensors"), (b"junk", "m.pth")]
)
def test_a_file_that_is_no_checkpoint(refused, tmp_path, content_, name):
    (tmp_path / name).write_bytes(content_)
    message, remedy = refused("export", tmp_path / name, "-o", tmp_path / "new.edgevit")
    assert str(tmp_path / name) in message
    assert remedy
    assert entries(tmp_path) == [name]


def test_images_and_models_that_are_not_there_are_told_before_others_are_read(refused, photos, tmp_path, monkeypatch):
    def read(*_, **__):
        raise AssertionError("read")

    monkeypatch.setattr("edgevit.models.loading.read_source", read)
    for command in ("export", "pipeline"):
        arguments = ("fashion-micro", "--data", tmp_path / "nowhere", "-o", tmp_path / "new.edgevit")
        assert "there is no folder or file" in refused(command, *arguments)[0]
    monkeypatch.setattr("edgevit.training.training_data.readable", read)
    train = ("train", "--data", photos, "-o", tmp_path / "run")
    assert refused(*train, "--model", "vit-mikro")[0] == "there is no preset 'vit-mikro'"
    assert "there is no checkpoint at" in refused(*train, "--from", tmp_path / "none.pth")[0]
    assert "there is no checkpoint at" in refused(*train, "--teacher", tmp_path / "none.pth")[0]


def test_images_without_their_option(refused, photos):
    message, remedy = refused("train", photos)
    assert "unexpected extra argument" in message
    assert remedy == "name images with --data and the output with -o; edgevit train --help"


def test_an_output_without_its_option(refused):
    message, remedy = refused("pack", "a.edgevit", "a.edgevit.zip")
    assert "unexpected extra argument" in message
    assert remedy == "name images with --data and the output with -o; edgevit pack --help"


def test_no_output(refused, tiny_checkpoint):
    message, remedy = refused("export", tiny_checkpoint)
    assert message.startswith("Missing option")
    assert remedy == "say where to with -o NAME; edgevit export --help"


def test_options_of_other_commands(refused, quantized):
    """Of build, which chooses one engine, to quantize, which chooses the file's dialect."""
    message, remedy = refused("quantize", quantized, "--data", SHAPES, "--target", "x86-openvino", bundle=quantized)
    assert message == "there is no option --target"
    assert remedy.startswith("use --dialect;")


@pytest.mark.parametrize(
    "name",
    ["run/state.pt", "hub/model.safetensors", "graphs/vit.onnx", "vit.pt", "vit.onnx", "vit.safetensors"],
    ids=lambda name: name,
)
def test_what_is_to_be_exported_first(refused, tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    with ZipFile(file, "w") as archive:  # as torch.save writes
        archive.writestr("archive/data.pkl", b"")
    given = file.parent if file.parent != tmp_path else file
    message, remedy = refused("inspect", given)
    assert message.startswith(f"{given} is not a bundle")
    assert remedy == f"make a bundle of it first: edgevit export {given} -o {given.stem}.edgevit"


def test_a_bundle_is_not_exported_again(refused, quantized, tmp_path):
    message, remedy = refused("export", quantized, "-o", tmp_path / "again.edgevit", bundle=quantized)
    assert message == f"{quantized} is a bundle already, and holds no weights to export"
    assert remedy.startswith(f"go on with it: edgevit quantize {quantized} --data IMAGES;")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_state_dict_of_an_unknown_model(refused, tmp_path, suffix):
    import torch
    from safetensors.torch import save_file

    tensors = {"stem.conv.weight": torch.ones(2, 2)}
    path = tmp_path / f"mine{suffix}"
    torch.save(tensors, path) if suffix == ".pt" else save_file(tensors, path)
    message, remedy = refused("export", path, "-o", tmp_path / "new.edgevit")
    assert "stem.conv.weight" in message
    assert "torch.onnx.export" in remedy
    assert entries(tmp_path) == [path.name]


def test_no_such_checkpoint(refused, tmp_path):
    message, remedy = refused("export", "fashion-mikro", "-o", tmp_path / "new.edgevit")
    assert message == "there is no checkpoint at fashion-mikro"
    assert "did you mean the built-in model 'fashion-micro'?" in remedy


# Bundles


def test_a_bundle_that_exists_stays_unless_told_otherwise(edgevit, refused, quantized, tiny_checkpoint):
    for command in ("export", "pipeline"):
        arguments = (command, tiny_checkpoint, "-o", quantized, "--data", SHAPES)
        message, remedy = refused(*arguments, bundle=quantized)
        assert message == f"{quantized} exists already"
        assert "--overwrite" in remedy
    assert edgevit("export", tiny_checkpoint, "-o", quantized, "--data", SHAPES, "--overwrite").code == 0
    assert [variant.name for variant in Bundle.open(quantized).manifest.variants] == ["float32"]


def test_what_is_no_bundle_is_never_overwritten(refused, tiny_checkpoint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file.edgevit").write_text("years of work")
    for place in ("thesis", "file.edgevit"):
        message, remedy = refused(
            "export", tiny_checkpoint, "-o", tmp_path / place, "--data", SHAPES, "--overwrite", bundle=tmp_path
        )
        assert "is not a bundle" in message
        assert "-o" in remedy


def test_a_pipeline_checks_its_data_before_it_replaces_a_bundle(refused, quantized, tiny_checkpoint, photos):
    (photos.parent / "split").mkdir()
    photos.rename(photos.parent / "split" / "test")
    arguments = ("pipeline", tiny_checkpoint, "-o", quantized, "--overwrite", "--data", photos.parent / "split")
    message, _ = refused(*arguments, bundle=quantized)
    assert "no images for train" in message
    (photos.parent / "split" / "test" / "star").rename(photos.parent / "split" / "test" / "dog")
    (photos.parent / "split" / "test").rename(photos)
    assert "no class called 'dog'" in refused(*arguments[:-1], photos, bundle=quantized)[0]


@pytest.mark.parametrize("arguments", [("quantize", "--data", SHAPES), ("validate", "--data", SHAPES), ("benchmark",)])
def test_no_such_bundle(refused, tmp_path, arguments):
    command, *options = arguments
    message, remedy = refused(command, tmp_path / "none.edgevit", *options)
    assert message == f"there is no bundle {tmp_path / 'none.edgevit'}"
    assert "edgevit export" in remedy
    assert entries(tmp_path) == []


@pytest.mark.parametrize("command", ["validate", "benchmark", "predict"])
def test_no_such_variant(refused, quantized, photos, command):
    options = {
        "validate": ("--data", SHAPES),
        "benchmark": ("--duration", "0.02"),
        "predict": (next(photos.rglob("*.png")),),
    }
    message, remedy = refused(command, quantized, *options[command], "--variant", "int9", bundle=quantized)
    assert message == "the bundle has no variant 'int9'"
    assert "int8-onnxruntime" in remedy


@pytest.mark.parametrize("command", ["validate", "benchmark", "predict", "quantize"])
def test_a_damaged_file_is_not_used(refused, quantized, photos, command):
    model = quantized / "float32" / "model.onnx"
    changed = bytearray(model.read_bytes())
    changed[-100] ^= 1
    model.write_bytes(changed)
    options = {
        "validate": ("--data", SHAPES),
        "quantize": ("--data", SHAPES),
        "benchmark": ("--duration", "0.02"),
        "predict": (next(photos.rglob("*.png")), "--variant", "float32"),
    }
    message, _ = refused(command, quantized, *options[command], bundle=quantized)
    assert f"{model} is damaged" in message


# Targets, kernels and numbers


def test_no_such_target_or_recipe(refused, quantized, tiny_checkpoint, tmp_path):
    for arguments in (
        ("build", quantized, "--target", "x86-openvini"),
        ("pipeline", tiny_checkpoint, "--data", SHAPES, "-o", tmp_path / "new.edgevit", "--target", "x86-openvini"),
    ):
        message, remedy = refused(*arguments, bundle=quantized)
        assert message == "there is no target 'x86-openvini'"
        assert "x86-openvino" in remedy
    message, _ = refused("quantize", quantized, "--data", SHAPES, "--recipe", "defualt", bundle=quantized)
    assert message == "there is no recipe 'defualt'"


def test_int8_before_calibration(refused, exported):
    arguments = ("build", exported, "--target", "x86-openvino", "--precision", "int8")
    message, remedy = refused(*arguments, bundle=exported)
    assert "has not been calibrated" in message
    assert remedy == f"edgevit quantize {exported} --data IMAGES"


def write_target(path: Path, **changes: str) -> Path:
    """Write a target of the user's own."""
    fields = {"description": "test", "backend": "onnxruntime", "dialect": "onnxruntime", "why": "test"} | changes
    lines = [f'{key} = "{value}"' for key, value in fields.items()]
    path.write_text("\n".join([*lines, 'precisions = ["float32", "int8"]', ""]))
    return path


def test_a_layer_without_an_integer_kernel_stays_float_and_is_named(edgevit, quantized, tmp_path, monkeypatch):
    monkeypatch.setattr("edgevit.targets._contradictions", lambda target: iter(()))  # which would not let it through
    target = write_target(tmp_path / "wrong.toml", dialect="openvino")
    done = edgevit("build", quantized, "--target", target, "--precision", "int8")
    assert done.code == 0, done.err
    assert "keeps head in float: onnxruntime runs it in float (Gemm)" in done.err
    (kept,) = Bundle.open(quantized).variant("int8-openvino").fallback
    assert kept.layer == "head"
    assert "Gemm" in kept.reason


def test_two_targets_that_make_one_variant(refused, tiny_checkpoint, tmp_path):
    target = write_target(tmp_path / "mine.toml")
    arguments = ("--target", "x86-onnxruntime", "--target", target, "--data", SHAPES, "-o", tmp_path / "new.edgevit")
    message, _ = refused("pipeline", tiny_checkpoint, *arguments)
    assert "would both make the variant int8-onnxruntime" in message
    assert not (tmp_path / "new.edgevit").exists()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("quantize", ("--data", SHAPES, "--samples", "0")),
        ("quantize", ("--data", SHAPES, "--samples", "-5")),
        ("quantize", ("--data", SHAPES, "--dialect", "esperanto")),
        ("quantize", ()),
        ("build", ("--target", "x86-openvino", "--precision", "int9")),
        ("validate", ("--data", SHAPES, "--max-drop", "nan")),
        ("validate", ("--data", SHAPES, "--max-drop", "-1")),
        ("benchmark", ("--batch", "0")),
        ("benchmark", ("--threads", "-1")),
        ("benchmark", ("--duration", "0")),
        ("benchmark", ("--duration", "nan")),
        ("predict", ()),
        ("predict", ("image.png", "--top", "0")),
    ],
)
def test_numbers_and_options_out_of_range(refused, quantized, command, options):
    _, remedy = refused(command, quantized, *options, bundle=quantized)
    assert remedy


def test_a_run_that_exists_stays(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    message, remedy = refused("train", "--data", "shapes:size=28,count=64", "-o", tmp_path / "run", bundle=tmp_path)
    assert message == f"{tmp_path / 'run'} exists already"
    assert "--resume" in remedy


def test_a_run_whose_state_is_damaged(refused, edgevit, tmp_path):
    options = ("--data", "shapes:size=28,count=16", "--epochs", "1", "--batch-size", "8")
    assert edgevit("train", *options, "-o", tmp_path / "run").code == 0
    os.truncate(tmp_path / "run" / "state.pt", 5000)
    message, _ = refused("train", *options, "-o", tmp_path / "run", "--resume", bundle=tmp_path)
    assert message == f"{tmp_path / 'run' / 'state.pt'} is damaged"


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", LONG),
        ("export", LONG, "-o", "new"),
        ("export", f"{LONG}.onnx", "-o", "new"),
        ("predict", "BUNDLE", LONG),
        ("quantize", "BUNDLE", "--data", LONG),
        ("train", "--data", LONG, "-o", "run"),
        ("export", "BUNDLE", "--labels", LONG, "-o", "new"),
    ],
)
def test_a_name_that_no_file_can_have(edgevit, tiny_exported, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = edgevit(*(tiny_exported if each == "BUNDLE" else each for each in arguments))
    assert done.code in (2, 3)
    assert done.failure()
    assert not any(tmp_path.iterdir())
