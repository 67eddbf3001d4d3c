"""The Python environment on a board in which EdgeViT runs: one of its own, or one that the user names."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Collection, Sequence

import msgspec

from edgevit.errors import HostError
from edgevit.hosts.link import Acknowledged, Link
from edgevit.hosts.running import RemoteCommand, run_commands
from edgevit.hosts.sending import Parcel, lay_out
from edgevit.targets import same_machine

#: Processors that engines have wheels for.
_MACHINES = ("x86_64", "aarch64")
_READY = "edgevit-ready"
#: Bytes that an environment takes at most, while pip fills it: 540 MB are its packages with both CPU engines.
ENVIRONMENT_BYTES = 900_000_000
#: What pip says where it does not reach an index.
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Failed to establish a new connection",
    "Network is unreachable",
    "ConnectTimeout",
    "ProxyError",
)


class Runtime(msgspec.Struct, frozen=True):
    """The interpreter that runs EdgeViT there, and the variables of its environment."""

    python: str
    environment: dict[str, str]


class _Exists(msgspec.Struct, frozen=True):
    exists: bool


def check_board(link: Link, machines: Collection[str], why: str, *, own_python: bool) -> None:
    """Check that a board can run what it is to run; ``machines`` are the processors that ``why`` allows.

    Raises:
        HostError: if it cannot.
    """
    machine = same_machine(link.machine)
    if machine not in _MACHINES:
        raise HostError(
            f"{link.name} has a processor of the kind {link.machine or 'that it does not tell'}, for which there are "
            f"no engines",
            remedy=f"they are for {' and '.join(_MACHINES)}",
        )
    if link.facts.bits != 64:
        raise HostError(
            f"the system of {link.name} has 32 bits, for which there are no engines",
            remedy="install the 64-bit edition of its system",
        )
    if machine not in machines:
        raise HostError(
            f"{why} is for {' or '.join(sorted(machines))}, and {link.name} is {machine}",
            remedy="choose a target for that board: edgevit targets",
        )
    if ":" in link.facts.folder:  # PYTHONPATH would be two folders
        raise HostError(
            f"the home on {link.name} has a colon in its path, with which Python finds no packages there",
            remedy="measure as another user",
        )
    if own_python and not link.facts.libc.startswith("glibc"):
        raise HostError(
            f"{link.name} has no glibc, and engines have packages for no other C library",
            remedy="give --python PATH of an environment there that has an engine",
        )


def prepare(
    link: Link, wheel: Parcel, extras: Collection[str], *, own_python: bool, say: Callable[[str], None]
) -> Runtime:
    """Make ready on a board what runs EdgeViT, with the packages of ``extras``; ``wheel`` was sent.

    EdgeViT itself comes from a folder of its own, so that it is this one whatever is installed there. An interpreter
    that the user named keeps its packages as they are.

    Raises:
        HostError: if packages are missing and cannot be had.
    """
    folder = link.facts.folder
    place = f"site-{wheel.sha256[:16]}"
    link.request(Acknowledged, "unpack", place=place, sha256=wheel.sha256)
    environment = {
        "EDGEVIT_CACHE": f"{folder}/cache",
        "PYTHONPATH": f"{folder}/{place}",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    if not own_python:
        runtime = Runtime(link.facts.executable, environment)
        _check_imports(link, runtime)
        return runtime
    name = environment_name(link, extras)
    if not has_environment(link, extras):
        say("making a Python environment there")
        lay_out(link, "wheel", [wheel])
        _install(link, name, f"{folder}/wheel/{wheel.path}[{','.join(sorted(extras))}]", say)
    return Runtime(f"{folder}/{name}/bin/python", environment)


def environment_name(link: Link, extras: Collection[str]) -> str:
    """Return the name of the folder of an environment that has ``extras``: another for other packages."""
    needs = importlib.metadata.requires("edgevit") or []
    key = repr((sorted(needs), sorted(extras), link.facts.python, link.machine))
    return f"env-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def has_environment(link: Link, extras: Collection[str]) -> bool:
    """Return whether the board has an environment with ``extras`` of an earlier run."""
    return link.request(_Exists, "exists", name=f"{environment_name(link, extras)}/{_READY}").exists


def _check_imports(link: Link, runtime: Runtime) -> None:
    check = "import numpy, PIL, msgspec, typer, packaging, edgevit"
    command = RemoteCommand((runtime.python, "-c", check), "imports")
    ended = run_commands(link, [command], runtime.environment, lambda _: None)
    if ended.codes != (0,):
        raise HostError(
            f"the Python of {link.name} lacks what EdgeViT needs: {_last(ended.said)}",
            remedy="install it there, or leave out --python: then an environment is made",
        )


def _install(link: Link, name: str, what: str, say: Callable[[str], None]) -> None:
    python = f"{link.facts.folder}/{name}/bin/python"
    ready = f"import pathlib, numpy, PIL, msgspec, typer; pathlib.Path({name!r}, {_READY!r}).touch()"
    pip = (
        python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--no-cache-dir",
        "-q",
    )
    commands = [
        RemoteCommand((link.facts.executable, "-m", "venv", "--clear", "--system-site-packages", name), "venv"),
        RemoteCommand((*pip, what), "pip"),
        RemoteCommand((python, "-c", ready), "ready"),
    ]
    ended = run_commands(link, commands, {}, say)
    if ended.codes == (0, 0, 0):
        return
    output = tuple(line for line in ended.said if line)
    if len(ended.codes) == 1:
        raise HostError(
            f"no Python environment can be made on {link.name}: {_last(output)}",
            remedy="there: sudo apt install python3-venv; or give --python PATH of one that has an engine",
        )
    if any(mark in line for mark in _NO_NETWORK for line in output):
        raise HostError(
            f"{link.name} does not reach a package index, and lacks the packages",
            remedy="connect it to a network for a while, or give --python PATH of an environment that has them",
        )
    if any("No space left" in line for line in output):
        raise HostError(f"the disk of {link.name} is full", remedy="free some space there, and run it again")
    raise HostError(
        f"the packages cannot be installed on {link.name}: {_last(output)}",
        remedy="give --python PATH of an environment there that has them",
    )


def _last(said: Sequence[str]) -> str:
    errors = [line for line in said if "rror" in line]
    return (errors or list(said) or ["it does not say why"])[-1]
