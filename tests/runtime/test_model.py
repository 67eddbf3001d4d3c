"""The runtime on real engines, with a tiny linear model that NumPy can check."""

import io
import threading
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Provenance
from edgevit.bundle.store import Bundle
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, DataError, ImageError, InputError, VerificationError
from edgevit.evaluation.accuracy import measure_accuracy
from edgevit.models.spec import ModelSpec
from edgevit.runtime import LoadWarning, Prediction, load

pytestmark = pytest.mark.usefixtures("all_cores")

LABELS = ("shirt", "shoe", "bag", "hat")
PREPROCESS = Preprocess(size=(8, 8), resize=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
SPEC = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=4)
RANDOM = np.random.default_rng(7)
WEIGHT = (RANDOM.standard_normal((192, 4)) / 8).astype(np.float32)
PHOTOS = [Image.fromarray(pixels) for pixels in RANDOM.integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)]
INPUTS = np.stack([PREPROCESS(photo) for photo in PHOTOS])
LOGITS = INPUTS.reshape(6, -1) @ WEIGHT


def write_onnx(path: Path, weight: np.ndarray) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def rounded(weight: np.ndarray) -> np.ndarray:
    """The weights as 8-bit integers would hold them."""
    scale = np.abs(weight).max(axis=0) / 127
    return np.round(weight / scale) * scale


