"""What went wrong, as the user is told: one line, what to do about it, and the exit code."""

from __future__ import annotations

import errno
import shlex
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import typer

from edgevit.cli.console import Failure
from edgevit.cli.signals import Stopped
from edgevit.dependencies import EXTRAS, how_to_install
from edgevit.errors import EdgeViTError
from edgevit.likeness import OPTIONS_ELSEWHERE, alike

EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_DEFECT = 70  # as in sysexits.h; never 1, which means that a gate failed
EXIT_INTERRUPTED = 130

#: Errors of names that no file has, and of disks that fail.
_NO_PLACE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ESTALE, errno.EROFS)

# The class is click's or Typer's own, depending on Typer's version; this names it in both.
UsageError = cast("type[Exception]", typer.BadParameter.__base__)


def describe_signal(signal: Stopped | KeyboardInterrupt, arguments: Sequence[str] = ()) -> Failure:
    """Say that the user, or the machine, has stopped the program, and how a training goes on."""
    remedy = _resuming(arguments)
    if isinstance(signal, Stopped):
        message = f"stopped by {signal.name}; no file is half-written"
        return Failure("Stopped", message, remedy, signal.exit_code)
    return Failure("Interrupted", "interrupted; no file is half-written", remedy, EXIT_INTERRUPTED)


def _resuming(arguments: Sequence[str]) -> str:
    """Return the command that goes on with the training that ``arguments`` began; nothing if there is none."""
    if not arguments or arguments[0] != "train":
        return ""
    places = [
        arguments[index + 1] if each in ("-o", "--output") else each.partition("=")[2]
        for index, each in enumerate(arguments)
        if each.startswith("--output=") or (each in ("-o", "--output") and index + 1 < len(arguments))
    ]
    if not places or not (Path(places[-1]) / "job.json").is_file():  # it had not begun yet
        return ""
    again = [] if "--resume" in arguments else ["--resume"]
    return f"{shlex.join(['edgevit', *arguments, *again])}, which goes on after the last whole epoch, if there is one"


def describe_failure(error: Exception, arguments: Sequence[str] = ()) -> Failure:
    """Say what went wrong in one line, and what to do about it; ``arguments`` are what the user typed."""
    kind = type(error).__name__
    if isinstance(error, EdgeViTError):
        return Failure(kind, error.message, error.remedy, error.exit_code)
    if isinstance(error, UsageError):
        return _describe_usage(error)
    if isinstance(error, MemoryError):
        remedy = "close other programs, or lower --batch or --samples"
        return Failure(kind, "this machine has not enough memory for that", remedy, EXIT_MISSING)
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_of((error.name or "").partition(".")[0])):
        message = f"the Python package '{error.name}' is not installed"
        if extra == "quantize" and _reads_checkpoints(arguments):
            extra = "train"  # which brings this package, too; named one by one, each would be missing in turn
        return Failure("MissingDependencyError", message, how_to_install(extra), EXIT_MISSING)
    if isinstance(error, PermissionError) and error.filename:
        remedy = "make it readable and writable for you, or run this as the user that owns it"
        return Failure("InputError", f"{error.filename}: {error.strerror}", remedy, EXIT_USAGE)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f" {error.filename}" if error.filename else ""
        remedy = "free some space on that disk, or write to another with -o"
        return Failure("StorageError", f"cannot write{where}: {error.strerror}", remedy, EXIT_MISSING)
    if isinstance(error, OSError) and error.errno in _NO_PLACE and error.filename:
        return Failure("InputError", f"{error.filename}: {error.strerror}", "check the path", EXIT_USAGE)
    traceback.print_exception(error)
    remedy = "please report it with the lines above and the command that you typed"
    return Failure(kind, f"this is a defect in EdgeViT: {error!r}", remedy, EXIT_DEFECT)


def _extra_of(package: str) -> str | None:
    """Return the optional dependency group that brings ``package``; None if none does."""
    from edgevit.backends import BACKENDS, backend_class

    engines = {backend_class(name).package: backend_class(name).extra for name in BACKENDS}
    return EXTRAS.get(package) or engines.get(package)


def _reads_checkpoints(arguments: Sequence[str]) -> bool:
    """Return whether the command needs torch for its SOURCE."""
    of_onnx = any(each.lower().endswith(".onnx") for each in arguments)
    return bool(arguments) and arguments[0] in ("train", "export", "pipeline") and not of_onnx


def _recipe_keys() -> dict[str, str]:
    """Return how to write each setting of a training that is no option, by the option that it would be."""
    from edgevit.training.recipe_file import places

    return {
        option: f"write {key} = {example}{f' under [{table}]' if table else ''} into train.toml, "
        "and add --recipe train.toml"
        for option, (key, example, table) in places().items()
    }


def _describe_usage(error: Any) -> Failure:  # noqa: ANN401  # click's UsageError, wherever it lives
    message = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # which is pydantic's word
    command = error.ctx.command_path if error.ctx else "edgevit"
    remedy = f"{command} --help"
    if message.startswith("Got unexpected extra arg"):
        takes = {name for each in error.ctx.command.params for name in each.opts}
        named = {"--data": "images with --data", "--output": "the output with -o"}
        if wanted := " and ".join(what for option, what in named.items() if option in takes):
            remedy = f"name {wanted}; {remedy}"
    if message.startswith("Missing option '--output'"):
        remedy = f"say where to with -o NAME; {remedy}"
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        message = f"there is no option {error.option_name}"
        known = [name[2:] for each in error.ctx.command.get_params(error.ctx) for name in each.opts if name[:2] == "--"]
        keys = _recipe_keys() if error.ctx.info_name == "train" else {}
        close = alike(error.option_name, [*known, *(key for key in keys if key not in known)], OPTIONS_ELSEWHERE)
        if close and close[0] not in known:
            message += ": it is a key of the training recipe"
            remedy = f"{keys[close[0]]}; {command} --print-recipe shows all keys"
        elif close:
            remedy = f"use {' or '.join(f'--{name}' for name in close[:3] if name in known)}; {remedy}"
    return Failure("UsageError", message, remedy, EXIT_USAGE)
