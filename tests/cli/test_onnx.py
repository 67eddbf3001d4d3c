"""Third-party ONNX files on the command line: the whole way, without torch, and what is wrong with them."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import onnxruntime
import pytest
from external_vits import LINEARS
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import ENGINES, SHAPES, content, entries

from edgevit.bundle.store import Bundle
from edgevit.cli.values import interpolation_called, numbers, resizing
from edgevit.data.shapes import load_shapes
from edgevit.errors import InputError
from edgevit.runtime import load

STATISTICS = ("--mean", "0.5", "--std", "0.25", "--resize", "squash")


@pytest.fixture
def photos(tmp_path):
    """Return a CSV file of 48 pictures without labels: the random models' classes mean nothing."""
    shapes = load_shapes("test", "size=40,count=48")
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(len(shapes)):
        shapes.image(index).save(folder / f"{index}.png")
    with (tmp_path / "photos.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path"], *([f"photos/{index}.png"] for index in range(len(shapes)))])
    return tmp_path / "photos.csv"


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("old", "timm"),
        ("one image, new", "timm"),
        ("gemm", "timm"),
        ("opset 12", "timm"),
        ("hugging face, new", "hugging-face"),
    ],
)
def test_from_an_onnx_file_to_integers(edgevit, external_vits, photos, tmp_path, kind, family):
    source, path = external_vits[kind], tmp_path / "vit.edgevit"
    done = edgevit("export", source, "-o", path, "--data", photos, *STATISTICS)
    assert done.code == 0, done.err
    assert f"equal to {source}" in done.out
    assert f"next: edgevit quantize {path}" in done.out
    assert "images are prepared with the mean, std and resize that you gave: squashed to 32x32" in done.err
    manifest = Bundle.open(path).manifest
    assert manifest.spec is None
    assert manifest.graph.producer.startswith("pytorch")
    assert (manifest.provenance.source, len(manifest.golden)) == (source.name, 9)
    assert "torch" not in manifest.provenance.packages
    done = edgevit("quantize", path, "--data", photos, "--json")
    assert done.code == 0, done.err
    for variant in done.data()["variants"]:
        quantized = LINEARS[family] + 1  # the patch embedding, too
        expected = (quantized, quantized) if variant["name"].startswith("int8") else (LINEARS[family], 0)
        assert (variant["kernels"]["linears"], variant["kernels"]["integer_linears"]) == expected
    done = edgevit("validate", path, "--data", photos, "--max-drop", "100", "--json")
    assert done.code == 0, done.err
    found = {variant["name"]: variant for variant in done.data()["variants"]}
    for engine in ENGINES:
        assert found[f"float32-{engine}"]["sqnr_db"] is None or found[f"float32-{engine}"]["sqnr_db"] > 100
        assert found[f"int8-{engine}"]["sqnr_db"] > (25 if engine == "openvino" else 30)  # its q k^T is in INT8, too
        assert found[f"int8-{engine}"]["agreement"] > 0.9
    image = photos.with_name("photos") / "0.png"
    with load(path, variant="int8-onnxruntime") as model:
        quantized = model.infer(model.prepare([image]))
        batch = np.ascontiguousarray(model.prepare([image]))
    session = onnxruntime.InferenceSession(source)
    exact = session.run(None, {session.get_inputs()[0].name: batch})[0]
    np.testing.assert_allclose(quantized, exact, atol=0.05 * np.abs(exact).max())
    done = edgevit("predict", path, image, "--json")
    assert done.code == 0, done.err


def test_the_other_commands(edgevit, external_vits, photos, tmp_path):
    path = tmp_path / "vit.edgevit"
    assert edgevit("export", external_vits["new"], "-o", path, "--data", photos).code == 0
    assert edgevit("build", path, "--target", "x86-openvino", "--precision", "float32").code == 0
    done = edgevit("inspect", path)
    assert done.code == 0
    assert "vit: an ONNX file of pytorch" in done.out
    assert "32x32 images, 5 classes" in done.out
    done = edgevit("inspect", path, "--json")
    assert done.data()["spec"].keys() == {"image_size", "channels", "classes", "outputs", "producer"}
    done = edgevit("benchmark", path, "--duration", "0.02", "--threads", "1", "--json")
    assert done.code in (0, 1), done.err
    assert {variant["name"] for variant in done.data()["variants"]} == {"float32", "float32-openvino"}
    done = edgevit("report", path, "--json")
    assert done.code == 0, done.err
    assert "an ONNX file of pytorch" in (path / "report/index.html").read_text()
    for precision in ("fp16", "int8-dynamic", "int8-weights"):
        images = ["--data", photos] if precision == "fp16" else []
        done = edgevit("quantize", path, "--precision", precision, *images)
        assert done.code == 0, done.err


