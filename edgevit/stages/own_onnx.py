"""The ONNX that a variant was built from, run in onnxruntime as it is written: what its engine should answer."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import REFERENCE, get_backend
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, EdgeViTError
from edgevit.evaluation.accuracy_details import EngineSteps
from edgevit.evaluation.engine_steps import engine_steps, without_onnx
from edgevit.files import scratch_folder
from edgevit.graph.needed import check_graph_packages
from edgevit.shell import quoted
from edgevit.targets import load_target, split_name, target_names

# What writes ONNX is imported where it is used: a device measures without it.

_AS_WRITTEN = {"optimize": "off"}


class OwnOnnx(NamedTuple):
    """An ONNX file that computes what a variant is to compute, and what it is, in words."""

    path: Path
    said: str


def compare_steps(
    bundle: Bundle, name: str, images: NDArray[np.float32], float32: NDArray[np.float32], engine: NDArray[np.float32]
) -> EngineSteps:
    """Return what is lost from float32 to the ONNX of the variant ``name``, and from there to its engine.

    ``float32`` and ``engine`` (N, width) are what these gave for ``images`` (N, C, H, W), as the model takes them.
    Where there is no such ONNX, the steps say why.
    """
    manifest, variant = bundle.manifest, bundle.variant(name)
    if variant.precision == "float32":  # its ONNX is what all are compared with
        return engine_steps(manifest, variant, float32, float32, engine, "the float32 file itself")
    with scratch_folder() as scratch:
        try:
            own = own_onnx(bundle, variant, scratch)
            settings = _AS_WRITTEN | ({"images": "one-by-one"} if variant.precision == "int8-dynamic" else {})
            with get_backend(REFERENCE).open(own.path, threads=0, settings=settings) as session:
                answers = session.infer(images)
        except EdgeViTError as error:
            return without_onnx(manifest, float32, engine, error.message)
    return engine_steps(manifest, variant, float32, answers, engine, own.said)


def own_onnx(bundle: Bundle, variant: Variant, scratch: Path) -> OwnOnnx:
    """Return the ONNX of ``variant``: among its files, or else written again into ``scratch`` as when it was built.

    Raises:
        BundleError: if what it was built from is not in the bundle any more, or damaged.
        MissingDependencyError: if what writes ONNX is not installed here.
    """
    place = next((file for file in variant.files if file.path.endswith(".onnx")), None)
    if place is not None:
        (path,) = bundle.verified([place])
        if not isinstance(path, Path):
            path = bundle.verify_files(variant.name).with_name(Path(place.path).name)
        return OwnOnnx(path, "the variant's ONNX, node by node as it is written")
    if split_name(variant.target)[0] not in target_names():  # never a file that a bundle names
        raise BundleError(
            f"{variant.name} was built for {variant.target}, of which no profile comes with EdgeViT",
            remedy="build it for a target that edgevit targets lists",
        )
    check_graph_packages()
    from edgevit.quantization.float_fallback import float_in
    from edgevit.quantization.ptq import PtqModel
    from edgevit.stages.precisions import load_decided, write_source

    target = load_target(variant.target)
    merging = variant.token_merging
    decided = load_decided(bundle, variant.precision, target, None if merging is None else merging.budget)
    if isinstance(decided, PtqModel):
        decided = float_in(decided, target.dialect)
    path = scratch / "own.onnx"
    write_source(bundle.verify_float32(), variant.precision, target, decided, path)
    if not _made_of(path, bundle, variant):
        raise BundleError(
            f"{variant.name} was built from another calibration than the bundle has now",
            remedy=f"build it again: edgevit build {quoted(bundle.path)} --target {quoted(variant.target)}",
        )
    return OwnOnnx(path, "the ONNX that it was built from, written again")


def _made_of(onnx: Path, bundle: Bundle, variant: Variant) -> bool:
    """Say whether the largest weights of the ``onnx`` file are in a variant's own files, byte for byte."""
    from edgevit.graph.weights import largest_weights

    wanted = largest_weights(onnx)
    for path in bundle.verified(variant.files):
        if not isinstance(path, Path):  # in a pack
            content = bytes(path)
            wanted = [weight for weight in wanted if content.find(weight) < 0]
            continue
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            wanted = [weight for weight in wanted if mapped.find(weight) < 0]
    return not wanted
