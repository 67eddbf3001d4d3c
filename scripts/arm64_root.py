"""A folder in which this machine runs EdgeViT as ARM64 does: qemu's emulation of programs, Debian's Python, wheels.

Nothing is installed on this machine, and nobody must be root: apt downloads the packages from the archives that this
machine is set up with, dpkg unpacks them, and pip takes the wheels for ARM64.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

CHECKOUT = Path(__file__).resolve().parents[1]
#: Which processor is emulated: bit-equal, in the variants tried, to Cortex-A53, A72 and A76.
PROCESSOR = "neoverse-n1"
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
#: The C libraries that wheels for ARM64 may ask for, up to that of Debian 12.
_PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28, 31, 34, 35)))
#: qemu before 8 shows programs this machine's processor, of which onnxruntime makes nothing.
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


class Failed(Exception):
    """Says why the folder cannot be made."""


class Root(NamedTuple):
    """A folder that is ready: the emulator, and the tree that an emulated program takes for the machine's."""

    emulator: Path
    tree: Path
    wheels: Path

    @classmethod
    def at(cls, folder: Path, emulator: Path | None = None) -> Root:
        """Return the root that ``prepare`` has made in ``folder``; ``emulator`` replaces the one that is there.

        Raises:
            Failed: if there is none.

        """
        found = [emulator, *(folder / "qemu/usr/bin" / name for name in _EMULATORS)]
        found += [Path(each) for name in _EMULATORS if (each := shutil.which(name))]
        qemu = next((path for path in found if path and path.is_file()), None)
        if qemu is None or not (folder / "ready").is_file():
            raise Failed(f"{folder} is no root for ARM64: run python scripts/check_arm64.py --root {folder}")
        return cls(qemu, folder / "tree", folder / "wheels")

    def version(self) -> str:
        """Return the emulator's version."""
        shown = subprocess.run([self.emulator, "--version"], capture_output=True, text=True, check=True).stdout
        return shown.split()[2]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with ``arguments`` as on ARM64, with this checkout of EdgeViT."""
        (python,) = self.tree.glob("usr/bin/python3.[0-9][0-9]")
        return self.program(python, *arguments)

    def program(
        self, program: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``program`` for ARM64 with ``arguments``, and with ``environment`` beside what Python needs."""
        whole = {
            "HOME": str(self.tree),
            "OMP_NUM_THREADS": "1",
            "PATH": os.defpath,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT, self.wheels))),
        }
        command = [self.emulator, "-cpu", PROCESSOR, "-L", self.tree, program, *arguments]
        return subprocess.run(
            list(map(str, command)), env={**whole, **(environment or {})}, capture_output=True, text=True
        )


def prepare(folder: Path, *, emulator: Path | None = None) -> None:
    """Make a root in ``folder``, unless one is there; the emulator too, unless it is given or installed here.

    Raises:
        Failed: if a package cannot be had.

    """
    if (folder / "ready").is_file():
        return
    tree, wheels = folder / "tree", folder / "wheels"
    for old in (tree, wheels):
        shutil.rmtree(old, ignore_errors=True)
    _unpack(folder, ["python3", "libstdc++6", "libgomp1"], tree)
    (tree / "proc").mkdir(exist_ok=True)
    (tree / "proc/cpuinfo").write_text(_CPUINFO, encoding="ascii")
    if emulator is None and not any(map(shutil.which, _EMULATORS)):
        _unpack(folder, [f"qemu-user-static:{_own_architecture()}"], folder / "qemu")
    (python,) = tree.glob("usr/bin/python3.[0-9][0-9]")
    _take_wheels(python.name.removeprefix("python"), wheels)
    (folder / "ready").touch()


def _unpack(folder: Path, packages: list[str], place: Path) -> None:
    """Download Debian packages, with what they depend on, and unpack them to ``place``."""
    apt = folder / "apt" / place.name
    for each in ("state/lists/partial", "cache/archives/partial"):
        (apt / each).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing is installed: all that is depended on is downloaded
    own = _own_architecture()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Get::Download-Only": "true",
        "APT::Install-Recommends": "false",
    }
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    if own != "arm64":
        given += ["-o", f"APT::Architectures::={own}"]
    _call(["apt-get", *given, "--quiet", "update"])
    _call(["apt-get", *given, "--quiet", "--yes", "install", *packages])
    place.mkdir(parents=True, exist_ok=True)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _call(["dpkg-deb", "--extract", str(package), str(place)])


def _take_wheels(python: str, place: Path) -> None:
    """Install EdgeViT's dependencies on a device for ARM64 to ``place``, in the versions of constraints.txt."""
    project = msgspec.toml.decode((CHECKOUT / "pyproject.toml").read_bytes())["project"]
    extras = project["optional-dependencies"]
    platforms = [part for each in _PLATFORMS for part in ("--platform", each)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target", str(place)]
    _call(
        [
            *pip,
            *("--python-version", python, "--implementation", "cp"),
            *platforms,
            *("-c", str(CHECKOUT / "constraints.txt")),
            *project["dependencies"],
            *extras["onnxruntime"],
            *extras["openvino"],
        ]
    )


def _own_architecture() -> str:
    return _call(["dpkg", "--print-architecture"]).strip()


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is not here: this takes a Debian or one like it") from error
    if done.returncode:
        raise Failed(f"{' '.join(command)}:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
