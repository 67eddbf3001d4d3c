"""Compare two bundles of the same model, made by two versions of EdgeViT: logits, kernels and plans of each variant.

    python benchmarks/compare_bundles.py BEFORE.edgevit AFTER.edgevit [--images 16]

Each variant runs in the engine that it is for; those for TensorRT, which is not everywhere, as ONNX in onnxruntime.
What differs more than ``--tolerance`` ends the command with 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Kernels, Variant
from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes


def logits_of(bundle: Bundle, variant: Variant, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of ``variant`` for ``images``, one image at a time."""
    path = bundle.verify_files(variant.name)
    own = not variant.backend.startswith("tensorrt")
    backend, settings = (variant.backend, variant.settings) if own else ("onnxruntime", {})
    with get_backend(backend).open(path, threads=1, settings=settings) as session:
        return np.concatenate([session.infer(image[None]) for image in images])


def linears_of(variant: Variant) -> Kernels | None:
    """Return the kernels of its Linear layers; older bundles do not say which share of the arithmetic these are."""
    return variant.kernels and msgspec.structs.replace(variant.kernels, arithmetic=None)


def main() -> int:
    """Print a line for each variant of the first bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of the largest logit")
    asked = parser.parse_args()
    before, after = Bundle.open(asked.before), Bundle.open(asked.after)
    shapes = load_shapes("test", f"size={max(before.manifest.preprocess.size)},count={asked.images}")
    images = np.stack([before.manifest.preprocess(shapes.image(index)) for index in range(asked.images)])
    worst = 0.0
    for variant in before.manifest.variants:
        now = after.variant(variant.name)
        old, new = logits_of(before, variant, images), logits_of(after, now, images)
        difference = float(np.abs(old - new).max() / np.abs(old).max())
        worst = max(worst, difference)
        old_kernels, new_kernels = linears_of(variant), linears_of(now)
        kernels = "the same kernels" if old_kernels == new_kernels else f"{old_kernels} -> {new_kernels}"
        equal = "bit for bit" if np.array_equal(old, new) else f"within {difference:.1e} of the largest logit"
        print(f"{variant.name}: {equal}, {kernels}")
    return int(worst > asked.tolerance)


if __name__ == "__main__":
    raise SystemExit(main())
