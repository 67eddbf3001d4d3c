"""What ``--help`` shows at 80 columns, and what a shell offers after Tab."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from tiny import VARIANTS

from edgevit.cli import app


def helped(name, monkeypatch, capsys, width=80):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    assert app.run([name, "--help"] if name else ["--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["", *sorted(app.COMMANDS)])
def test_flags_have_no_type(name, monkeypatch, capsys):
    shown = helped(name, monkeypatch, capsys)
    assert "bool" not in shown
    assert "--help" in shown


@pytest.mark.parametrize("name", sorted(app.COMMANDS))
def test_every_command_shows_an_example_that_parses(name, monkeypatch, capsys):
    assert f"Example: {app.EXAMPLES[name]}" in " ".join(helped(name, monkeypatch, capsys).split())
    program, command, *arguments = shlex.split(app.EXAMPLES[name])
    assert (program, command) == ("edgevit", name)
    app.load_command(name).make_context(name, arguments)


@pytest.mark.parametrize("name", sorted(app.COMMANDS))
def test_no_word_is_broken_at_80_columns(name, monkeypatch, capsys):
    def words(width):
        return set(re.findall(r"[\w./|<>@:=-]+", helped(name, monkeypatch, capsys, width)))

    assert words(80) - words(400) == set()


@pytest.mark.parametrize("name", ["export", "pipeline", "quantize"])
def test_many_options_come_in_groups(name, monkeypatch, capsys):
    panels = re.findall(r"^╭─ (.+?) ─", helped(name, monkeypatch, capsys), re.MULTILINE)
    assert len(panels) >= 3


def offered(line):
    words = shlex.split(line)
    if line.endswith(" "):
        words.append("")
    variables = {"_EDGEVIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = "from edgevit.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edgevit bench", {"benchmark"}),
        ("edgevit build x --target jetson-o", {"jetson-orin-nano", "jetson-orin-nx"}),
        ("edgevit build x --target jetson-thor@7", {"jetson-thor@7.2", "jetson-thor@7.1", "jetson-thor@7.0"}),
        ("edgevit quantize x --precision int8-", {"int8-dynamic", "int8-weights"}),
        ("edgevit pipeline fashion-m", {"fashion-micro"}),
        ("edgevit train --model vit-mi", {"vit-micro"}),
    ],
)
def test_a_shell_is_offered_names(line, expected):
    assert expected <= set(offered(line))


def test_a_shell_is_offered_the_variants_of_the_bundle(quantized):
    assert set(offered(f"edgevit benchmark {quantized} --variant int8-")) == {
        name for name in VARIANTS if name.startswith("int8-")
    }
    assert offered("edgevit benchmark nowhere.edgevit --variant int8-") == []