def add(bundle: Bundle, name: str, weight: np.ndarray, *, precision="int8", backend="onnxruntime") -> Bundle:
    source = write_onnx(bundle.path.parent / f"{name}.onnx", weight)
    engine = get_backend(backend)
    return bundle.add_variant(
        name,
        precision=precision,
        backend=backend,
        target="any",
        settings=dict(engine.settings),
        fill=partial(engine.build, source),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.create(
        tmp_path / "linear.edgevit",
        name="linear",
        spec=SPEC,
        preprocess=PREPROCESS,
        labels=LABELS,
        provenance=Provenance(source="test", weights_sha256="0" * 64, edgevit="0", packages={}, created_at="now"),
        backend="onnxruntime",
        float32=write_onnx(tmp_path / "float32.onnx", WEIGHT),
        golden_images=PHOTOS,
        golden_logits=LOGITS,
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_logits_and_predictions_are_those_of_the_float32_model(bundle: Bundle, backend: str):
    bundle = add(bundle, "float32-again", WEIGHT, precision="float32", backend=backend)
    with load(str(bundle.path), variant="float32-again", threads=1) as model:
        assert model.labels == LABELS
        assert model.preprocess == PREPROCESS
        np.testing.assert_allclose(model.infer(INPUTS), LOGITS, atol=1e-4)
        answers = model.predict(PHOTOS[0], top=4)
        probabilities = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()
        order = np.argsort(-LOGITS[0])
        assert [answer.index for answer in answers] == list(order)
        assert [answer.label for answer in answers] == [LABELS[index] for index in order]
        np.testing.assert_allclose([answer.probability for answer in answers], probabilities[order], atol=1e-4)


def test_images_of_every_kind_give_the_same_answer(bundle: Bundle, tmp_path: Path):
    photo = PHOTOS[1]
    photo.save(tmp_path / "photo.png")
    stream = io.BytesIO()
    photo.save(stream, format="PNG")
    with load(bundle.path) as model:
        expected = model.predict(photo)
        assert len(expected) == 4, "there are fewer classes than five"
        sources = [tmp_path / "photo.png", str(tmp_path / "photo.png"), stream.getvalue(), np.asarray(photo), photo]
        assert [model.predict(source) for source in sources] == [expected] * 5
        assert model.predict_batch(sources) == [expected] * 5
        assert model.predict(photo, top=1) == expected[:1]
        assert model.predict_batch([]) == []
        with pytest.raises(ImageError, match="does not exist"):
            model.predict(tmp_path / "absent.png")
        with pytest.raises(InputError, match="top is 0"):
            model.predict(photo, top=0)


def test_frames_of_cameras_are_taken_in_their_order(bundle: Bundle):
    frames = [np.asarray(photo)[..., ::-1] for photo in PHOTOS]
    with load(bundle.path) as model:
        expected = model.predict_batch(PHOTOS)
        assert model.predict_batch(frames, channels="bgr") == expected
        assert model.predict(frames[0], channels="bgr") == expected[0]
        assert model.predict(frames[0]) != expected[0]
        with pytest.raises(ImageError, match="channels='bgr' is for arrays"):
            model.predict(PHOTOS[0], channels="bgr")
        with pytest.raises(InputError, match="channels is 'gbr'"):
            model.predict(frames[0], channels="gbr")


def test_many_images_go_through_in_order(bundle: Bundle):
    with load(bundle.path) as model:
        answers = model.predict_batch(PHOTOS * 12, top=1)
    assert [answer[0].index for answer in answers] == list(LOGITS.argmax(axis=1)) * 12


def test_inputs_that_do_not_fit_are_told_what_would(bundle: Bundle):
    with load(bundle.path) as model:
        for wrong in (
            INPUTS.astype(np.float64),
            INPUTS[0],
            INPUTS[:, :1],
            INPUTS[..., :4],
            np.zeros((2, 8, 8, 3), "u1"),
        ):
            with pytest.raises(DataError, match=r"float32 images \(any, 3, 8, 8\)"):
                model.infer(wrong)
        np.testing.assert_allclose(model.infer(INPUTS[:, :, ::-1][:, :, ::-1]), LOGITS, atol=1e-4)


def test_a_model_says_what_it_is(bundle: Bundle):
    with load(bundle.path) as model:
        assert repr(model) == "<Model 'float32': engine=onnxruntime, classes=4, input=(3, 8, 8)>"


def test_a_closed_model_says_so(bundle: Bundle):
    model = load(bundle.path)
    model.close()
    model.close()
    with pytest.raises(InputError, match="closed"):
        model.infer(INPUTS)


def test_a_prediction_cannot_be_changed():
    prediction = Prediction(label="a", index=0, probability=0.5)
    with pytest.raises(AttributeError):
        prediction.probability = 1.0
    assert msgspec.json.encode(prediction) == b'{"label":"a","index":0,"probability":0.5}'


def passing(bundle: Bundle, name: str) -> Bundle:
    """Note that a variant was validated, and lost nothing."""
    accuracy = measure_accuracy(LOGITS, LOGITS, None, data="photos", data_sha256="0" * 64, max_drop=0.5)
    return bundle.update_variant(name, accuracy=accuracy)


def test_int8_that_nobody_validated_is_loaded_by_its_name_or_for_want_of_others(bundle: Bundle, monkeypatch):
    bundle = add(bundle, "int8", rounded(WEIGHT), backend="openvino")
    with pytest.warns(LoadWarning, match="int8 has not been validated .*edgevit validate .*; loading float32") as seen:
        model = load(bundle.path)
    assert seen[0].filename == __file__  # the line that calls load()
    assert model.variant.name == "float32"
    assert len(model.notes) == 1
    model.close()
    with load(bundle.path, variant="int8", strict=True) as model:
        assert model.notes == ()
    with monkeypatch.context() as patch:
        patch.setattr(get_backend("onnxruntime").__class__, "available", classmethod(lambda _: False))
        with pytest.warns(LoadWarning, match="int8 was not validated .*edgevit validate .*loading int8"):
            load(bundle.path).close()
    bundle = passing(bundle, "int8")
    with load(bundle.path, strict=True) as model:
        assert (model.variant.name, model.notes) == ("int8", ())


def test_a_variant_of_which_nothing_is_known_is_not_spoken_of_where_another_passed(bundle: Bundle):
    bundle = passing(add(bundle, "int8", rounded(WEIGHT)), "int8")
    bundle = add(bundle, "fp16", WEIGHT, precision="fp16")
    with load(bundle.path) as model:
        assert (model.variant.name, model.notes) == ("int8", ())


def test_int8_is_loaded_before_float32_and_only_if_it_is_close(bundle: Bundle):
    bundle = passing(add(bundle, "int8", rounded(WEIGHT)), "int8")
    with load(bundle.path) as model:
        assert model.variant.name == "int8"
    with load(bundle.path, variant="float32") as model:
        assert model.variant.name == "float32"

    for broken in (np.roll(WEIGHT, 1, axis=1), -WEIGHT, WEIGHT * np.nan, np.zeros_like(WEIGHT)):
        bundle = passing(add(bundle, "int8", broken), "int8")
        with pytest.raises(VerificationError, match="golden images") as caught:
            load(bundle.path, strict=True)
        assert "float32" in caught.value.remedy
        with pytest.raises(VerificationError, match="golden images"):
            load(bundle.path, variant="int8")
        with pytest.warns(LoadWarning, match="int8 is not used here.*loading float32"):
            model = load(bundle.path)
        assert model.variant.name == "float32"
        assert len(model.notes) == 1
        model.close()
        load(bundle.path, check="files").close()


def test_a_model_that_answers_with_no_numbers_gives_no_predictions(bundle: Bundle):
    bundle = add(bundle, "int8", WEIGHT * np.nan)
    with load(bundle.path, variant="int8", check="files") as model, pytest.raises(VerificationError, match="finite"):
        model.predict(PHOTOS[0])


def test_float32_has_to_agree_closely(bundle: Bundle):
    bundle = add(bundle, "float32-rounded", rounded(WEIGHT), precision="float32")
    with pytest.raises(VerificationError, match="differ by"):
        load(bundle.path, variant="float32-rounded")


def test_a_model_of_another_size_is_not_taken_for_this_one(bundle: Bundle):
    bundle = add(bundle, "int8", WEIGHT[:, :3])
    with pytest.raises(VerificationError, match="shape"):
        load(bundle.path, variant="int8")


def test_files_that_were_changed_are_never_opened(bundle: Bundle):
    model = bundle.path / "float32/model.onnx"
    content = bytearray(model.read_bytes())
    content[-20] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        load(bundle.path, check="files")


def test_golden_images_that_were_changed_are_not_believed(bundle: Bundle):
    image = bundle.path / "golden/00.png"
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="damaged"):
        load(bundle.path)


def test_what_is_not_there_is_said(bundle: Bundle, tmp_path: Path):
    with pytest.raises(BundleError, match="no variant 'int4'") as caught:
        load(bundle.path, variant="int4")
    assert "float32" in caught.value.remedy
    with pytest.raises(BundleError, match="there is no bundle"):
        load(tmp_path / "absent.edgevit")


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("threads", {"threads": "2"}),
        ("threads", {"threads": 1.5}),
        ("threads", {"threads": None}),
        ("threads", {"threads": -1}),
        ("threads", {"threads": 100_000}),
        ("threads", {"threads": True}),
        ("check", {"check": "none"}),
        ("check", {"check": None}),
        ("settings", {"settings": ["x"]}),
        ("settings", {"settings": {"images": 1}}),
    ],
)
def test_load_names_the_argument_that_is_of_another_kind(bundle: Bundle, argument: str, given: dict):
    with pytest.raises(InputError, match=argument) as caught:
        load(bundle.path, variant="float32", **given)
    assert argument in caught.value.remedy


