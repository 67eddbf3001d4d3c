"""What is measured of each family: its distance from its library, and INT8 against float32, for docs/models.md.

``pytest tests/models/test_families.py --measure-families`` measures all, which takes a quarter of an hour, and writes
``measured_families.json``; ``--write-docs`` then writes the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from synthetic_images import pictures
from torch import Tensor
from zoo import Case
from zoo_modules import ModuleCase

import edgevit
from edgevit.bundle.store import Bundle
from edgevit.models.loading import load_checkpoint

PATH = Path(__file__).with_suffix(".json")
ENGINES = ("onnxruntime", "openvino")
CALIBRATION, EVALUATION = 64, 128


def measured() -> dict[str, dict[str, Any]]:
    """Return what was measured, by the cases' names."""
    found: dict[str, dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def note(name: str, found: dict[str, Any]) -> None:
    """Keep what was measured of a case."""
    everything = measured() if PATH.exists() else {}
    everything[name] = found
    PATH.write_text(json.dumps(dict(sorted(everything.items())), indent=1) + "\n", encoding="utf-8")


def measure_checkpoint(case: Case, folder: Path) -> dict[str, Any]:
    """Load, export and quantize a case's checkpoint, each compared with what it was before."""
    path, reference = case.build(folder)
    loaded = load_checkpoint(str(path))
    images = torch.randn(4, *case.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = reference(images), loaded.model()(images)
    bundle = edgevit.export(str(path), folder / "m.edgevit", data=pictures(case.size, 8, seed=2)).bundle
    return {"torch": distance(found, expected), **_in_integers(bundle, reference, images, case.size)}


def measure_module(case: ModuleCase, folder: Path) -> dict[str, Any]:
    """Export and quantize a case's module, each compared with what it was before."""
    module, size = case.build(), (3, case.size, case.size)
    images = case.normalised_images(4, seed=1)
    bundle = edgevit.export(module, folder / "m.edgevit", input_shape=size, data=pictures(size, 8, seed=2)).bundle
    return _in_integers(bundle, module, images, size)


def _in_integers(
    bundle: Bundle, reference: Callable[[Tensor], Tensor], images: Tensor, size: Sequence[int]
) -> dict[str, Any]:
    made: dict[str, Any] = {"onnx": parity(bundle, reference, images)}
    edgevit.quantize(bundle, data=pictures(size, CALIBRATION, seed=3))
    edgevit.validate(bundle, data=pictures(size, EVALUATION, seed=4))
    bundle = Bundle.open(bundle.path)
    for engine in ENGINES:
        variant = bundle.variant(f"int8-{engine}")
        assert variant.kernels is not None
        assert variant.accuracy is not None
        made[engine] = {
            "linears": f"{variant.kernels.integer_linears} of {variant.kernels.linears}",
            "share": None if (share := variant.kernels.integer_share) is None else round(share, 3),
            "agreement": round(variant.accuracy.agreement, 3),
            "sqnr_db": round(variant.accuracy.sqnr_db or 0, 1),
        }
    return made


def parity(bundle: Bundle, reference: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Return how far the bundle's float32 file is from ``reference``."""
    with torch.inference_mode():
        expected = torch.cat([reference(image[None]) for image in images])
    path = bundle.path / bundle.variant("float32").files[0].path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return distance(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, in parts of the largest value where that is above 1."""
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
