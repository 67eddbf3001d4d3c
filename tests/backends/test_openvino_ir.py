"""What an IR of ours tells other OpenVINO tools, and that it takes batches and pixels as it was built to."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import cores
import msgspec
import numpy as np
import onnx
import pytest
from cores import in_a_process

from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
from edgevit.backends.openvino_ir import exported_labels, exported_preprocess, model_info, write_valid_xml
from edgevit.bundle.model_interface import file_interface
from edgevit.bundle.store import Bundle
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, GraphError, InputError

GREY = Preprocess(size=(4, 4), resize=None, mean=(0.3,), std=(0.2,), channel_order="L", interpolation="bilinear")
PIXELS = BuildOptions(settings={"INPUT": "uint8-nhwc"})


def read(path):
    return get_backend("openvino")._engine.Core().read_model(path)


def infer(path, images, **settings):
    with get_backend("openvino").open(path, threads=2, settings=settings) as session:
        return session.infer(images)


def test_labels_and_preprocessing_are_where_other_tools_read_them(described, tmp_path):
    path = get_backend("openvino").build(described, tmp_path)[0]
    assert {key: str(read(path).get_rt_info(["model_info", key]).astype(str)) for key in EXPECTED} == EXPECTED
    assert exported_preprocess(read(path)) == GREY
    assert exported_labels(read(path)) == ("a cat", 'a "dog" & <bird>', "ça\tva")
    (entry,), (answer,) = read(path).inputs, read(path).outputs
    assert str(entry.get_node().get_layout()) == "[N,C,H,W]"
    assert str(answer.get_node().get_layout()) == "[N,C]"


def test_what_xml_has_no_characters_for_is_replaced(described, images, tmp_path):
    labels = ("a\x1b[2J cat", "a\ufffe", "plain & <odd>")
    model = onnx.load(described)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, notes | {"edgevit.labels": msgspec.json.encode(labels).decode()})
    answer, constant = model.graph.node[-1], model.graph.initializer[0]
    for node in model.graph.node:
        node.name += "\x07"
        node.input[:] = [f"{name}\x07" if name == constant.name else name for name in node.input]
    constant.name += "\x07"
    onnx.save(model, tmp_path / "odd.onnx")
    path = get_backend("openvino").build(tmp_path / "odd.onnx", tmp_path / "odd")[0]
    root = ElementTree.parse(path).getroot()
    assert root.find("rt_info/model_info/labels").get("value") == "a?[2J_cat a? plain_&_<odd>"
    assert file_interface(path).outputs[0].name == answer.output[0]
    usual = get_backend("openvino").build(described, tmp_path / "usual")[0]
    np.testing.assert_array_equal(infer(path, images), infer(usual, images))


@pytest.mark.parametrize("text", ["", "<a b='&#9;&#10;&#65;&amp;é\U0001f468'>\r\n\t</a>", "<a b='&#xE9;'/>"])
def test_valid_xml_stays_byte_by_byte(tmp_path, text):
    (tmp_path / "a.xml").write_bytes(text.encode())
    write_valid_xml(tmp_path / "a.xml")
    assert (tmp_path / "a.xml").read_bytes() == text.encode()


@pytest.mark.parametrize("odd", ["&#7;", "&#x1b;", "&#0;", "&#xFFFE;", "&#55296;", "&#99999999999;", "\x07", "\ufffe"])
def test_each_way_to_write_no_character_is_replaced(tmp_path, odd):
    (tmp_path / "a.xml").write_text(f"<a b='x{odd}y'/>", encoding="utf-8")
    write_valid_xml(tmp_path / "a.xml")
    assert ElementTree.parse(tmp_path / "a.xml").getroot().get("b") == "x?y"


EXPECTED = {
    "model_type": "Classification",
    "labels": 'a_cat a_"dog"_&_<bird> ça_va',
    "resize_type": "standard",
    "interpolation_mode": "LINEAR",
    "reverse_input_channels": "False",
    "mean_values": "76.5",
    "scale_values": "51",
}


def test_what_is_said_of_colour_and_of_a_crop():
    colour = Preprocess(size=(8, 8), resize=9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    info = model_info(colour, (), normalises=False)
    assert info == {
        "resize_type": "crop",
        "interpolation_mode": "CUBIC",
        "reverse_input_channels": "True",  # they read images as BGR
        "mean_values": "123.675 116.28 103.53",
        "scale_values": "58.395 57.12 57.375",
    }
    turned = msgspec.structs.replace(colour, channel_order="BGR")
    assert model_info(turned, (), normalises=False)["reverse_input_channels"] == "False"
    around = msgspec.structs.replace(colour, resize=None, fit="contain", box=(8, 8))
    assert model_info(around, (), normalises=False)["resize_type"] == "fit_to_window_letterbox"
    after = msgspec.structs.replace(around, pad="after")
    assert model_info(after, (), normalises=False)["resize_type"] == "fit_to_window"


def test_a_model_that_normalises_is_not_normalised_for_again(described, tmp_path):
    path = get_backend("openvino").build(described, tmp_path, PIXELS)[0]
    assert not {"mean_values", "scale_values"} & read(path).get_rt_info(["model_info"]).value.keys()
    (entry,) = read(path).inputs
    assert (str(entry.get_node().get_layout()), entry.get_element_type().get_type_name()) == ("[N,H,W,C]", "u8")


def test_a_model_that_says_nothing_of_itself(model, tmp_path):
    path = get_backend("openvino").build(model, tmp_path)[0]
    assert not read(path).has_rt_info(["model_info"])
    assert exported_preprocess(read(path)) is None
    with pytest.raises(GraphError, match="does not say how its images are normalised"):
        get_backend("openvino").build(model, tmp_path, PIXELS)


@pytest.mark.parametrize("said", ["{", '{"size": [4, 4]}', '{"size":[4,4],"resize":1,"mean":[0],"std":[1]}'])
def test_a_model_that_says_what_cannot_be(described, tmp_path, said):
    changed = onnx.load(described)
    onnx.helper.set_model_props(changed, {"edgevit.preprocess": said})
    onnx.save(changed, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="its preprocess cannot be understood"):
        get_backend("openvino").build(tmp_path / "model.onnx", tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("batch", [(1, 1), (2, 2), (2, 3), (1, 8), None], ids=str)
def test_any_number_of_images_goes_through_any_batch(model, tmp_path, images, batch, count):
    expected = infer(get_backend("openvino").build(model, tmp_path / "any")[0], images)[:count]
    path = built_for(batch, model, tmp_path / "built")
    found = infer(path, images[:count], PERFORMANCE_HINT="LATENCY")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (count, 3)
    size = read(path).inputs[0].get_partial_shape()[0]
    if batch is not None:
        assert (size.get_min_length(), size.get_max_length()) == batch
    else:
        assert not size.is_static


def built_for(batch, model, folder):
    profile = None if batch is None else BatchProfile(min=batch[0], opt=batch[0], max=batch[1])
    return get_backend("openvino").build(model, folder, BuildOptions(batch=profile))[0]


STREAMS = """
import json, sys
from pathlib import Path
import numpy as np
from edgevit.backends import get_backend
path, images, settings = Path(sys.argv[1]), np.load(sys.argv[2]), json.loads(sys.argv[3])
found = []
with get_backend("openvino").open(path, threads=2, settings=settings) as session:
    run = session._run
    for count in json.loads(sys.argv[4]):
        parts = []
        session._run = lambda by, given: parts.extend(len(each) for each in given) or run(by, given)
        found.append([parts, session.infer(images[:count]).tolist()])
    print(json.dumps([session._compiled.get_property("NUM_STREAMS"), found]))
