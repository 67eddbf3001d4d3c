import ast
import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile

import pytest

from edgevit import __version__
from edgevit.errors import MissingDataError
from edgevit.hosts.ssh import program_text
from edgevit.hosts.wheel import write_wheel


@pytest.mark.parametrize("program", ["board", "supervisor"])
def test_what_is_sent_as_text_needs_nothing_but_python(program):
    tree = ast.parse(program_text(program), feature_version=(3, 10))
    names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_checkout_whose_own_notes_come_first_gives_the_same_metadata(tmp_path, monkeypatch):
    """As where Python starts in a checkout with edgevit.egg-info."""
    notes = tmp_path / "checkout/edgevit.egg-info"
    notes.mkdir(parents=True)
    said = f"Metadata-Version: 2.4\nName: edgevit\nVersion: {__version__}\nRequires-Dist: numpy\n"
    (notes / "PKG-INFO").write_text(said)
    monkeypatch.syspath_prepend(notes.parent)
    with zipfile.ZipFile(write_wheel(tmp_path)) as wheel:
        assert wheel.read(f"edgevit-{__version__}.dist-info/METADATA").decode() == said
    (notes / "PKG-INFO").write_text("")
    with pytest.raises(MissingDataError):
        write_wheel(tmp_path)


def test_the_wheel_is_what_runs_here(tmp_path):
    path = write_wheel(tmp_path)
    assert path.name == f"edgevit-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        record = list(csv.reader(io.StringIO(wheel.read(names[-1]).decode())))
        assert [row[0] for row in record] == names
        for name, digest, size in record[:-1]:
            content = wheel.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={found}", str(len(content)))
        metadata = wheel.read(f"edgevit-{__version__}.dist-info/METADATA").decode()
        assert "Provides-Extra: onnxruntime" in metadata
        assert not [name for name in names if "__pycache__" in name or "node_modules" in name]
        wheel.extractall(tmp_path / "site")
    (tmp_path / "again").mkdir()
    assert write_wheel(tmp_path / "again").read_bytes() == path.read_bytes()
    code = "import edgevit, sys; from edgevit.targets import load_target; from edgevit.recipes import load_recipe; "
    code += "load_target('arm64-onnxruntime'); load_recipe('default'); print(edgevit.__file__)"
    there = {"env": {"PYTHONPATH": str(tmp_path / "site")}, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **there)
    assert done.stdout.strip() == str(tmp_path / "site/edgevit/__init__.py")
