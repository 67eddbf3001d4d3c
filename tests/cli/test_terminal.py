"""What reaches the terminal, whatever that is, and whatever strangers have written into a bundle."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from class_names import ORDINARY
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.cli.console import PIPE_WIDTH, PlainProgress, console_for
from edgevit.cli.terminal import escaped

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "cats\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe"


def shell(command, *arguments, **environment):
    """Run ``command``, in which $E is the command line."""
    return subprocess.run(
        ["bash", "-c", command, "bash", *map(os.fspath, arguments)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "E": f"{sys.executable} -m edgevit", **environment},
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$E inspect $1 >&-", 0),
        ("$E inspect $1 --json >&-", 0),
        ("$E inspect $1/missing 2>&-", 2),
        ("$E predict $1 $1/golden/00.png <&- 2>&-", 0),
        ("$E inspect $1 <&- >&- 2>&-", 0),
    ],
)
def test_closed_streams_change_no_exit_code(exported, command, code):
    assert shell(command, exported).returncode == code


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "cp1252"},
    ],
)
def test_a_stream_of_few_letters_takes_tables_and_json(exported, environment):
    bundle = Bundle.open(exported)
    manifest = msgspec.structs.replace(bundle.manifest, name="Schönes — 猫")
    (exported / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    done = shell("$E inspect $1", exported, **environment)
    assert done.returncode == 0, done.stderr
    assert b"float32" in done.stdout
    done = shell("$E inspect $1 --json", exported, **environment)
    assert json.loads(done.stdout.decode("ascii"))["name"] == "Schönes — 猫"


def test_a_file_name_that_is_not_utf8_can_be_found_again(exported, tmp_path):
    name = os.fsencode(tmp_path) + b"/photo\xff.png"
    Path(os.fsdecode(name)).write_bytes((exported / "golden/00.png").read_bytes())
    done = shell('$E predict "$1" "$2" --json', exported, os.fsdecode(name))
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert os.fsencode(image["path"]) == name
    assert shell('$E predict "$1" "$2"', exported, os.fsdecode(name)).returncode == 0


def test_what_an_engine_prints_is_not_in_the_json(exported):
    code = (
        "import os, sys\n"
        "from edgevit.backends.onnxruntime import OnnxRuntimeSession as S\n"
        "real = S.infer\n"
        "def infer(self, images):\n"
        "    os.write(1, b'noise in C\\n'); print('noise in Python')\n"
        "    return real(self, images)\n"
        "S.infer = infer\n"
        "from edgevit.cli import main\n"
        "sys.argv[0] = 'edgevit'; main()"
    )
    arguments = ["predict", exported, exported / "golden/00.png", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["variant"] == "float32"
    assert b"noise in C" in done.stderr
    assert b"noise in Python" in done.stderr


def test_control_characters_of_a_bundle_are_shown_and_not_obeyed(edgevit, exported):
    bundle = Bundle.open(exported)
    manifest = msgspec.structs.replace(bundle.manifest, name=HOSTILE, labels=(HOSTILE, *bundle.manifest.labels[1:]))
    (exported / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    for arguments in (("inspect", exported), ("predict", exported, exported / "golden/00.png", "--top", "9")):
        done = edgevit(*arguments)
        assert done.code == 0
        assert set(done.out + done.err).isdisjoint("\x1b\x07\x9b\u202e")
        assert "\\x1b]0;title" in done.out
    assert json.loads(edgevit("inspect", exported, "--json").out)["name"] == HOSTILE
    failed = edgevit("inspect", f"{exported}\x1b[2J")
    assert failed.code == 2
    assert "\x1b" not in failed.err


@pytest.mark.parametrize("part", [slice(8), slice(-8, None)])
def test_names_in_any_script_are_shown_as_they_are(edgevit, exported, part):
    manifest, names = Bundle.open(exported).manifest, tuple(filter(None, ORDINARY.values()))[part]
    manifest = msgspec.structs.replace(manifest, name=names[0], labels=names)
    (exported / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    shown = edgevit("predict", exported, exported / "golden/00.png", "--top", "8").out
    assert [name for name in names if name not in shown] == []
    assert names[0] in edgevit("inspect", exported).out


@given(st.text())
def test_escaped_text_has_no_control_characters_and_plain_text_stays(text):
    shown = escaped(text)
    assert all(letter in "\n\t" or letter.isprintable() or ord(letter) > 159 for letter in shown)
    assert escaped(shown) == shown
    plain = "".join(letter for letter in text if letter.isalnum())
    assert escaped(plain) == plain


def test_styles_stay_and_tables_and_notes_are_escaped_too():
    stream = io.StringIO()
    table = Table("name")
    table.add_row(HOSTILE)
    console = console_for(stream)
    assert console.width == PIPE_WIDTH
    console.print(table)
    console.print(Text(HOSTILE, style="red"))
    PlainProgress(stream).note(HOSTILE)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\\x1b]0;title") == 3
