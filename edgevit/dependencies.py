"""Optional packages: imported when they are needed, and named with the command that adds them when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgevit.errors import MissingDependencyError

#: Optional packages, as they are imported, and the dependency group that brings each; engines tell their own.
EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "huggingface_hub": "train",
    "onnxscript": "train",
    "tokenizers": "train",
    "onnx": "quantize",
    "onnx_ir": "quantize",
    "threadpoolctl": "quantize",
    "jinja2": "report",
    "cryptography": "sign",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
}


def how_to_install(extra: str) -> str:
    """Return the command that installs the dependency group ``extra``, in a checkout: EdgeViT is not on PyPI yet."""
    return f"pip install -e '.[{extra}]'"


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return ``module``, which the optional dependency group ``extra`` brings.

    Raises:
        MissingDependencyError: if it is not installed.

    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, something that it needs is not: its own message says more
        raise MissingDependencyError(
            f"the Python package '{package}' is not installed", remedy=how_to_install(extra)
        ) from error