@pytest.mark.parametrize("dialect", ["portable", "tensorrt", "tensorrt-legacy"])
def test_dialects(edgevit, external_vits, photos, tmp_path, dialect):
    path = tmp_path / "vit.edgevit"
    assert edgevit("export", external_vits["old"], "-o", path, "--data", photos).code == 0
    done = edgevit("quantize", path, "--data", photos, "--dialect", dialect)
    assert done.code == 0, done.err


def test_an_embedding(edgevit, external_vits, photos, tmp_path):
    path = tmp_path / "vit.edgevit"
    options = ("--onnx-output", "pooled", "--embedding", "--data", photos)
    assert edgevit("export", external_vits["hidden"], "-o", path, *options).code == 0
    assert edgevit("quantize", path, "--data", photos).code == 0
    done = edgevit("validate", path, "--data", photos, "--json")
    assert done.code == 0, done.err
    assert done.data()["variants"][2]["similarity"]["cosine_mean"] > 0.99
    with load(path) as model:
        assert model.embed(photos.with_name("photos") / "0.png").shape == (32,)


def test_the_pipeline_reads_what_lies_beside_the_file(edgevit, external_vits, photos, tmp_path):
    source = shutil.copy(external_vits["one image, new"], tmp_path / "vit.onnx")
    names = {str(index): name for index, name in enumerate("abcde")}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    path = tmp_path / "vit.edgevit"
    timing = ("--duration", "0.02", "--threads", "1")
    done = edgevit("pipeline", source, "--data", photos, "-o", path, "--max-drop", "100", *timing)
    assert done.code == 0, done.err
    manifest = Bundle.open(path).manifest
    assert manifest.labels == tuple("abcde")
    assert manifest.preprocess.std == (0.25,) * 3


def test_torch_is_not_needed(external_vits, photos, tmp_path):
    code = (
        "import sys\nfrom edgevit.cli.app import run\n"
        f"assert run(['export', {str(external_vits['new'])!r}, '-o', {str(tmp_path / 'vit.edgevit')!r}, "
        f"'--data', {str(photos)!r}]) == 0\n"
        "print('loaded', *(name for name in ('torch', 'onnxscript', 'safetensors') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded"]


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        (("--mean", "red"), "'red' is no number", "write --mean 0.5"),
        (("--std", "1/0"), "'1/0' is no number", "write --std 0.5"),
        (("--mean", "0.1,0.2"), "RGB images need 3 means", "one mean"),
        (("--resize", "crop"), "'crop' is no size", "--resize squash"),
        (("--interpolation", "bicubik"), "there is no interpolation 'bicubik'", "bicubic"),
        (("--labels", "none.txt"), "none.txt cannot be read", "one label a line"),
        (("--onnx-output", "z"), "has no output 'z'", "y"),
        (("--l2-normalize",), "--l2-normalize goes with checkpoints", "leave it out"),
        (("--image-size", "64"), "takes images of 32x32, not 64x64", "leave --image-size out"),
    ],
)
def test_what_users_get_wrong(edgevit, external_vits, tmp_path, options, message, remedy):
    done = edgevit("export", external_vits["old"], "-o", tmp_path / "vit.edgevit", *options)
    assert done.code == 2
    said, advice = done.failure()
    assert message in said
    assert remedy in advice
    assert entries(tmp_path) == []


@pytest.mark.parametrize("option", ["--onnx-output", "--embedding"])
def test_options_that_a_checkpoint_does_not_take(edgevit, tiny_checkpoint, tmp_path, option):
    value = {"--embedding": ()}.get(option, ("1",))
    done = edgevit("export", tiny_checkpoint, "-o", tmp_path / "vit.edgevit", option, *value)
    assert done.code == 2
    assert f"{option} goes with an ONNX file" in done.failure()[0]


