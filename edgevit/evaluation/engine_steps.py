"""Whether an engine computes what it was built from: float32, a variant's own ONNX, and the engine, step by step.

Quantizing costs accuracy on the way from float32 to the variant's ONNX; what is lost from there to the engine is the
engine's, and beyond rounding it is a defect: a kernel that overflows, a fusion that is not one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest, Precision, Variant
from edgevit.evaluation.accuracy_details import EngineSteps, OutputDistance
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.statistics import agreement, as_classes, mean_kl

#: How far apart, in dB, an engine and its ONNX must be at the least, by what the engine computes in. Rounding to m bits
#: of mantissa is 6.02 m + 6 dB or so from what is rounded, and some hundred operations one after the other take 20 dB
#: of that: BF16 has 7 bits, FP16 and TF32 have 10. Where activations are rounded as the engine runs, as engines may
#: where weights alone are stored in integers, too, the ONNX does not show it: that is as far as eight bits leave a ViT.
#: TF32 stands for float32, which GPUs multiply in it.
_LEAST_DB: Mapping[Precision, float] = {
    "fp16": 30.0,
    "fp8": 15.0,
    "int8-dynamic": 15.0,
    "int8-weights": 15.0,
    "int4-weights": 15.0,
}
_LEAST_OTHERS = 40.0
_LEAST_BFLOAT16 = 22.0
#: Two roundings that share nothing differ by the noise of both: twice that of one, and on few images a little more.
_TIMES_NOISE = 2.5


def engine_steps(
    manifest: Manifest,
    variant: Variant,
    float32: NDArray[np.float32],
    onnx: NDArray[np.float32],
    engine: NDArray[np.float32],
    said: str,
) -> EngineSteps:
    """Compare the outputs (N, width) of float32, of the variant's ONNX and of its engine for the same images.

    ``said`` is what the ONNX is, in words. The engine must be no further from its ONNX than rounding explains: than
    what it computes in allows, or than the noise of two roundings like the one from float32 to the ONNX. One that is as
    near to float32 is not wrong all the same: then what ran the ONNX is.
    """
    to_float32, to_onnx = distance(manifest, float32, onnx), distance(manifest, onnx, engine)
    noise = 0.0 if to_float32.sqnr_db is None else 10 ** (-to_float32.sqnr_db / 10)
    twice = -10 * np.log10(_TIMES_NOISE * noise) if noise else np.inf
    least = float(min(_least_of(variant), twice))
    of_engine = distance(manifest, float32, engine)
    near = of_engine.finite and (of_engine.sqnr_db is None or of_engine.sqnr_db >= least)
    wrong = unclear = None
    if to_float32.finite and not to_onnx.finite:
        wrong = f"{variant.backend} gives numbers that are not finite, and the ONNX that it was built from does not"
    elif near and not (to_onnx.finite and (to_onnx.sqnr_db is None or to_onnx.sqnr_db >= least)):
        unclear = f"not compared: {variant.backend} is closer to float32 than onnxruntime's own run of that ONNX"
    elif to_float32.finite and to_onnx.sqnr_db is not None and to_onnx.sqnr_db < least:
        wrong = (
            f"{variant.backend} is {to_onnx.sqnr_db:.1f} dB from the ONNX that it was built from, at least {least:.1f} "
            f"expected of rounding; that ONNX is {_said(to_float32)} from float32"
        )
    return EngineSteps(
        images=len(engine),
        onnx=said,
        missing=unclear,
        onnx_to_float32=to_float32,
        engine_to_onnx=to_onnx,
        engine_to_float32=of_engine,
        least_db=least,
        wrong=wrong and f"the engine is wrong: {wrong}",
    )


def without_onnx(
    manifest: Manifest, float32: NDArray[np.float32], engine: NDArray[np.float32], missing: str
) -> EngineSteps:
    """Return what is known of an engine of which there is no ONNX to compare with; ``missing`` says why."""
    return EngineSteps(images=len(engine), missing=missing[:600], engine_to_float32=distance(manifest, float32, engine))


def distance(manifest: Manifest, expected: NDArray[np.float32], found: NDArray[np.float32]) -> OutputDistance:
    """Return how far outputs (N, width) of the model of ``manifest`` are from those that are ``expected``."""
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return OutputDistance(finite=False, sqnr_db=None, kl=None, agreement=None)
    kl = same = None
    if manifest.classes:
        independent = manifest.independent
        kl = mean_kl(expected, found, independent=independent)
        several = independent and manifest.classes > 1
        pair = (expected, found) if several else (as_classes(expected), as_classes(found))
        same = agreement(*pair, independent=several)
    return OutputDistance(
        finite=True, sqnr_db=worst_sqnr_db(expected, found, manifest.typed_outputs), kl=kl, agreement=same
    )


def _least_of(variant: Variant) -> float:
    if any("bf16" in value.lower() for value in variant.settings.values()):
        return _LEAST_BFLOAT16
    return _LEAST_DB.get(variant.precision, _LEAST_OTHERS)


def _said(found: OutputDistance) -> str:
    return "0 dB" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
