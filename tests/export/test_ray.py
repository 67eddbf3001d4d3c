"""export/ray/deployment.py on a cluster of two nodes, which ``make test-ray`` installs Ray for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevit as public
from edgevit.runtime import load

ROOT = Path(__file__).resolve().parents[2]
#: The environment that has Ray: EDGEVIT_RAY, or where the Makefile makes it.
PYTHON = Path(os.environ.get("EDGEVIT_RAY") or Path(sys.prefix) / "ray").absolute() / "bin" / "python"
NETWORK = ("unshare", "--map-root-user", "--net")


def missing_reason():
    """Return why Ray does not run here, or None."""
    if not (PYTHON.parents[1] / ".installed").is_file():
        return f"no Ray in {PYTHON.parents[1]}: make test-ray"
    if shutil.which("ip") is None:
        return "a network of its own has no loopback without ip: apt install iproute2"
    if subprocess.run([*NETWORK, "true"], capture_output=True, check=False).returncode:
        return "this machine gives no network of its own, and Ray would listen on the machine's address"
    return None


@pytest.mark.slow
@pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")
def test_two_nodes_answer_as_the_runtime(tiny_quantized, tmp_path):
    pack = public.pack(tiny_quantized, tmp_path / "model.edgevit.zip").path
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(files):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 41, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    command = 'ip link set lo up && exec "$0" -W ignore "$@"'
    asked = [PYTHON, ROOT / "tests/ray_cluster.py", pack, "int8-onnxruntime", *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
    environment |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",  # noqa: S108 - the path of a socket is short
    }
    environment.pop("TMPDIR", None)
    done = subprocess.run(
        [*NETWORK, "sh", "-c", command, *asked], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["nodes"], found["cluster"]) == (2, 2)
    with load(pack, variant="int8-onnxruntime", threads=1) as model:
        expected = [model.predict(path) for path in files for _ in range(4)]
    assert len(found["answers"]) == len(expected)
    for (status, said), wanted in zip(found["answers"], expected, strict=True):
        assert status == 200
        assert [each["label"] for each in said["predictions"]] == [each.label for each in wanted]
        for each, other in zip(said["predictions"], wanted, strict=True):
            assert each["probability"] == pytest.approx(other.probability, abs=1e-5)
    assert [status for status, _ in found["refused"]] == [400, 413]
    assert "is not an image" in found["refused"][0][1]["error"]
