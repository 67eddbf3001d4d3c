"""export/cpp, built for ARM64 by the preset and run under emulation: the input bit for bit, and the answers.

It takes a cross compiler, and the root that ``make test-arm64`` makes and names in EDGEVIT_ARM64_ROOT.
"""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cpp_library import SOURCES
from export_cases import picture

import edgevit
from edgevit.bundle.manifest import INTEGER_PRECISIONS
from edgevit.runtime import load

SCRIPTS = Path(__file__).parents[2] / "scripts"
ROOT = os.environ.get("EDGEVIT_ARM64_ROOT")
VARIANTS = ("float32", "float32-onnxruntime", "int8-onnxruntime")

pytestmark = [pytest.mark.slow, pytest.mark.emulated, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def root():
    if ROOT is None:
        pytest.skip("EDGEVIT_ARM64_ROOT names no root for ARM64: make test-arm64 makes one")
    spec = importlib.util.spec_from_file_location("arm64_root", SCRIPTS / "arm64_root.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Root.at(Path(ROOT))


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    missing = [each for each in ("cmake", "aarch64-linux-gnu-g++") if shutil.which(each) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: sudo apt install cmake g++-aarch64-linux-gnu")
    folder = tmp_path_factory.mktemp("aarch64")
    for command in (["cmake", "--preset", "aarch64", "-B", folder], ["cmake", "--build", folder, "-j2"]):
        done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    return folder / "edgevit-raw"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_library_for_arm64_answers_as_python_does_here(root, tool, tiny_quantized, tmp_path, variant):
    assert b"\x7fELF" in (content := tool.read_bytes()[:20])
    assert int.from_bytes(content[18:20], "little") == 183  # EM_AARCH64
    pack = edgevit.pack(tiny_quantized, tmp_path / "tiny.edgevit.zip").path
    image = picture()
    (tmp_path / "raw").write_bytes(image.tobytes())
    (library,) = (root.wheels / "onnxruntime/capi").glob("libonnxruntime.so.*")
    done = root.program(
        tool, pack, variant, "rgb", "41", "30", "0", tmp_path / "raw", environment={"EDGEVIT_ONNXRUNTIME": str(library)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"].startswith("onnxruntime ")
    with load(pack, variant=variant, threads=1) as model:
        expected = model.infer_images([image])[0]
        assert np.array_equal(np.array(found["input"], np.float32), model.prepare([image]).ravel())
        near = 0.05 if model.variant.precision in INTEGER_PRECISIONS else 1e-4
    np.testing.assert_allclose(found["values"], expected, atol=near)
    assert np.argmax(found["values"]) == expected.argmax()
