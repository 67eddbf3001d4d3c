"""The parent's side of a conversion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from edgevit.errors import GraphError, MissingDependencyError, VerificationError
from edgevit.json import JSONError, decode
from edgevit.mobile.converter import Converter, converter_install_command
from edgevit.mobile.messages import ConversionJob, ConversionMade, ConversionRefused

_SHOWN = 300  # characters of a tool's last line


def convert_in_process(job: ConversionJob, converter: type[Converter], folder: Path) -> ConversionMade:
    """Let a process of its own do ``job``, which is for ``converter``, in ``folder``.

    Raises:
        GraphError: if the graph has no form in torch.
        MissingDependencyError: if the tool lacks a package.
        VerificationError: if the tool fails.

    """
    # Absolute: the working folder of this process is another one there.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  # Path.resolve follows links
    log = folder / "log.txt"
    with log.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "edgevit.mobile.worker"],
            input=msgspec.json.encode(job),
            stdout=subprocess.PIPE,
            stderr=stream,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
        )
    try:
        answer: ConversionMade | ConversionRefused = decode(done.stdout, ConversionMade | ConversionRefused)
    except JSONError:
        raise VerificationError(
            f"{converter.title} does not convert this model: {_last_words(done.returncode, log)}",
            remedy="report it with the model's architecture, or take another format; "
            "hosts of a pack (edgevit pack without --format) run the file as it is",
        ) from None
    if isinstance(answer, ConversionRefused) and answer.missing:
        raise MissingDependencyError(
            f"{converter.title} is not wholly installed: {answer.message}", remedy=converter_install_command(converter)
        )
    if isinstance(answer, ConversionRefused):
        raise GraphError(answer.message, remedy=answer.remedy)
    return answer


def _last_words(code: int, log: Path) -> str:
    if code < 0:
        return f"it was ended by signal {-code} ({signal.strsignal(-code)})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = "".join(each if each.isprintable() else " " for each in lines[-1][:_SHOWN]) if lines else ""
    return said or f"it ended with code {code}"
