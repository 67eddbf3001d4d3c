"""export/cpp, built here: the same input and answers as Python's, for all that calls C; bad input is named."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpp_library
import msgspec
import numpy as np
import pytest
from cpp_library import (
    BAD_ARGUMENT,
    BAD_BUNDLE,
    MISSING,
    SOURCES,
    Library,
    Refused,
    build,
    onnxruntime_library,
)
from export_cases import picture, preprocesses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import edgevit as public
from edgevit.bundle import zip_layout
from edgevit.bundle.manifest import LimitEvidence
from edgevit.bundle.pack import is_aligned
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.errors import ImageError
from edgevit.runtime import load

pytestmark = pytest.mark.usefixtures("all_cores")

VARIANTS = ("float32", "float32-onnxruntime", "int8-onnxruntime", "float32-openvino", "int8-openvino")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return cpp_library.built(tmp_path_factory, "cpp", build)


@pytest.fixture(scope="session")
def library(built):
    return Library(built / "libedgevit.so")


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    return public.pack(tiny_quantized, tmp_path_factory.mktemp("pack") / "tiny.edgevit.zip").path


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_pythons(library, pack, variant):
    images = [picture(*size) for size in ((16, 16), (30, 41), (200, 20), (333, 500))]
    with load(pack, variant=variant, threads=1) as expected, library.open(pack, variant) as model:
        assert model.variant == variant
        assert model.labels == expected.labels
        assert model.outputs() == {"logits": (len(expected.labels),)}
        assert model.engine.split()[0] == expected.variant.backend
        for image in images:
            np.testing.assert_array_equal(model.prepare(image), expected.prepare([image])[0].ravel())
            np.testing.assert_allclose(model.infer(image), expected.infer_images([image])[0], atol=1e-5)
            wanted = expected.predict(image, top=3)
            found = model.predict(image, top=3)
            assert [index for index, _ in found] == [each.index for each in wanted]
            np.testing.assert_allclose([share for _, share in found], [each.probability for each in wanted], atol=1e-5)


def test_a_folder_is_opened_as_a_pack_is(library, tiny_quantized, pack):
    with library.open(tiny_quantized, "float32") as folder, library.open(pack, "float32") as packed:
        np.testing.assert_array_equal(folder.infer(picture()), packed.infer(picture()))


def test_golden_answers(library, tiny_quantized):
    golden = Bundle.open(tiny_quantized).golden()
    with library.open(tiny_quantized, "float32") as model:
        for image, logits in zip(golden.images, golden.logits, strict=True):
            np.testing.assert_allclose(model.infer(np.asarray(image.convert("RGB"))), logits, atol=1e-5)


def test_models_of_other_outputs(library, tiny_dense, tiny_embedding):
    for bundle in (tiny_dense, tiny_embedding):
        with load(bundle, variant="float32", threads=1) as expected, library.open(bundle, "float32") as model:
            wanted = expected.outputs(picture())
            assert model.outputs() == {name: each.shape for name, each in wanted.items()}
            np.testing.assert_allclose(
                model.infer(picture()), np.concatenate([each.ravel() for each in wanted.values()]), atol=1e-5
            )
    with library.open(tiny_embedding, "float32") as model, pytest.raises(Refused, match="says no classes"):
        model.predict(picture())


def test_formats_and_strides(library, pack):
    image = picture()
    with library.open(pack, "float32") as model:
        expected = model.prepare(image)
        np.testing.assert_array_equal(model.prepare(np.ascontiguousarray(image[..., ::-1]), "bgr"), expected)
        for form, order in (("rgba", [0, 1, 2, 0]), ("bgra", [2, 1, 0, 0])):
            np.testing.assert_array_equal(model.prepare(np.ascontiguousarray(image[..., order]), form), expected)
        gaps = np.zeros((30, 64, 3), np.uint8)
        gaps[:, :41] = image
        np.testing.assert_array_equal(model.prepare(gaps[:, :41]), expected)
        grey = picture(channels=1)[..., 0]
        np.testing.assert_array_equal(model.prepare(grey, "grey"), model.prepare(np.stack([grey] * 3, -1)))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, tiny_exported):
    """Return a folder in which the model is prepared for as the manifest that is written there says."""
    return shutil.copytree(tiny_exported, tmp_path_factory.mktemp("prepared") / "tiny.edgevit")


@given(preprocess=preprocesses(), height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 9))
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_way_to_prepare_an_image_is_pythons(library, prepared, preprocess, height, width, seed):
    if preprocess is None:
        return
    manifest = Bundle.open(prepared).manifest
    changed = msgspec.structs.replace(manifest, preprocess=preprocess)
    (prepared / "manifest.json").write_bytes(encode_manifest(changed))
    image = picture(height, width, seed=seed)
    with library.open(prepared, "float32") as model:
        try:
            expected = preprocess(Image.fromarray(image))
        except ImageError:
            with pytest.raises(Refused) as refused:
                model.prepare(image)
            assert refused.value.status == BAD_ARGUMENT
            return
        np.testing.assert_array_equal(model.prepare(image), expected.ravel())


def test_any_number_of_threads_share_a_model(library, pack):
    images = [picture(seed=seed) for seed in range(8)]
    for variant in ("int8-onnxruntime", "int8-openvino"):
        with library.open(pack, variant) as model:
            expected = [model.infer(image) for image in images]
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(model.infer, images * 20))
        for place, each in enumerate(found):
            np.testing.assert_array_equal(each, expected[place % 8])


def test_the_best_variant_is_pythons(library, tiny_quantized, tmp_path):
    bundle = shutil.copytree(tiny_quantized, tmp_path / "b.edgevit")
    with library.open(bundle) as model:
        assert model.variant == "float32"  # nobody has validated the others
    public.validate(bundle, data="shapes:size=16,count=64")
    with library.open(bundle) as model, load(bundle) as expected:
        assert model.variant == expected.variant.name
    missed = LimitEvidence(limit="speed", word="not shown", reason="a race")
    measured = Bundle.open(bundle).variant(expected.variant.name)
    Bundle.open(bundle).update_variant(measured.name, accuracy=measured.accuracy, evidence=[missed])
    with library.open(bundle) as model, load(bundle) as next_best:
        assert model.variant == next_best.variant.name != expected.variant.name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stride": 5}, "stride is 5"),
        ({"stride": 2**64 - 192}, "rows go from the top"),
        ({"width": 0}, "0x30 pixels"),
        ({"height": -1}, "41x-1 pixels"),
        ({"width": 1 << 30}, "pixels"),
        ({"format": 17}, "no format 17"),
        ({"pixels": None}, "pointer is NULL"),
    ],
)
def test_an_image_that_cannot_be_is_named(library, pack, change, problem):
    with library.open(pack, "float32") as model:
        image = model.image(picture(), "rgb")
        for name, value in change.items():
            setattr(image, name, value)
        values = (ctypes.c_float * 8)()
        status = library.c.edgevit_infer(model.handle, ctypes.byref(image), values, ctypes.c_size_t(8))
        assert status == BAD_ARGUMENT
        assert problem in library.c.edgevit_last_error().decode()
        assert library.c.edgevit_infer(model.handle, None, values, ctypes.c_size_t(8)) == BAD_ARGUMENT
        image = model.image(picture(), "rgb")
        assert library.c.edgevit_infer(model.handle, ctypes.byref(image), values, ctypes.c_size_t(3)) == BAD_ARGUMENT


def test_what_cannot_be_opened_is_named(library, pack, tmp_path, tiny_quantized):
    def refused(path, status, problem, **options):
        with pytest.raises(Refused, match=problem) as found:
            library.open(path, **options)
        assert found.value.status == status

    refused(tmp_path / "absent.zip", BAD_BUNDLE, "there is no pack")
    refused(pack, BAD_ARGUMENT, "there is no variant 'int9'", variant="int9")
    refused(pack, MISSING, "not here", variant="float32", onnxruntime=tmp_path / "absent.so")
    (tmp_path / "cut.zip").write_bytes(pack.read_bytes()[:-5])
    refused(tmp_path / "cut.zip", BAD_BUNDLE, "cut short")
    content = bytearray(pack.read_bytes())
    placed = zip_layout.parse(memoryview(bytes(content)), is_aligned)
    [model] = [each for each in placed if each.entry.name == "int8-openvino/model.bin"]
    content[model.data + 9] ^= 1
    (tmp_path / "damaged.zip").write_bytes(content)
    refused(tmp_path / "damaged.zip", BAD_BUNDLE, "content is not what the manifest says", variant="int8-openvino")

    folder = shutil.copytree(tiny_quantized, tmp_path / "b.edgevit")
    manifest = json.loads((folder / "manifest.json").read_bytes())

    def with_manifest(**changes):
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    with_manifest(schema_version=99)
    refused(folder, BAD_BUNDLE, "schema version 99")
    with_manifest(variants=[variant | {"backend": "newer"} for variant in manifest["variants"]])
    refused(folder, MISSING, "newer is no engine that this library knows")
    with_manifest(labels=["one"])
    refused(folder, BAD_BUNDLE, "labels for 8 classes")
    [float32] = [variant for variant in manifest["variants"] if variant["name"] == "float32"]
    with_manifest(variants=[float32 | {"files": [float32["files"][0] | {"path": "../manifest.json"}]}])
    refused(folder, BAD_BUNDLE, "not in the bundle")


def test_damaged_packs_are_read_or_refused(built, pack, tmp_path):
    """In a process of its own: a crash is a failure, and no end of the tests."""
    script = (
        "import random, sys\n"
        "from pathlib import Path\n"
        "from cpp_library import Library, Refused, BAD_BUNDLE, BAD_ARGUMENT, MISSING\n"
        "library, seed, path = Library(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])\n"
        "chance = random.Random(0)\n"
        "start = len(seed) - 4096\n"
        "for case in range(400):\n"
        "    content = bytearray(seed)\n"
        "    for _ in range(chance.randint(1, 4)):\n"
        "        place = chance.choice([chance.randrange(start, len(seed)), chance.randrange(9000)])\n"
        "        content[place] = chance.randrange(256)\n"
        "    if case % 9 == 0: content = content[:chance.randrange(len(content))]\n"
        "    path.write_bytes(content)\n"
        "    try: library.open(path, 'int8-onnxruntime').close()\n"
        "    except Refused as error: assert error.status in (BAD_BUNDLE, BAD_ARGUMENT, MISSING), error\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", script, built / "libedgevit.so", pack, tmp_path / "x.zip"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_tool_prints_what_python_computes(built, pack, tmp_path):
    image = picture()
    (tmp_path / "raw").write_bytes(image.tobytes())
    command = [built / "edgevit-raw", pack, "float32", "rgb", "41", "30", "0", tmp_path / "raw"]
    environment = {"EDGEVIT_ONNXRUNTIME": str(onnxruntime_library())}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with load(pack, variant="float32", threads=1) as model:
        np.testing.assert_allclose(json.loads(done.stdout)["values"], model.infer_images([image])[0], atol=1e-5)


def test_an_app_finds_the_installed_package_and_answers(built, pack, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(app C)\nfind_package(edgevit REQUIRED)\n"
        "add_executable(app main.c)\ntarget_link_libraries(app edgevit::edgevit)\n"
        "set(CMAKE_C_STANDARD 99)\ntarget_compile_options(app PRIVATE -Wall -Wextra -Wpedantic -Werror)\n"
    )
    shutil.copyfile(SOURCES / "tools/edgevit_raw.c", tmp_path / "app/main.c")
    configure = ["cmake", "-S", tmp_path / "app", "-B", tmp_path / "out", f"-DCMAKE_PREFIX_PATH={built / 'prefix'}"]
    for command in (configure, ["cmake", "--build", tmp_path / "out"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "raw").write_bytes(picture().tobytes())
    command = [tmp_path / "out/app", pack, "-", "rgb", "41", "30", "0", tmp_path / "raw"]
    environment = {"EDGEVIT_ONNXRUNTIME": str(onnxruntime_library())}
    assert subprocess.run(command, capture_output=True, check=True, env=environment).stdout.startswith(b'{"engine"')


def answers_of(command, pack, tmp_path, built):
    """Return what an example prints for a picture, and what Python says of it."""
    (tmp_path / "raw").write_bytes(picture().tobytes())
    environment = {
        **os.environ,
        "EDGEVIT_ONNXRUNTIME": str(onnxruntime_library()),
        "LD_LIBRARY_PATH": str(built),
    }
    done = subprocess.run(
        [*command, pack, "41", "30", tmp_path / "raw"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    with load(pack, threads=1, check="files", variant="float32") as model:
        return found, [[f"{each.probability:.4f}", each.label] for each in model.predict(picture(), top=3)]


@pytest.fixture
def only_float32(tiny_quantized, tmp_path):
    return public.pack(tiny_quantized, tmp_path / "float32.edgevit.zip", variants=["float32"]).path


@pytest.mark.skipif(shutil.which("cargo") is None, reason="Rust is not installed")
def test_an_app_in_rust(built, only_float32, tmp_path):
    app = shutil.copytree(SOURCES / "examples/rust", tmp_path / "rust")
    environment = {**os.environ, "EDGEVIT_LIB_DIR": str(built), "CARGO_TARGET_DIR": str(tmp_path / "target")}
    done = subprocess.run(["cargo", "build", "--offline"], cwd=app, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    found, expected = answers_of([tmp_path / "target/debug/classify"], only_float32, tmp_path, built)
    assert found == expected


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_an_app_in_go(built, only_float32, tmp_path):
    flags = {"CGO_CFLAGS": f"-I{SOURCES / 'include'}", "CGO_LDFLAGS": f"-L{built}", "GOCACHE": str(tmp_path / "cache")}
    build_it = ["go", "build", "-o", tmp_path / "classify", SOURCES / "examples/go/main.go"]
    subprocess.run(build_it, check=True, env={**os.environ, **flags})
    found, expected = answers_of([tmp_path / "classify"], only_float32, tmp_path, built)
    assert found == expected


@pytest.mark.skipif(not Path("/usr/include/jpeglib.h").exists(), reason="libjpeg's header is not installed")
def test_an_app_with_libjpeg(built, only_float32, tmp_path):
    source = SOURCES / "examples/classify_jpeg.c"
    flags = [f"-I{SOURCES / 'include'}", f"-L{built}", "-ledgevit", "-ljpeg", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", source, "-o", tmp_path / "app", *flags], check=True)
    Image.fromarray(picture()).save(tmp_path / "photo.jpg", quality=95)
    environment = {"EDGEVIT_ONNXRUNTIME": str(onnxruntime_library()), "LD_LIBRARY_PATH": str(built)}
    command = [tmp_path / "app", only_float32, tmp_path / "photo.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with load(only_float32, threads=1) as model:
        expected = model.predict(tmp_path / "photo.jpg", top=3)
    assert [line.split("%", 1)[1].strip() for line in done.stdout.splitlines()[2:]] == [each.label for each in expected]
