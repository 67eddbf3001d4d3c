"""ONNX files that take pixels: every form that is emitted for onnxruntime, and how one is opened."""

import sys

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_files import emit_dynamic, emit_float16, emit_weights_int4, emit_weights_int8, scan_float16
from tiny import PREPROCESS, SPEC

from edgevit.backends import backend_class, get_backend
from edgevit.backends.base import BuildOptions
from edgevit.backends.pixels import shape_of_images
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, GraphError, MissingDependencyError

TAKING = BuildOptions(settings={"INPUT": "uint8-nhwc"})
EMBEDDING = "patch_embed.transpose.output"


@pytest.fixture(scope="module")
def pixels(tiny_quantized):
    return np.stack([PREPROCESS.geometry(image) for image in Bundle.open(tiny_quantized).golden().images])


@pytest.fixture(scope="module")
def forms(tiny_quantized, pixels, tmp_path_factory):
    """Return a function that gives the ONNX file of a precision, as it goes to the backend."""
    bundle, folder = Bundle.open(tiny_quantized), tmp_path_factory.mktemp("forms")
    source, images = bundle.verify_files("float32"), PREPROCESS.normalize(pixels)
    emitters = {
        "fp16": lambda path: emit_float16(source, scan_float16(source, [images], total=1), path),
        "int8-dynamic": lambda path: emit_dynamic(source, path),
        "int8-weights": lambda path: emit_weights_int8(source, path),
        "int4-weights": lambda path: emit_weights_int4(source, path),
    }

    def form(precision):
        if precision not in emitters:
            return bundle.verify_files(precision)
        path = folder / f"{precision}.onnx"
        if not path.exists():
            emitters[precision](path)
        return path

    return form


def built(model, folder, options=TAKING):
    return get_backend("onnxruntime").build(model, folder, options)[0]


def open_session(path):
    return get_backend("onnxruntime").open(path, threads=1, settings={})


def answers(path, given):
    """Return the values behind the patch embedding, and the logits, of another application's onnxruntime."""
    model = onnx.load(path)
    names = [EMBEDDING, model.graph.output[0].name]
    model.graph.output.append(onnx.ValueInfoProto(name=EMBEDDING))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {"images": given})


@pytest.mark.parametrize(
    ("precision", "embedding", "logits"),
    [
        ("float32", 1e-5, 1e-5),
        ("float32-onnxruntime", 1e-5, 1e-5),
        ("fp16", 1e-3, 1e-2),
        # A value at the edge of two integers falls to the other side for a difference in the last digit.
        ("int8-onnxruntime", 1e-5, 0.05),
        ("int8-dynamic", 1e-5, 0.05),
        ("int8-weights", 1e-5, 0.05),
        ("int4-weights", 1e-5, 0.05),
    ],
)
def test_every_form_takes_pixels(forms, pixels, tmp_path, precision, embedding, logits):
    model = forms(precision)
    expected = answers(model, PREPROCESS.normalize(pixels))
    path = built(model, tmp_path)
    onnx.checker.check_model(str(path))
    found = answers(path, pixels)
    for before, after, error in zip(expected, found, (embedding, logits), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_allclose(after, before, atol=error * np.abs(before).max(), rtol=0)
    with open_session(path) as session, open_session(model) as usual:
        alike = session.infer(PREPROCESS.normalize(pixels))
        np.testing.assert_allclose(alike, found[1], atol=1e-6 if precision.startswith("float32") else 0.05)
        assert session.linear_kernels() == usual.linear_kernels()


def test_the_file_says_what_it_said(forms, tmp_path):
    before, after = onnx.load(forms("float32")), onnx.load(built(forms("float32"), tmp_path))
    assert list(after.metadata_props) == list(before.metadata_props)
    assert after.graph.output == before.graph.output
    (images,) = after.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim]
    assert sizes == ["batch", *SPEC.image_size, 3]


def test_images_are_still_what_a_session_is_given(forms, tmp_path):
    with open_session(built(forms("float32"), tmp_path)) as session:
        assert session.infer(np.zeros((2, 3, 16, 16), np.float32)).shape == (2, 8)
        with pytest.raises(Exception, match=r"float32 images \(any, 3, 16, 16\), not uint8 \(2, 16, 16, 3\)"):
            session.infer(np.zeros((2, 16, 16, 3), np.uint8))


def note(path, fact):
    """Return the file with another note on its preprocessing, or none."""
    model = onnx.load(path)
    del model.metadata_props[:]
    if fact is not None:
        onnx.helper.set_model_props(model, {"edgevit.preprocess": fact})
    changed = path.with_name("changed.onnx")
    onnx.save(model, changed)
    return changed


GREY = msgspec.structs.replace(PREPROCESS, mean=(0.5,), std=(0.5,), channel_order="L")
WRONG = [
    (None, "does not say how"),
    ('{"size": "large"}', "its preprocess cannot be understood"),
    (msgspec.json.encode(PREPROCESS).decode().replace("0.25", "-1"), "its preprocess cannot be understood"),
]


@pytest.mark.parametrize(
    ("fact", "message"), [*WRONG, (msgspec.json.encode(GREY).decode(), "does not take images of 1 channels")]
)
def test_what_does_not_say_how_it_wants_its_images_is_not_built(forms, tmp_path, fact, message):
    source = tmp_path / "source.onnx"
    source.write_bytes(forms("float32").read_bytes())
    with pytest.raises(GraphError, match=message):
        built(note(source, fact), tmp_path / "built")
    assert not (tmp_path / "built" / "model.onnx").exists()


@pytest.mark.parametrize(
    ("fact", "message"), [*WRONG, (msgspec.json.encode(GREY).decode(), r"takes pixels .*, and says \(16, 16, 1\)")]
)
def test_pixels_that_nobody_knows_how_to_make(forms, tmp_path, fact, message):
    changed = note(built(forms("float32"), tmp_path), fact)
    with pytest.raises(BundleError, match=rf"changed\.onnx.*{message}"):
        open_session(changed)


def test_pixels_of_another_rank_are_no_images(tmp_path):
    with pytest.raises(BundleError, match="takes pixels"):
        shape_of_images([None, 16, 16], PREPROCESS, tmp_path)
    assert shape_of_images([None, None, 16, 3], PREPROCESS, tmp_path) == [None, 3, 16, 16]
    assert shape_of_images([None, 3, 16, None], None, tmp_path) == [None, 3, 16, None]


def test_a_file_that_is_none_is_not_rewritten(tmp_path):
    (tmp_path / "source.onnx").write_bytes(b"garbage")
    with pytest.raises(GraphError, match="not a valid ONNX model"):
        built(tmp_path / "source.onnx", tmp_path / "built")


def test_a_device_without_the_packages_is_told_so(forms, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MissingDependencyError) as caught:
        built(forms("float32"), tmp_path)
    assert caught.value.remedy == "pip install -e '.[quantize]'"
    # What was built elsewhere runs.
    assert built(forms("float32"), tmp_path, BuildOptions()).is_file()


@pytest.mark.parametrize("given", [{"INPUT": "uint8"}, {"INPUT": ""}, {"images": "backwards"}])
def test_settings_are_checked_before_anything_is_built(given):
    (name,) = given
    with pytest.raises(BundleError, match=f"onnxruntime's setting {name} cannot be") as caught:
        backend_class("onnxruntime").check_settings(given)
    assert " or " in caught.value.remedy
