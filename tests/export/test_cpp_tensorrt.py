"""The TensorRT engine of export/cpp, compiled against a fake of TensorRT's headers: it minds memory, and says what is
wrong. Nothing is shown of TensorRT itself, whose headers cannot be had here."""

import hashlib
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpp_library
import msgspec
import numpy as np
import pytest
from cpp_library import BAD_BUNDLE, MISSING, SOURCES, Library, Refused
from export_cases import picture

from edgevit.bundle.manifest import File
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle

FAKE = Path(__file__).resolve().parents[1] / "cpp_fake_tensorrt"


def build(folder):
    command = [
        *("c++", "-std=c++17", "-shared", "-fPIC", "-g", "-Wall", "-Wextra", "-Wpedantic", "-ffp-contract=off"),
        *("-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-DEDGEVIT_WITH_TENSORRT"),
        *("-isystem", FAKE, "-I", SOURCES / "include", *sorted((SOURCES / "src").glob("*.cpp"))),
        *("-o", folder / "libedgevit.so", "-ldl", "-pthread"),
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    headers = sorted(FAKE.iterdir())
    return Library(cpp_library.built(tmp_path_factory, "cpp-fake-tensorrt", build, headers) / "libedgevit.so")


@pytest.fixture
def with_engine(tiny_exported, tmp_path):
    """Return what makes a bundle whose variant int8-tensorrt is the engine that a text describes."""

    def make(text, name="model.engine"):
        path = tmp_path / "t.edgevit"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tiny_exported, path)
        (path / "int8-tensorrt").mkdir()
        content = text.encode()
        (path / "int8-tensorrt" / name).write_bytes(content)
        bundle = Bundle.open(path)
        file = File(path=f"int8-tensorrt/{name}", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        variant = msgspec.structs.replace(
            bundle.variant("float32"),
            name="int8-tensorrt",
            precision="int8",
            backend="tensorrt",
            target="tensorrt",
            files=(file,),
        )
        manifest = msgspec.structs.replace(bundle.manifest, variants=(*bundle.manifest.variants, variant))
        (path / "manifest.json").write_bytes(encode_manifest(manifest))
        return path

    return make


def test_an_image_goes_to_the_engine_and_its_answer_comes_back(library, with_engine):
    with library.open(with_engine("FAKE 3 16 16 8 0"), "int8-tensorrt") as model:
        assert model.engine == "tensorrt 10.16.1"
        assert model.outputs() == {"logits": (8,)}
        images = [picture(*size) for size in ((16, 16), (30, 41), (100, 20))]
        wanted = [model.prepare(image)[:8] for image in images]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(20):
                for found, expected in zip(pool.map(model.infer, images), wanted, strict=True):
                    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("engine", "name", "status", "message"),
    [
        ("nonsense", "model.engine", MISSING, "the fake knows no such engine: build it on this device"),
        ("FAKE 3 16 16 8 0", "model.onnx", MISSING, "has no engine yet: build it on this device"),
        ("FAKE 3 32 16 8 0", "model.engine", BAD_BUNDLE, "does not take the images that its manifest names"),
        ("FAKE 3 16 16 9 0", "model.engine", BAD_BUNDLE, "not the shape that its manifest names"),
        ("FAKE 3 16 16 8 1", "model.engine", BAD_BUNDLE, "no float32"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(library, with_engine, engine, name, status, message):
    with pytest.raises(Refused, match=message) as error:
        library.open(with_engine(engine, name), "int8-tensorrt")
    assert error.value.status == status


def test_a_library_without_it_says_how_to_have_it(tmp_path_factory, with_engine):
    without = Library(cpp_library.built(tmp_path_factory, "cpp", cpp_library.build) / "libedgevit.so")
    with pytest.raises(Refused, match="EDGEVIT_TENSORRT") as error:
        without.open(with_engine("FAKE 3 16 16 8 0"), "int8-tensorrt")
    assert error.value.status == MISSING
