"""EdgeViT: from a Vision Transformer checkpoint to a verified, faster INT8 model on a small computer.

The way in a few lines, as on the command line::

    import edgevit

    edgevit.export("fashion-micro", "fashion.edgevit")
    edgevit.quantize("fashion.edgevit", data="fashion-mnist-sample")
    edgevit.validate("fashion.edgevit", data="fashion-mnist-sample")
    edgevit.benchmark("fashion.edgevit")
    model = edgevit.load("fashion.edgevit")

Whatever a caller or a file can cause is an ``EdgeViTError``, whose ``remedy`` says what to do. Nothing heavy is
imported before a function is looked up: an application that only loads needs numpy, Pillow and one engine.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from edgevit.api.benchmark import benchmark
    from edgevit.api.build import build
    from edgevit.api.export import export
    from edgevit.api.pack import pack
    from edgevit.api.pack_mobile import pack_mobile
    from edgevit.api.predict import predict
    from edgevit.api.quantize import quantize
    from edgevit.api.race import race
    from edgevit.api.validate import validate
    from edgevit.api.verify import verify
    from edgevit.bundle.store import Bundle
    from edgevit.errors import EdgeViTError
    from edgevit.progress import ProgressEvent
    from edgevit.runtime import load

__all__ = [
    "Bundle",
    "EdgeViTError",
    "ProgressEvent",
    "benchmark",
    "build",
    "export",
    "load",
    "pack",
    "pack_mobile",
    "predict",
    "quantize",
    "race",
    "validate",
    "verify",
]

#: Name -> the module that has it, which is imported when the name is looked up (PEP 562).
_HOMES = {
    "Bundle": "edgevit.bundle.store",
    "EdgeViTError": "edgevit.errors",
    "ProgressEvent": "edgevit.progress",
    "benchmark": "edgevit.api.benchmark",
    "build": "edgevit.api.build",
    "export": "edgevit.api.export",
    "load": "edgevit.runtime",
    "pack": "edgevit.api.pack",
    "pack_mobile": "edgevit.api.pack_mobile",
    "predict": "edgevit.api.predict",
    "quantize": "edgevit.api.quantize",
    "race": "edgevit.api.race",
    "validate": "edgevit.api.validate",
    "verify": "edgevit.api.verify",
}

# onnxruntime reports to its maker, and leaves a device id in the home, unless this is set before its first import in a
# process. Here it is, in all that use EdgeViT and the processes that they start; who wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is called so
    if name not in _HOMES:
        raise AttributeError(f"module 'edgevit' has no attribute '{name}'")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
