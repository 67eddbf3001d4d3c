"""What every backend promises, and all must keep alike."""

import subprocess
import sys

import numpy as np
import onnx
import onnx.reference
import pytest
from tiny import ENGINES

from edgevit.backends import available_backends, get_backend
from edgevit.errors import BundleError, DataError, InputError, MissingDependencyError, StorageError

pytestmark = pytest.mark.parametrize("name", ENGINES)


@pytest.fixture
def backend(name):
    return get_backend(name)


@pytest.fixture
def built(backend, model, tmp_path):
    return backend.build(model, tmp_path / "built")[0]


def open_session(backend, path, threads=1, **settings):
    return backend.open(path, threads=threads, settings=settings)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_logits_are_those_of_onnx(backend, built, model, images, threads):
    expected = onnx.reference.ReferenceEvaluator(str(model)).run(None, {"images": images})[0]
    with open_session(backend, built, threads) as session:
        for batch in (1, 5, 2):  # any size, and a size may come again
            found = session.infer(images[:batch])
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:batch], atol=1e-5)


def test_logits_belong_to_the_caller(backend, built, images):
    with open_session(backend, built) as session:
        first = session.infer(images[:2])
        before = first.copy()
        session.infer(images[2:4])
        np.testing.assert_array_equal(first, before)
        first[:] = 0  # and may be written to


def test_images_need_not_be_contiguous(backend, built, images):
    with open_session(backend, built) as session:
        turned = images[:, :, ::-1, ::-1]
        np.testing.assert_array_equal(session.infer(turned), session.infer(np.ascontiguousarray(turned)))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 1, 4, 5), dtype=np.float32),
        np.zeros((1, 4, 4), dtype=np.float32),
        np.zeros((1, 3, 4, 4), dtype=np.float32),
        np.zeros((1, 1, 4, 4), dtype=np.float64),
        np.zeros((1, 1, 4, 4), dtype=np.uint8),
    ],
)
def test_images_that_do_not_fit(backend, built, wrong):
    with open_session(backend, built) as session, pytest.raises(DataError, match=r"takes float32 images \(any, 1, 4"):
        session.infer(wrong)


def test_the_float_model_runs_in_float(backend, built):
    with open_session(backend, built) as session:
        kernels = session.linear_kernels()
    assert [kernel.integer for kernel in kernels] == [False, False]
    assert all(kernel.kernel for kernel in kernels)


def test_all_files_of_a_build_are_listed(backend, model, tmp_path):
    files = backend.build(model, tmp_path / "built")
    assert sorted(files) == sorted((tmp_path / "built").iterdir())
    assert all(file.stat().st_size for file in files)


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "cut"])
def test_damaged_files(backend, built, damage, capfd):
    content = built.read_bytes()
    built.unlink()
    if damage != "missing":
        built.write_bytes({"empty": b"", "garbage": b"garbage", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(BundleError, match=built.name) as caught:
        open_session(backend, built)
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_a_model_that_takes_more_than_images(backend, model, tmp_path):
    changed = onnx.load(model)
    (answers,) = changed.graph.output
    changed.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["batch", 3]))
    changed.graph.node.append(onnx.helper.make_node("Add", [answers.name, "more"], ["sum"]))
    changed.graph.output[0].name = "sum"
    onnx.save(changed, tmp_path / "two.onnx")
    path = backend.build(tmp_path / "two.onnx", tmp_path / "built")[0]
    with pytest.raises(BundleError, match="2 inputs and 1 outputs"):
        open_session(backend, path)


def test_an_unknown_setting(backend, built):
    with pytest.raises(BundleError, match="no setting 'CACHE_DIR'"):
        open_session(backend, built, CACHE_DIR="cache")


def test_a_folder_that_cannot_be_written(backend, model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        backend.build(model, tmp_path / "file" / "built")


def test_the_version_is_a_version(backend):
    assert backend.version()[0].isdigit()
    assert " " not in backend.version()


def test_a_backend_that_is_not_installed_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        get_backend(name)
    assert caught.value.remedy == f"pip install -e '.[{name}]'"
    assert caught.value.exit_code == 3


def test_installed_backends_are_known_without_importing_them(name):
    code = (
        "import sys; from edgevit.backends import available_backends; print(available_backends());"
        f"assert {name!r} not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert name in found.stdout
    assert name in available_backends()


def test_loading_and_running_is_silent(name, built, images):
    code = (
        "import sys, numpy; from pathlib import Path; from edgevit.backends import get_backend\n"
        f"with get_backend({name!r}).open(Path(sys.argv[1]), threads=1, settings={{}}) as session:\n"
        "    session.infer(numpy.zeros((1, 1, 4, 4), dtype=numpy.float32)); session.linear_kernels()"
    )
    found = subprocess.run([sys.executable, "-c", code, built], check=True, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("", "")


def test_there_is_no_other_backend(name):
    with pytest.raises(InputError, match="no backend 'abacus'") as caught:
        get_backend("abacus")
    assert name in caught.value.remedy
