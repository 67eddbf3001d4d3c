"""Compare two bundles of the same model, made by two versions of EdgeViT: logits, plans and kernels of each variant.

    python benchmarks/compare_bundles.py BEFORE.edgevit AFTER.edgevit [--images 16] [--data DATA]

Prints a table. Each variant runs in the engine that it is for; those for TensorRT, which is not everywhere, as ONNX in
onnxruntime. Both run with what the first one is opened with: which setting won a race on time is chance, and is said
beside it. What differs more than ``--tolerance`` ends the command with 1, and so does a variant that one of them lacks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from comparison import markdown
from numpy.typing import NDArray

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Kernels, Variant
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches
from edgevit.data.shapes import load_shapes
from edgevit.stages.images import DataSource
from edgevit.stages.precisions import PLANS

HEADER = ("variant", "logits", "kernels", "opened with")
_HASHES = ("model_sha256", "source_sha256")  # of files, whose bytes may differ though what they compute does not


@dataclass(frozen=True, slots=True)
class Compared:
    """A variant of both bundles: the largest difference of its logits as a share of the largest, None without one."""

    name: str
    difference: float | None
    kernels: str = ""
    settings: str = ""

    def cells(self) -> list[str]:
        """Return the cells of a line."""
        if self.difference is None:
            return [self.name, "not in both", "", ""]
        equal = "bit for bit" if self.difference == 0 else f"within {self.difference:.1e} of the largest"
        return [self.name, equal, self.kernels, self.settings]


def images_for(bundle: Bundle, count: int, data: str | None = None) -> NDArray[np.float32]:
    """Return ``count`` images for the model of ``bundle``: of ``data``, or drawn shapes."""
    preprocess = bundle.manifest.preprocess
    if data is None:
        shapes = load_shapes("test", f"size={max(preprocess.size)},count={count}")
        return np.stack([preprocess(shapes.image(index)) for index in range(count)])
    dataset = DataSource(data, "test", Strict(), samples=count).load()
    return np.concatenate([each.images for each in batches(dataset, preprocess, batch_size=16, unreadable=Strict())])


def logits_of(
    bundle: Bundle, variant: Variant, images: NDArray[np.float32], settings: Mapping[str, str]
) -> NDArray[np.float32]:
    """Return the logits of ``variant`` for ``images``, one image at a time."""
    path = bundle.verify_files(variant.name)
    own = not variant.backend.startswith("tensorrt")
    backend, settings = (variant.backend, settings) if own else ("onnxruntime", {})
    with get_backend(backend).open(path, threads=1, settings=settings) as session:
        return np.concatenate([session.infer(image[None]) for image in images])


def linears_of(variant: Variant) -> Kernels | None:
    """Return the kernels of its Linear layers; older bundles do not say which share of the arithmetic these are."""
    return variant.kernels and msgspec.structs.replace(variant.kernels, arithmetic=None)


def difference_of(old: NDArray[np.float32], new: NDArray[np.float32]) -> float:
    """Return the largest difference as a share of the largest number of ``old``; infinity where one is not finite."""
    if np.array_equal(old, new):
        return 0.0
    found = float(np.abs(old - new).max() / np.abs(old).max())
    return found if np.isfinite(found) else np.inf


def compare_variants(before: Bundle, after: Bundle, images: NDArray[np.float32]) -> list[Compared]:
    """Return how the variants of both differ, in the order of the first, with those that one lacks behind them."""
    others = {variant.name: variant for variant in after.manifest.variants}
    found = []
    for variant in before.manifest.variants:
        now = others.pop(variant.name, None)
        if now is None:
            found.append(Compared(variant.name, None))
            continue
        settings = variant.settings
        old, new = (logits_of(*each, images, settings) for each in ((before, variant), (after, now)))
        one, other = linears_of(variant), linears_of(now)
        first, second = (", ".join(f"{key} {each[key]}" for key in each) for each in (settings, now.settings))
        found.append(
            Compared(
                variant.name,
                difference_of(old, new),
                "the same" if one == other else f"{one} -> {other}",
                first if settings == now.settings else f"{first}; the second chose {second}",
            )
        )
    return [*found, *(Compared(name, None) for name in others)]


def compare_plans(before: Bundle, after: Bundle) -> list[str]:
    """Return a line for each plan of scales that one of them has: which of its fields differ."""
    lines = []
    for scheme, name in PLANS.items():
        one, other = ((bundle.path / name) for bundle in (before, after))
        if one.exists() and other.exists():
            lines.append(f"plan, {scheme}: {said_of_fields(*(json.loads(each.read_bytes()) for each in (one, other)))}")
        elif one.exists() or other.exists():
            lines.append(f"plan, {scheme}: not in both")
    return lines


def said_of_fields(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    """Return which fields of two plans differ, in words."""
    names = [name for name in {**one, **other} if name not in _HASHES and one.get(name) != other.get(name)]
    return f"differs in {', '.join(names)}" if names else "equal"


def table(found: list[Compared]) -> str:
    """Return a table of ``found``."""
    return markdown(HEADER, [each.cells() for each in found])


def main() -> int:
    """Print a line for each variant and each plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--data", help="images to compare on; drawn shapes without it")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of the largest logit")
    asked = parser.parse_args()
    before, after = Bundle.open(asked.before), Bundle.open(asked.after)
    found = compare_variants(before, after, images_for(before, asked.images, asked.data))
    print(table(found), *compare_plans(before, after), sep="\n")
    return int(any(each.difference is None or each.difference > asked.tolerance for each in found))


if __name__ == "__main__":
    raise SystemExit(main())
