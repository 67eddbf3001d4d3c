"""``edgevit doctor``: what can be made and run on this machine, from what really works here."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from edgevit import __version__, system
from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.probes import PROBES, Finding
from edgevit.bundle.manifest import Environment
from edgevit.evaluation.environment import environment
from edgevit.files import scratch_folder
from edgevit.json import decode
from edgevit.progress import SILENT, Progress
from edgevit.stages.availability import Ability, Availability, command_abilities, target_availabilities
from edgevit.targets import load_profile, target_names

#: Importing torch from a slow disk for the first time takes most of a minute.
_TIMEOUT_S = 180.0
_MIB = 1 << 20


class ThisMachine(msgspec.Struct, frozen=True, kw_only=True):
    """What EdgeViT runs on; memory and disk in MiB, None where the system does not tell."""

    edgevit: str
    environment: Environment
    memory_mb: int | None
    memory_free_mb: int | None
    disk_free_mb: int


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edgevit doctor`` has found."""

    machine: ThisMachine
    engines: tuple[Finding, ...]
    commands: tuple[Ability, ...]
    targets: tuple[Availability, ...]

    @property
    def runs(self) -> bool:
        """Say whether any engine runs here."""
        return any(finding.runs for finding in self.engines)


def examine(
    progress: Progress = SILENT,
    *,
    command: Sequence[str] = (sys.executable, "-m"),
    engines: Sequence[str] = (),
) -> Diagnosis:
    """Try every engine and every optional package in a process of its own, and judge targets and commands by that.

    Of ``engines``, where some are named, these alone are tried, and nothing is judged.

    Raises:
        InputError: if there is no such engine.
        StorageError: if there is no room for temporary files.
    """
    for name in engines:
        backend_class(name)
    found = run_probes(dict.fromkeys(engines) or PROBES, progress, command=command)
    if engines:
        named = tuple(finding for those in found.values() for finding in those)
        return Diagnosis(machine=this_machine(), engines=named, commands=(), targets=())
    findings = [finding for name in PROBES for finding in found[name]]
    extras = {finding.name for finding in findings} & {"train", "quantize", "report"}
    profiles = {name: load_profile(name) for name in target_names()}
    commands = command_abilities(findings)
    return Diagnosis(
        machine=this_machine(),
        engines=tuple(finding for finding in findings if finding.name not in extras),
        commands=commands,
        targets=target_availabilities(profiles, findings, commands, platform.machine()),
    )


def this_machine(root: Path = Path("/")) -> ThisMachine:
    """Describe the machine; ``root`` is where the system's own files lie."""
    memory = system.memory(root)
    return ThisMachine(
        edgevit=__version__,
        environment=environment(root),
        memory_mb=memory.total_mb,
        memory_free_mb=memory.available_mb,
        disk_free_mb=shutil.disk_usage(Path.cwd()).free // _MIB,
    )


def run_probes(
    names: Iterable[str], progress: Progress, *, command: Sequence[str], timeout_s: float = _TIMEOUT_S
) -> Mapping[str, tuple[Finding, ...]]:
    """Run the probes ``names``, all at once, and return what each has found, or how it ended.

    They run in an empty folder, so that no file of the user's working folder is imported by mistake.
    """
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  # Path.resolve follows links
    deadline = time.monotonic() + timeout_s
    with scratch_folder() as scratch:
        started = {
            name: subprocess.Popen(
                [*command, "edgevit.backends.probes", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": paths},
            )
            for name in names
        }
        try:
            waited = progress.track(started.items(), total=len(started), label="Trying engines")
            return {name: _answer(name, process, deadline - time.monotonic()) for name, process in waited}
        finally:
            for process in started.values():
                process.kill()
                process.communicate()


def _answer(name: str, process: subprocess.Popen[bytes], timeout_s: float) -> tuple[Finding, ...]:
    try:
        out, err = process.communicate(timeout=max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
        return (_broken(name, "it did not answer in time"),)
    if process.returncode == 0:
        return decode(out, tuple[Finding, ...])
    lines = err.decode(errors="replace").strip().splitlines()
    if process.returncode < 0:
        ending = signal.strsignal(-process.returncode) or f"signal {-process.returncode}"
        return (_broken(name, f"it crashed ({ending})"),)
    return (_broken(name, lines[-1][:200] if lines else f"it ended with code {process.returncode}"),)


def _broken(name: str, problem: str) -> Finding:
    remedy = f"python -m edgevit.backends.probes {name} shows all of it; install {name} again"
    device = backend_class(name).devices[0] if name in BACKENDS else "CPU"
    return Finding(name=name, device=device, problem=problem, remedy=remedy)
