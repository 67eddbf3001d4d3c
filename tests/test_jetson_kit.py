"""The script for a Jetson, with stand-ins for JetPack's commands: which are called in which order, and what it says.

The Python that it asks for the target is the real one, with this EdgeViT.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgevit.resources import folder

SCRIPT = folder("export") / "jetson" / "setup.sh"

#: Both write down how they are called.
PYTHON3 = """#!/bin/bash
echo "python3 $*" >> "$LOG"
case "$*" in
*version_info*) exit "${OLD_PYTHON:-0}" ;;
*ensurepip*) exit "${NO_VENV:-0}" ;;
*"import tensorrt"*) exit "${NO_TENSORRT:-0}" ;;
"-m venv --system-site-packages "*)
    mkdir -p "$4/bin"
    echo "include-system-site-packages = true" > "$4/pyvenv.cfg"
    cp "$STUBS/venv-python" "$4/bin/python"
    cp "$STUBS/venv-edgevit" "$4/bin/edgevit" ;;
*) echo "unexpected: python3 $*" >&2; exit 99 ;;
esac
"""
VENV_PYTHON = """#!/bin/bash
case "$*" in
"-m pip "*) echo "pip ${*: -1}" >> "$LOG" ;;
*"import tensorrt"*) echo "$TENSORRT" ;;
*) exec "$REAL_PYTHON" "$@" ;;
esac
"""
VENV_EDGEVIT = """#!/bin/bash
echo "edgevit $*" >> "$LOG"
case "$1" in
"$FAILING") echo "error: $1 did not work" >&2; exit 3 ;;
build) echo '{"variants": [{"name": "'"$6"'-made"}]}' ;;
benchmark) echo "the table" ;;
esac
"""


class Jetson:
    """A machine that looks like one from the script's side."""

    def __init__(self, place, model="NVIDIA Jetson Orin Nano Developer Kit", tensorrt="10.3.0"):
        self.place, self.bundle, self.venv = place, place / "my model.edgevit", place / "my venv"
        for name, text in (("python3", PYTHON3), ("venv-python", VENV_PYTHON), ("venv-edgevit", VENV_EDGEVIT)):
            path = place / "stubs" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        (place / "root/etc").mkdir(parents=True)
        (place / "root/etc/nv_tegra_release").touch()
        (place / "root/proc/device-tree").mkdir(parents=True)
        (place / "root/proc/device-tree/model").write_bytes(model.encode() + b"\0")
        (self.bundle / "golden").mkdir(parents=True)
        (self.bundle / "golden/0.png").touch()
        (self.bundle / "manifest.json").touch()
        self.tensorrt = tensorrt

    def setup(self, *arguments, **environment):
        """Run the script; return how it ended and the commands that it called."""
        log = self.place / "log"
        log.write_text("")
        own = {
            "PATH": f"{self.place / 'stubs'}:/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "HOME": str(self.place),
            "LOG": str(log),
            "STUBS": str(self.place / "stubs"),
            "REAL_PYTHON": sys.executable,
            "TENSORRT": self.tensorrt,
            "EDGEVIT_SETUP_ROOT": str(self.place / "root"),
            "FAILING": "nothing",
        }
        command = ["bash", str(SCRIPT), "--venv", str(self.venv), *map(str, arguments)]
        done = subprocess.run(
            command, env=own | environment, capture_output=True, text=True, check=False, cwd=self.place
        )
        return done, log.read_text().splitlines()


@pytest.fixture
def jetson(tmp_path):
    return Jetson(tmp_path)


