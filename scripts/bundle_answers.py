"""Write the logits that each variant of a bundle gives for golden images, 1, 2, 3 and all at once, to an npz file.

``python scripts/bundle_answers.py BUNDLE ANSWERS.npz [--dynamic]`` prints as JSON what each variant's golden images
said, None where they agreed. ``--dynamic`` lets OpenVINO have a dynamic batch on ARM64 too. ``check_arm64.py`` runs it
on this machine and under emulation.
"""

from __future__ import annotations

import json
import platform
import sys

import numpy as np

import edgevit
import edgevit.runtime
from edgevit.backends import openvino_session
from edgevit.bundle.store import Bundle

#: What is BF16 on one processor and float32 on another cannot be compared.
FLOAT32 = {"openvino": {"INFERENCE_PRECISION_HINT": "f32"}}


def main(path: str, answers: str, *options: str) -> None:
    """Write and print them."""
    if "--dynamic" in options:
        openvino_session._static_only = lambda: False
    bundle = Bundle.open(path)
    golden = bundle.golden()
    logits = {"golden": golden.logits}
    # With a dynamic batch only OpenVINO's are others.
    chosen = [each for each in bundle.manifest.variants if "--dynamic" not in options or each.backend == "openvino"]
    verified = edgevit.verify(path, variants=[each.name for each in chosen]).variants
    problems = {each.name: each.reason for each in verified}
    for variant in chosen:
        settings = FLOAT32.get(variant.backend)
        with edgevit.runtime.load(path, variant=variant.name, threads=1, check="files", settings=settings) as model:
            for count in (1, 2, 3, len(golden.images)):
                logits[f"{variant.name}/{count}"] = model.infer_images(golden.images[:count])
    np.savez(answers, **logits)
    sys.stdout.write(json.dumps({"machine": platform.machine(), "problems": problems}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