def test_a_bundle_that_is_no_path_is_said():
    for given in (None, 3, ["a"]):
        with pytest.raises(InputError, match="bundle is"):
            load(given)


def test_images_of_other_kinds_are_named(bundle: Bundle, tmp_path: Path):
    stream = io.BytesIO()
    PHOTOS[0].save(stream, format="PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    with load(bundle.path, threads=1.0) as model:
        for given in (None, 3, [tmp_path / "a.png"], {"a": 1}, object(), bytearray(b"x")):
            with pytest.raises(ImageError, match=r"the image is|is not an image"):
                model.predict(given)
        frame = np.asarray(PHOTOS[0].convert("RGB"))
        for several in (None, 3, "a.png", b"a", tmp_path, bytearray(b"x"), stream, {"a.png": 1}, frame, frame[0, :, 0]):
            with pytest.raises(InputError, match="images are"):
                model.predict_batch(several)
        for top in (1.5, "3", None, 0, -1):
            with pytest.raises(InputError, match="top is"):
                model.predict(PHOTOS[0], top=top)
        with pytest.raises(DataError, match="images are"):
            model.infer([[1.0], [1.0, 2.0]])
        expected = model.predict(PHOTOS[0])
        assert model.predict(bytearray(stream.getvalue()), top=5.0) == expected
        assert model.predict(memoryview(stream.getvalue())) == expected
        assert model.predict_batch(photo for photo in PHOTOS[:2])[0] == expected
        assert model.infer(model.prepare([])).shape == (0, 4)


def test_a_bundle_that_is_replaced_all_the_time_still_loads(bundle: Bundle):
    stop = threading.Event()

    def replace() -> None:
        current = bundle
        while not stop.is_set():
            current = add(current, "again", WEIGHT, precision="float32")

    bundle = add(bundle, "again", WEIGHT, precision="float32")
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(150):
            load(bundle.path, variant="again", check="files", threads=1).close()
    finally:
        stop.set()
        writer.join()
