"""TensorRT's Python bindings: those that are installed, their version, and what is in them.

They change from version to version. What is not in all that EdgeViT works with (TensorRT 8.6 to 11, TensorRT-RTX 1.7)
is used behind ``if bindings.has("Class.member")`` or ``bindings.strongly_typed`` only, and enum values always by name:
their numbers differ. ``tests/backends/tensorrt/test_api.py`` reads the code of this package and holds it to that.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgevit import dependencies
from edgevit.errors import MissingDependencyError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
#: The first versions whose bindings EdgeViT knows, and what is called too old in words.
_OLDEST: dict[Flavour, tuple[int, int]] = {"tensorrt": (8, 6), "tensorrt-rtx": (1, 7)}
#: The first version of TensorRT that takes float16 scales of Q/DQ: before it, precision is a flag of the build.
_STRONGLY_TYPED = (10, 12)

NAMES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
#: What only a Jetson has.
_JETSON = Path("/etc/nv_tegra_release")


def on_jetson() -> bool:
    """Say whether this machine is a Jetson, whose driver and TensorRT come with JetPack."""
    return _JETSON.exists()


def bindings_install_command(flavour: Flavour) -> str:
    """Return what installs the bindings of ``flavour`` on this machine."""
    if flavour == "tensorrt-rtx":
        return dependencies.how_to_install(flavour)
    if on_jetson():
        return (
            "sudo apt install tensorrt python3-libnvinfer, and make the virtual environment with --system-site-packages"
        )
    return "where there is an NVIDIA GPU: pip install tensorrt"


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, such as (10, 16, 1, 11), to be compared."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def is_strongly_typed(flavour: Flavour, version: str) -> bool:
    """Say whether precision is in the types of the ONNX file there, rather than in flags of the build."""
    return flavour == "tensorrt-rtx" or version_numbers(version) >= _STRONGLY_TYPED


@dataclass(frozen=True, slots=True)
class Bindings:
    """The bindings' module ``trt``, which of the two it is, and its version, such as 10.16.1.11."""

    trt: Any
    flavour: Flavour
    version: str

    @property
    def strongly_typed(self) -> bool:
        """Say whether precision is in the types of the ONNX file, rather than in flags of the build."""
        return is_strongly_typed(self.flavour, self.version)

    def find(self, name: str) -> Any | None:  # noqa: ANN401 - whatever it is
        """Return the class, member or value of an enum called ``name``, such as BuilderFlag.FP16; None without it."""
        found = self.trt
        for part in name.split("."):
            found = getattr(found, part, None)
        return found

    def has(self, name: str) -> bool:
        """Say whether there is a class, member or value of an enum called ``name``, such as BuilderFlag.FP16."""
        return self.find(name) is not None

    def values(self, enum: str) -> list[str]:
        """Return the names of the values of ``enum``, sorted; none if there is no such enum."""
        return sorted(getattr(self.find(enum), "__members__", ()))


def load_bindings(flavour: Flavour) -> Bindings:
    """Import the bindings of ``flavour``; that needs neither a GPU nor a driver.

    Raises:
        MissingDependencyError: if they are not installed, lack a library, or are too old.

    """
    name, module = NAMES[flavour], _MODULES[flavour]
    try:
        trt = importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library that they load by ctypes
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        problem = f"the Python package '{module}' is not installed" if missing else f"{name} does not load: {error}"
        raise MissingDependencyError(problem, remedy=bindings_install_command(flavour)) from error
    version = str(trt.__version__)
    if version_numbers(version) < _OLDEST[flavour]:
        oldest = ".".join(map(str, _OLDEST[flavour]))
        raise MissingDependencyError(
            f"{name} {version} is too old",
            remedy=f"install {name} {oldest} or later: {bindings_install_command(flavour)}",
        )
    return Bindings(trt, flavour, version)