"""


@pytest.fixture
def by_streams(images, tmp_path):
    """Return a function that gives how many streams there are, and for each count the parts and the logits."""
    np.save(tmp_path / "images.npy", images)
    return lambda path, settings, counts: in_a_process(
        STREAMS, path, tmp_path / "images.npy", json.dumps(settings), json.dumps(counts)
    )


@pytest.mark.parametrize("batch", [(1, 1), (2, 2), (2, 3), (1, 8), None], ids=str)
def test_any_number_of_images_goes_through_any_batch_by_two_streams(model, tmp_path, images, by_streams, batch):
    expected = infer(get_backend("openvino").build(model, tmp_path / "any")[0], images)
    path, counts = built_for(batch, model, tmp_path / "built"), [0, 1, 2, 3, 5]
    streams, found = by_streams(path, {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2"}, counts)
    assert streams == min(2, len(cores.ALL))
    for count, (_, logits) in zip(counts, found, strict=True):
        np.testing.assert_allclose(np.reshape(logits, (-1, 3)), expected[:count], atol=1e-5)


@pytest.mark.skipif(len(cores.ALL) < 2, reason="OpenVINO has a stream for a core, and this machine has one")
@pytest.mark.parametrize(("streams", "parts"), [("HINT", [5]), ("2", [3, 2])])
def test_streams_share_the_images(model, tmp_path, by_streams, streams, parts):
    path = get_backend("openvino").build(model, tmp_path)[0]
    count, ((seen, _),) = by_streams(path, {"NUM_STREAMS": streams}, [5])
    assert (count, seen) == (len(parts), parts)


def test_an_npu_takes_one_number_of_images(model, tmp_path):
    backend, npu = get_backend("openvino"), {"DEVICE": "NPU"}
    path = backend.build(model, tmp_path, BuildOptions(settings=npu))[0]
    assert list(read(path).inputs[0].shape) == [1, 1, 4, 4]
    with pytest.raises(InputError, match="one number of images, not 1 to 4"):
        backend.build(model, tmp_path, BuildOptions(settings=npu, batch=BatchProfile(max=4)))


@pytest.mark.parametrize("batch", [None, BatchProfile(min=2, opt=2, max=2)])
def test_pixels_give_the_logits_of_preprocessed_images(described, tmp_path, batch):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    images = np.stack([GREY.normalize(each) for each in pixels])
    backend = get_backend("openvino")
    expected = infer(backend.build(described, tmp_path / "float")[0], images)
    path = backend.build(described, tmp_path / "pixels", msgspec.structs.replace(PIXELS, batch=batch))[0]
    # As another application runs it.
    compiled = backend._engine.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = np.concatenate([compiled(pixels[start : start + 2])[0].copy() for start in (0, 2, 4)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(infer(path, images), found)


def test_pixels_give_the_logits_of_a_vit(tiny_quantized, tmp_path):
    bundle = Bundle.open(tiny_quantized)
    wants, images = bundle.manifest.preprocess, bundle.golden().images
    path = get_backend("openvino").build(bundle.verify_files("float32"), tmp_path, PIXELS)[0]
    found = infer(path, np.stack([wants(image) for image in images]))
    np.testing.assert_allclose(found, bundle.golden().logits, atol=1e-5)


def test_the_irs_in_a_bundle_say_what_its_manifest_says(tiny_quantized):
    bundle = Bundle.open(tiny_quantized)
    for name in ("float32-openvino", "int8-openvino"):
        model = read(bundle.verify_files(name))
        assert exported_preprocess(model) == bundle.manifest.preprocess
        assert exported_labels(model) == bundle.manifest.labels
        assert model.get_rt_info(["model_info", "labels"]).astype(str).split() == list(bundle.manifest.labels)


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ("edgevit.preprocess", "someone.preprocess", "does not say how it normalises"),
        ("mean&quot;", "median&quot;", "its preprocess cannot be understood"),
    ],
)
def test_pixels_that_nobody_knows_how_to_make(described, tmp_path, said, instead, message):
    path = get_backend("openvino").build(described, tmp_path, PIXELS)[0]
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, instead))
    with pytest.raises(BundleError, match=rf"model\.xml.*{message}"):
        infer(path, np.zeros((1, 1, 4, 4), dtype=np.float32))


BENCHMARK = (
    "import sys; from openvino.tools.benchmark.main import main; sys.modules['openvino_telemetry'] = None; main()"
)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (BuildOptions(batch=BatchProfile(min=2, opt=2, max=2)), ()),
        (None, ("-b", "1")),
        (PIXELS, ("-b", "1")),
    ],
    ids=["one batch", "any batch, INT8", "pixels"],
)
def test_openvinos_own_benchmark_runs_the_file(tiny_quantized, tmp_path, options, how):
    bundle = Bundle.open(tiny_quantized)
    path = bundle.verify_files("int8-openvino")  # as `edgevit quantize` built it
    if options is not None:
        path = get_backend("openvino").build(bundle.verify_files("float32"), tmp_path, options)[0]
    arguments = ["-m", str(path), "-d", "CPU", "-niter", "1", "-hint", "none", *how]
    done = subprocess.run([sys.executable, "-c", BENCHMARK, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"images \(node: images\) : u8" if options is PIXELS else r"images \(node: images\) : f32", done.stdout
    )
    assert "Count:            1 iterations" in done.stdout
