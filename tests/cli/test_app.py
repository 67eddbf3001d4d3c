import errno
import importlib
import json
import os
import shlex
import subprocess
import sys
from types import ModuleType
from typing import Annotated

import pytest
import typer

from edgevit import __version__
from edgevit.cli import app
from edgevit.cli.console import Result
from edgevit.cli.failures import EXIT_DEFECT
from edgevit.errors import BundleError, MissingDataError, VerificationError


@pytest.fixture
def command(monkeypatch):
    """Return a function that adds a command to the table, as its own module."""

    def add(function):
        module = ModuleType(f"edgevit.cli.{function.__name__}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(app.COMMANDS, function.__name__, ("Tests", "Do something."))

    return add


@pytest.fixture
def failing(command):
    """Return a function that adds the command ``boom``, which raises what it is given."""

    def add(error):
        def boom() -> Result:
            raise error

        command(boom)

    return add


def test_the_table_says_what_the_commands_say_and_imports_nothing_else():
    for name, (_, line) in app.COMMANDS.items():
        function = getattr(importlib.import_module(f"edgevit.cli.{name}"), name)
        assert function.__doc__.splitlines()[0] == line, name


def test_help_names_every_command(capsys):
    assert app.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in app.COMMANDS)


def test_no_arguments_show_the_help(capsys):
    assert app.run([]) == 0
    assert "Usage: edgevit" in capsys.readouterr().out


def test_version(capsys):
    for option in ("--version", "-V"):
        assert app.run([option]) == 0
        assert capsys.readouterr().out == f"edgevit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train", "--lr", "0.1"], "--learning-rate"),
        (["train", "--batch", "8"], "--batch-size"),
        (["train", "--LR", "0.1"], "--learning-rate"),
        (["benchmark", "x", "--batch-size", "8"], "--batch"),
        (["pipeline", "x", "--img-size", "224"], "--image-size"),
        (["quantize", "x", "--calib-data", "y"], "--data"),
        (["export", "x", "--force"], "--overwrite"),
        (["predict", "x", "y", "--topk", "3"], "--top"),
    ],
)
def test_an_option_that_others_call_so_brings_ours(capsys, arguments, meant):
    assert app.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[1] == f"  try: use {meant}; edgevit {arguments[0]} --help"


@pytest.mark.parametrize("name", sorted(app.COMMANDS))
def test_every_command_has_help_and_takes_json(capsys, name):
    assert app.run([name, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["models", "targets", "recipes"])
def test_listings_for_people_and_for_scripts(capsys, name):
    assert app.run([name, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert app.run([name]) == 0
    text = capsys.readouterr().out
    assert all(each in text for group in listed.values() for each in group)


def test_options_reach_the_command_and_its_result_the_user(command, capsys):
    def add(
        *, left: Annotated[int, typer.Argument()], right: Annotated[list[int], typer.Option()] = (), bad: bool = False
    ) -> Result:
        total = left + sum(right)
        return Result({"total": total}, f"total: [{total}]", exit_code=1 if bad else 0)

    command(add)
    assert app.run(["add", "1", "--right", "2", "--right", "3"]) == 0
    assert capsys.readouterr() == ("total: [6]\n", "")
    assert app.run(["add", "1", "--bad", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"total": 1}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["modles"], "models"),
        (["models", "--jsno"], "--json"),
        (["models", "left-over"], "left-over"),
        (["--nothing"], "--nothing"),
    ],
)
def test_usage_errors_name_what_is_wrong(capsys, arguments, hint):
    assert app.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert hint in err
    assert "--help" in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("there [is] none", remedy="make [one]"), 2),
        (MissingDataError("there [is] none", remedy="make [one]"), 3),
        (VerificationError("there [is] none", remedy="make [one]"), 1),
    ],
)
def test_an_error_is_one_line_and_a_remedy(failing, capsys, error, code):
    failing(error)
    assert app.run(["boom"]) == code
    assert capsys.readouterr() == ("", "error: there [is] none\n  try: make [one]\n")
    assert app.run(["boom", "--json"]) == code
    shown = {"type": type(error).__name__, "message": "there [is] none", "remedy": "make [one]"}
    assert json.loads(capsys.readouterr().out) == {"error": shown}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/model.onnx"), "/some/model.onnx: No space left"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
    ],
)
def test_a_machine_at_its_limits_is_no_defect(failing, capsys, error, said):
    failing(error)
    assert app.run(["boom"]) == 3
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert "try: " in err


def test_ctrl_c_is_one_line(failing, capsys):
    failing(KeyboardInterrupt())
    assert app.run(["boom"]) == 130
    assert capsys.readouterr() == ("", "error: interrupted; no file is half-written\n")


def test_a_defect_keeps_its_traceback_and_asks_for_a_report(failing, capsys):
    failing(ZeroDivisionError("by nought"))
    assert app.run(["boom", "--json"]) == EXIT_DEFECT
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["type"] == "ZeroDivisionError"
    assert "Traceback" in err
    assert "test_app.py" in err
    assert "report" in err


def test_json_is_whole_for_numbers_that_json_lacks(command, capsys):
    def measure() -> Result:
        return Result({"sqnr_db": float("inf"), "kl": float("nan")}, "")

    command(measure)
    assert app.run(["measure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sqnr_db": None, "kl": None}


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"]])
def test_a_reader_that_goes_away_is_quiet(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "edgevit", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_in_a_training_says_how_it_goes_on(command, capsys, tmp_path):
    def train(*, output: Annotated[str, typer.Option("--output", "-o")], resume: bool = False) -> Result:
        raise KeyboardInterrupt

    command(train)
    run = tmp_path / "my run"
    assert app.run(["train", "-o", str(run)]) == 130
    assert "--resume" not in capsys.readouterr().err  # it had not begun
    run.mkdir()
    (run / "job.json").touch()
    for arguments in (["train", "-o", str(run)], ["train", f"--output={run}"], ["train", "-o", str(run), "--resume"]):
        assert app.run(arguments) == 130
        typed = capsys.readouterr().err.splitlines()[1].partition("try: ")[2].partition(", which goes on")[0]
        expected = arguments if "--resume" in arguments else [*arguments, "--resume"]
        assert shlex.split(typed) == ["edgevit", *expected]