def test_the_script_is_clean():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck: apt-get install shellcheck")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_bundle_goes_the_whole_way(jetson):
    done, called = jetson.setup(jetson.bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the table\n"
    bundle = jetson.bundle
    assert [line for line in called if not line.startswith("python3 -c")] == [
        f"python3 -m venv --system-site-packages {jetson.venv}",
        f"pip {SCRIPT.parents[2]}[quantize]",
        "edgevit doctor",
        f"edgevit build {bundle} --target jetson-orin-nano@6.2 --precision fp16 --json",
        f"edgevit predict {bundle} {bundle}/golden/0.png --variant fp16-made",
        f"edgevit build {bundle} --target jetson-orin-nano@6.2 --precision int8 --json",
        f"edgevit predict {bundle} {bundle}/golden/0.png --variant int8-made",
        f"edgevit benchmark {bundle} --variant fp16-made --variant int8-made --duration 10",
    ]
    assert "target jetson-orin-nano@6.2" in done.stderr


def test_a_second_run_makes_no_second_environment(jetson):
    jetson.setup(jetson.bundle)
    (jetson.venv / "kept").touch()
    done, called = jetson.setup(jetson.bundle)
    assert done.returncode == 0
    assert not [line for line in called if "-m venv" in line]
    assert (jetson.venv / "kept").exists()


def test_without_a_bundle_it_is_set_up(jetson):
    done, called = jetson.setup("--edgevit", "edgevit-0.1.0-py3-none-any.whl")
    assert done.returncode == 0
    assert called[-2:] == ["pip edgevit-0.1.0-py3-none-any.whl[quantize]", "edgevit doctor"]
    assert "EdgeViT is set up" in done.stderr


@pytest.mark.parametrize(
    ("model", "tensorrt", "target"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "10.3.0", "jetson-orin-nano@6.2"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "8.6.2", "jetson-orin-nx@6.0"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "10.16.1.11", "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "10.13.3", "jetson-thor@7.1"),
    ],
)
def test_the_target_is_that_of_the_board_and_its_tensorrt(tmp_path, model, tensorrt, target):
    jetson = Jetson(tmp_path, model, tensorrt)
    done, called = jetson.setup(jetson.bundle, "--precision", "fp16")
    assert done.returncode == 0, done.stderr
    assert [line for line in called if " build " in line] == [
        f"edgevit build {jetson.bundle} --target {target} --precision fp16 --json"
    ]


def test_options_go_before_what_is_found(jetson):
    _, called = jetson.setup(jetson.bundle, "--target", "mine.toml", "--precision", "int8", "--duration", "3")
    assert called[-3:] == [
        f"edgevit build {jetson.bundle} --target mine.toml --precision int8 --json",
        f"edgevit predict {jetson.bundle} {jetson.bundle}/golden/0.png --variant int8-made",
        f"edgevit benchmark {jetson.bundle} --variant int8-made --duration 3",
    ]


@pytest.mark.parametrize(
    ("environment", "message", "remedy"),
    [
        ({"EDGEVIT_SETUP_ROOT": "/nowhere"}, "this is no Jetson", "run it on the device"),
        ({"OLD_PYTHON": "1"}, "EdgeViT needs Python 3.10 or later", "flash JetPack 6"),
        ({"NO_VENV": "1"}, "cannot make virtual environments", "sudo apt-get install python3-venv"),
        ({"NO_TENSORRT": "1"}, "python3 has no tensorrt", "sudo apt-get install tensorrt python3-libnvinfer"),
        ({"TENSORRT": "8.5.2"}, "jetson-orin-nano is not for TensorRT 8.5.2", "edgevit targets jetson-orin-nano"),
    ],
)
def test_what_is_missing_ends_with_3_and_a_command(jetson, environment, message, remedy):
    done, called = jetson.setup(jetson.bundle, **environment)
    assert done.returncode == 3
    *_, error, tried = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert tried.startswith("  try: ")
    assert remedy in tried
    assert not [line for line in called if " build " in line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fast"], "there is no option --fast"),
        (["--target"], "--target needs a value"),
        (["nowhere.edgevit"], "nowhere.edgevit is no bundle"),
        (["{bundle}", "{bundle}"], "one bundle at a time"),
    ],
)
def test_bad_input_ends_with_2_before_anything_is_done(jetson, arguments, message):
    done, called = jetson.setup(*(argument.format(bundle=jetson.bundle) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert called == []


def test_an_unknown_board_asks_for_the_target(tmp_path):
    jetson = Jetson(tmp_path, "My carrier board")
    done, _ = jetson.setup(jetson.bundle)
    assert done.returncode == 2
    assert "no target is known for the board 'My carrier board'" in done.stderr
    assert jetson.setup(jetson.bundle, "--target", "jetson-orin-nx@6.1")[0].returncode == 0


def test_an_environment_that_sees_no_tensorrt_is_refused(jetson):
    jetson.venv.mkdir()
    (jetson.venv / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    done, called = jetson.setup(jetson.bundle)
    assert done.returncode == 2
    assert "does not see the system's packages" in done.stderr
    assert not [line for line in called if line.startswith("pip")]


@pytest.mark.parametrize("failing", ["doctor", "build", "predict", "benchmark"])
def test_a_step_that_fails_ends_it_with_its_own_code_and_message(jetson, failing):
    done, called = jetson.setup(jetson.bundle, FAILING=failing)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"error: {failing} did not work"
    assert called[-1].startswith(f"edgevit {failing}")


def test_help_names_every_option(jetson):
    done, called = jetson.setup("--help")
    assert (done.returncode, called) == (0, [])
    for option in ("--venv", "--edgevit", "--target", "--precision", "--duration"):
        assert option in done.stdout
