"""The environment of a measurement: processor, system and versions."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from edgevit import system
from edgevit.backends import BACKENDS, backend_class
from edgevit.bundle.manifest import Environment
from edgevit.processor import features_in, field

#: Distributions whose versions can change a figure, beside the engines'.
_PACKAGES = ("edgevit", "numpy", "Pillow", "onnx", "onnx-ir", "torch")

#: Linux gives an ARM core only by number: implementer and part, from the cores' reference manuals.
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4F): "Neoverse V2",
}


def environment(root: Path = Path("/")) -> Environment:
    """Describe this machine, without its name or its user's; ``root`` is where /proc and /etc are."""
    info = system.cpuinfo(root)
    return Environment(
        machine=_machine(root),
        cpu=_cpu(info),
        cpu_features=features_in(info),
        cores=system.usable_cores(),
        os=_system(),
        python=platform.python_version(),
        packages=_packages(),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _machine(root: Path) -> str:
    board = system.board(root)
    return f"{board} ({platform.machine()})" if board else platform.machine()


def _cpu(info: str) -> str:
    if name := field(info, "model name"):
        return name
    implementer, part = field(info, "CPU implementer"), field(info, "CPU part")
    try:
        numbers = int(implementer, 16), int(part, 16)
    except ValueError:
        return platform.processor() or "unknown"
    return _ARM_CORES.get(numbers, f"ARM core, implementer {implementer}, part {part}")


def _system() -> str:
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        distribution = ""
    kernel = f"{platform.system()} {platform.release()}"
    return f"{distribution}, {kernel}" if distribution else kernel


def _packages() -> dict[str, str]:
    """Return versions from the packages' metadata: nothing is imported."""
    engines = [name for backend in BACKENDS for name in backend_class(backend).distributions]
    return {name: found.version for name in (*_PACKAGES, *engines) for found in metadata.distributions(name=name)}
