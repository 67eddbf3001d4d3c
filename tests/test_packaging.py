"""The wheel, an editable install and a bare checkout: each finds its code and its data."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import msgspec
import pytest

from edgevit.recipes import recipe_names
from edgevit.targets import target_names

REPOSITORY = Path(__file__).resolve().parents[1]
PROBE = """
import json, sys, edgevit
from edgevit import recipes, resources, targets
names = targets.target_names(), recipes.recipe_names()
for name in names[0]: targets.load_target(name)
for name in names[1]: recipes.load_recipe(name)
print(json.dumps({"code": edgevit.__file__, "export": str(resources.folder("export")), "names": names}))
"""


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def probe(python, folder, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = json.loads(run(python, "-c", PROBE, cwd=folder, env={**clean, **environment}))
    assert found["names"] == [target_names(), recipe_names()]
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of the sources, so that building leaves nothing in the real ones."""
    copy = tmp_path_factory.mktemp("checkout") / "edgevit"
    copy.mkdir()
    for name in ("edgevit", "export", "calibration"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout, tmp_path_factory):
    """Build the sdist, and from it the wheel."""
    folder = tmp_path_factory.mktemp("distributions")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout)
    return folder


@pytest.fixture
def environment(tmp_path):
    """Return the Python of a new virtual environment that sees what the tests have installed, but not EdgeViT."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    own = Path(sysconfig.get_path("purelib", vars=paths))
    # The .pth files in there, such as an editable EdgeViT's, are not followed from here.
    (own / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "venv" / "bin" / "python"


def install(python, *arguments):
    run(python, "-m", "pip", "install", "-qq", "--no-index", "--no-deps", "--no-build-isolation", *arguments)


def test_every_package_is_listed():
    listed = msgspec.toml.decode((REPOSITORY / "pyproject.toml").read_bytes())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (REPOSITORY / "edgevit").rglob("*.py")}
    real = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    assert set(listed) == real | {"edgevit._resources.export", "edgevit._resources.calibration"}


def test_the_wheel_holds_code_data_and_licence_and_nothing_beside_them(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edgevit"}
    assert "edgevit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for folder in ("export", "calibration"):
        for path in (path for path in (REPOSITORY / folder).rglob("*") if path.is_file()):
            assert f"edgevit/_resources/{path.relative_to(REPOSITORY)}" in names


def test_a_wheel_finds_its_data(distributions, environment, tmp_path):
    install(environment, *distributions.glob("*.whl"))
    found = probe(environment, tmp_path)
    assert Path(found["export"]).is_relative_to(Path(found["code"]).parent)
    assert Path(found["code"]).is_relative_to(environment.parents[1])


@pytest.mark.parametrize("mode", ["lenient", "strict", "compat"])
def test_an_editable_install_finds_its_data(checkout, environment, tmp_path, mode):
    install(environment, "--config-settings", f"editable_mode={mode}", "-e", checkout)
    found = probe(environment, tmp_path)
    for path in (found["code"], found["export"]):
        assert Path(path).resolve().is_relative_to(checkout)


def test_a_bare_checkout_finds_its_data(environment, tmp_path, checkout):
    found = probe(environment, tmp_path, PYTHONPATH=str(checkout))
    assert found["export"] == str(checkout / "export")


def test_python_m_edgevit_is_edgevit(distributions, environment, tmp_path):
    install(environment, *distributions.glob("*.whl"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    as_module = run(environment, "-m", "edgevit", "targets", "--json", cwd=tmp_path, env=clean)
    as_script = run(environment.with_name("edgevit"), "targets", "--json", cwd=tmp_path, env=clean)
    assert as_module == as_script
    assert set(json.loads(as_script)["targets"]) == set(target_names())


def test_a_folder_of_that_name_is_not_taken_for_the_package(tmp_path):
    """As the checkout is, where a shell stands in the folder above it."""
    if not Path(sysconfig.get_path("purelib"), "edgevit-checkout.pth").is_file():
        pytest.skip("EdgeViT was not installed by the Makefile")
    (tmp_path / "edgevit").mkdir()
    assert probe(sys.executable, tmp_path)["code"] == str(REPOSITORY / "edgevit/__init__.py")