def test_how_images_are_prepared_can_be_said_of_a_checkpoint(edgevit, tiny_checkpoint, tmp_path):
    said = ("--mean", "0.5", "--std", "0.25", "--crop", "0.8", "--interpolation", "lanczos")
    done = edgevit("export", tiny_checkpoint, "-o", tmp_path / "vit.edgevit", *said)
    assert done.code == 0
    given = "the mean, std, crop and interpolation that you gave"
    assert f"images are prepared with {given}: short edge 20, crop 16x16 lanczos" in done.err
    preprocess = Bundle.open(tmp_path / "vit.edgevit").manifest.preprocess
    assert (preprocess.size, preprocess.resize) == ((16, 16), 20)
    assert set(preprocess.mean + preprocess.std) == {0.5, 0.25}


def test_a_file_that_pads_images_goes_the_whole_way(edgevit, tiny_checkpoint, tmp_path):
    keys = {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 16}, "pad_size": 16}
    (tmp_path / "sam.json").write_text(json.dumps({**keys, "image_mean": [0.2, 0.4, 0.6], "image_std": 0.25}))
    path = tmp_path / "vit.edgevit"
    options = ("--preprocess", tmp_path / "sam.json")
    assert edgevit("export", tiny_checkpoint, "-o", path, *options, "--data", SHAPES).code == 0
    shown = " ".join(edgevit("inspect", path).out.split())
    assert "images: resized to fit in 16x16, padded below and at the right to 16x16 bilinear, mean 0.2 0.4 0.6" in shown
    model = load(path)
    image = Image.effect_noise((30, 10), 90).convert("RGB")
    found = model.preprocess(image)
    assert np.abs(found[:, 5:]).max() < 0.5 / 255 / 0.25
    assert np.abs(found[:, :5]).max() > 0.5
    assert len(model.predict(image)) > 0
    said = edgevit("export", tiny_checkpoint, "-o", tmp_path / "plain.edgevit", *options, "--resize", "squash")
    assert said.code == 0
    assert Bundle.open(tmp_path / "plain.edgevit").manifest.preprocess.pad == "around"
    (tmp_path / "sam.json").write_text(json.dumps({**keys, "do_pad": False}))
    done = edgevit("export", tiny_checkpoint, "-o", tmp_path / "other.edgevit", *options)
    assert done.code == 2
    assert "size is {'longest_edge': 16}" in done.failure()[0]
    assert "--resize EDGE or squash" in done.failure()[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop", "224"), "'224' is no part of the short edge"),
        (("--crop", "0.8", "--resize", "20"), "both say what is cut out"),
        (("--interpolation", "cubic"), "there is no interpolation 'cubic'"),
    ],
)
def test_what_cannot_be_said_of_images(edgevit, tiny_checkpoint, tmp_path, options, message):
    done = edgevit("export", tiny_checkpoint, "-o", tmp_path / "vit.edgevit", *options)
    assert done.code == 2
    assert message in done.failure()[0]


def test_an_onnx_file_has_no_weights_to_train(edgevit, external_vits, tmp_path):
    done = edgevit("train", "--from", external_vits["old"], "--data", "shapes", "-o", tmp_path / "run")
    assert done.code == 2
    assert "edgevit export takes the ONNX file as it is" in done.failure()[1]


def test_a_folder_with_an_onnx_file(edgevit, external_vits, tmp_path):
    (tmp_path / "folder").mkdir()
    shutil.copy(external_vits["old"], tmp_path / "folder" / "model.onnx")
    done = edgevit("export", tmp_path / "folder", "-o", tmp_path / "vit.edgevit")
    assert done.code == 2
    assert f"edgevit export takes {tmp_path / 'folder' / 'model.onnx'}" in done.failure()[1]


def test_without_linear_layers_quantizing_is_refused(edgevit, photos, tmp_path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "conv.onnx")
    path = tmp_path / "conv.edgevit"
    assert edgevit("export", tmp_path / "conv.onnx", "-o", path, "--data", photos).code == 0
    before = content(path)
    done = edgevit("quantize", path, "--data", photos)
    assert done.code == 2
    assert "no Linear layer" in done.failure()[0]
    assert content(path) == before


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4))
def test_numbers(values):
    assert numbers("--mean", ",".join(f"{value:.6f}" for value in values)) == pytest.approx(values, abs=1e-6)


def test_fractions():
    assert numbers("--std", "1/255, 0.5") == (1 / 255, 0.5)


@given(st.text(), st.sampled_from([partial(numbers, "--mean"), resizing, interpolation_called]))
def test_any_text_is_read_or_refused(text, read):
    with contextlib.suppress(InputError):
        read(text)
