"""The table of commands, and the one place where their results and errors reach the user.

A command is a function with annotated options in ``edgevit/cli/NAME.py`` that returns a
:class:`~edgevit.cli.console.Result`. Its module is imported only when the command runs, so that ``edgevit --help``
loads neither torch, onnx nor a backend. ``--json`` is added to every command here.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from edgevit import __version__
from edgevit.cli.console import JsonPrinter, Printer, Result, TextPrinter
from edgevit.cli.failures import EXIT_INTERRUPTED, describe_failure, describe_signal
from edgevit.cli.signals import Stopped, signal_behind, signals_stop
from edgevit.cli.terminal import stdout_for_results
from edgevit.errors import InputError

# Name -> (panel of the help page, one line of help). The function is edgevit.cli.NAME.NAME.
COMMANDS = {
    "train": (
        "Make",
        "Train a ViT, or fine-tune one on your images; the run's folder is a SOURCE for 'edgevit export'.",
    ),
    "export": (
        "Make",
        "Export a checkpoint, or a third-party ONNX file, to float32 ONNX in a new bundle, checked on images.",
    ),
    "quantize": (
        "Make",
        "Add variants in INT8 or another precision, and show that they run on the kernels that they are made for.",
    ),
    "build": ("Make", "Compile one precision for a target."),
    "pipeline": (
        "Make",
        "Export, quantize, validate, benchmark, name the winner and report; exit 1 if a variant loses too much.",
    ),
    "validate": (
        "Measure",
        "Measure every variant's accuracy against float32; exit 1 if one loses too much.",
    ),
    "benchmark": (
        "Measure",
        "Measure latency, speed-up over float32, memory and energy here; exit 1 if a variant does not run.",
    ),
    "race": (
        "Measure",
        "Make and measure all that a target takes, and name the fastest that is shown to pass; exit 1 if none is.",
    ),
    "report": ("Measure", "Write what was measured as one HTML page and its JSON; of several bundles, side by side."),
    "pack": ("Use", "Write a bundle, or some of its variants, as one file that apps load, or for another program."),
    "verify": (
        "Use",
        "Say whether this machine gives the answers that were checked where the bundle was made; exit 1 if not.",
    ),
    "serve": ("Use", "Answer over HTTP: the Open Inference Protocol, and images as they are; until a signal ends it."),
    "predict": ("Use", "Say what is on images; other models give their features or outputs of them."),
    "inspect": ("Use", "Show what is in a bundle, and whether its files are whole; exit 1 if one is damaged."),
    "models": ("Information", "List the built-in models, and the architectures that can be trained."),
    "targets": ("Information", "List the devices that EdgeViT builds for, or show one and its reasons."),
    "recipes": ("Information", "List the calibration recipes, or print one as TOML."),
    "devices": ("Information", "Remember other devices by names, for --host of validate, benchmark and race."),
    "doctor": (
        "Information",
        "Try every engine, and say what can be built and run here, and how to add the rest; exit 3 if no engine runs.",
    ),
}

# What the help of each command shows; it can be typed as it stands, but for names in capitals and files.
EXAMPLES = {
    "train": "edgevit train --from hf://timm/deit_tiny_patch16_224.fb_in1k --data photos -o run",
    "export": "edgevit export fashion-micro -o micro.edgevit",
    "quantize": "edgevit quantize micro.edgevit --data fashion-mnist-sample",
    "build": "edgevit build micro.edgevit --target x86-openvino --precision fp16",
    "pipeline": "edgevit pipeline fashion-micro --data fashion-mnist-sample -o micro.edgevit",
    "validate": "edgevit validate micro.edgevit --data fashion-mnist-sample",
    "benchmark": "edgevit benchmark micro.edgevit --threads 2 --duration 20",
    "race": "edgevit race micro.edgevit --target x86-onnxruntime --data fashion-mnist-sample",
    "report": "edgevit report micro.edgevit -o site",
    "pack": "edgevit pack micro.edgevit --variant int8-onnxruntime --variant float32",
    "verify": "edgevit verify micro.edgevit.zip",
    "serve": "edgevit serve micro.edgevit.zip --port 8000",
    "predict": "edgevit predict micro.edgevit shoe.png photos --top 3",
    "inspect": "edgevit inspect micro.edgevit --kernels",
    "models": "edgevit models",
    "targets": "edgevit targets jetson-orin-nano",
    "recipes": "edgevit recipes default",
    "devices": "edgevit devices add orin jetson@192.168.1.20",
    "doctor": "edgevit doctor",
}


def _with_json(function: Callable[..., Result]) -> Callable[..., Result]:
    """Add ``--json`` to the options of a command; :func:`run` sees to it."""

    @functools.wraps(function)
    def command(*, json: bool, **options: Any) -> Result:  # noqa: ARG001, ANN401
        return function(**options)

    option = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
    signature = inspect.signature(function, eval_str=True)
    json = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), json])  # type: ignore[attr-defined]
    command.__annotations__ = {**inspect.get_annotations(function, eval_str=True), "json": option}
    return command


def load_command(name: str) -> TyperCommand:
    """Import the command ``name`` and build its parser."""
    function = getattr(importlib.import_module(f"edgevit.cli.{name}"), name)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    example = EXAMPLES.get(name)
    single.command(name, cls=Command, epilog=example and f"Example: {example}")(_with_json(function))
    return cast("TyperCommand", typer.main.get_command(single))


def _without_types(params: list[Any]) -> list[Any]:
    """Let flags show no type in the help: they take no value."""
    for each in params:
        if getattr(each, "is_flag", False):
            each.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help is easy to read."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401  # click's types, wherever they live
        """Return the parameters as the help shows them."""
        return _without_types(super().get_params(ctx))


class LazyGroup(TyperGroup):
    """Knows every command by name and help line, and imports only the one that runs."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=text, rich_help_panel=panel) for name, (panel, text) in COMMANDS.items()
        }

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401  # click's types, wherever they live
        """Return the parameters as the help shows them."""
        return _without_types(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # click's types, wherever they live
        """Return the name, the loaded command and the remaining arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


def _show_version(value: bool) -> None:  # noqa: FBT001  # Typer's callback
    if value:
        typer.echo(f"edgevit {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take a Vision Transformer from a checkpoint to a verified, faster INT8 model on a small computer."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line with ``arguments`` and return its exit code.

    Every error that EdgeViT raises on purpose becomes one line and a remedy. Anything else is a defect: it keeps its
    traceback.
    """
    for_scripts = "--json" in arguments
    printer: Printer = JsonPrinter() if for_scripts else TextPrinter()
    try:
        with signals_stop():
            with stdout_for_results() if for_scripts else nullcontext():
                outcome = _invoke(arguments)
            return _finish(outcome, printer)
    except (Stopped, KeyboardInterrupt) as signal:
        failure = describe_signal(signal, arguments)
    except Exception as error:  # noqa: BLE001  # the outermost boundary: nothing is swallowed, all is shown
        behind = signal_behind(error)
        failure = describe_signal(behind, arguments) if behind else describe_failure(error, arguments)
    printer.failure(failure)
    return failure.exit_code


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse what a shell makes of a variable that is not set: as a path, it would be the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or re.fullmatch(r"--[\w-]+=", argument):
            named = argument[:-1] or (before if before.startswith("-") else "an argument")
            raise InputError(f"{named} is empty", remedy="give it a value, or leave it out; . is the current folder")


def _invoke(arguments: Sequence[str]) -> object:
    _refuse_empty(arguments)
    command = typer.main.get_command(app)
    outcome = command.main(list(arguments) or ["--help"], prog_name="edgevit", standalone_mode=False)
    if outcome == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this number
        raise KeyboardInterrupt
    return outcome


def _finish(outcome: object, printer: Printer) -> int:
    """Print a command's result; ``--help`` and ``--version`` have printed and give Typer's exit code instead."""
    try:
        if isinstance(outcome, Result):
            printer.result(outcome)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (``edgevit models | head -1``). The interpreter flushes once more when it ends: let it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(outcome, Result):
        return outcome.exit_code
    return outcome if isinstance(outcome, int) else 0
