"""For Intel's DL Streamer: a variant's OpenVINO IR as it is, and a model-proc file for the element ``gvaclassify``.

Keys and values are those of DL Streamer's documentation of model-proc files, version 2.2.0 of their schema
(https://dlstreamer.github.io/dev_guide/model_proc_file.html), and of its converter of labels. There is no DL Streamer
where this was written: the file is held against the documented keys.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.shell import quoted
from edgevit.video.folder import VideoOptions, classifier_labels, only_variant, write_lines
from edgevit.video.frame import Region, region_seen

MODEL_PROC, MODEL, README = "model-proc.json", "model.xml", "README.md"
SCHEMA_VERSION = "2.2.0"

_COLOURS = {"RGB": "RGB", "BGR": "BGR", "L": "GRAYSCALE"}


def chosen(manifest: Manifest) -> str:
    """Return the variant that is an IR.

    Raises:
        InputError: if there are several, or none.

    """
    fitting = [variant.name for variant in manifest.variants if _fits(variant)]
    return only_variant(manifest, fitting, "DL Streamer", "quantize or build for --target x86-openvino")


def write(bundle: Bundle, variant: Variant, folder: Path, options: VideoOptions) -> list[str]:
    """Fill ``folder`` with model, model-proc file, and how to use them; return what the user should know.

    Raises:
        BundleError: if a file is damaged.
        InputError: if the model is no classifier of one class of several, its geometry is no crop, or the variant is
            no IR that takes images.

    """
    manifest = bundle.manifest
    labels = classifier_labels(manifest, "DL Streamer")
    region = region_seen(manifest.preprocess, *options.frame)
    if not _fits(variant):
        raise InputError(
            f"{variant.name} is not for DL Streamer, which takes OpenVINO's IR of images in float32",
            remedy="name a variant for --target x86-openvino with --variant",
        )
    model = bundle.verify_files(variant.name)
    for path in (model, model.with_suffix(".bin")):
        shutil.copyfile(path, folder / Path(MODEL).with_suffix(path.suffix))
    content = msgspec.json.format(msgspec.json.encode(_model_proc(manifest, labels)), indent=2)
    (folder / MODEL_PROC).write_bytes(content + b"\n")
    write_lines(folder / README, _readme(manifest, variant, region, options))
    return [
        "DL Streamer resizes frames with OpenCV, otherwise than the accuracy was measured with: check its answers on "
        "your own photos"
    ]


def _fits(variant: Variant) -> bool:
    taken = variant.settings.get("INPUT", "float32-nchw")
    return variant.backend == "openvino" and Path(variant.files[0].path).suffix == ".xml" and taken == "float32-nchw"


def _model_proc(manifest: Manifest, labels: tuple[str, ...]) -> dict[str, Any]:
    preprocess = manifest.preprocess
    return {
        "json_schema_version": SCHEMA_VERSION,
        "input_preproc": [
            {
                "format": "image",
                "params": {
                    "resize": "no-aspect-ratio",
                    "color_space": _COLOURS[preprocess.channel_order],
                    "range": [0.0, 1.0],
                    "mean": list(preprocess.mean),
                    "std": list(preprocess.std),
                },
            }
        ],
        "output_postproc": [
            {"converter": "label", "method": "softmax", "attribute_name": "class", "labels": list(labels)}
        ],
    }


def _readme(manifest: Manifest, variant: Variant, region: Region, options: VideoOptions) -> list[str]:
    width, height = options.frame
    corners = f"{region.left},{region.top},{region.left + region.width},{region.top + region.height}"
    # A hint of bf16 is left out: OpenVINO takes BF16 by itself where the processor has it, and may refuse it elsewhere.
    exact = variant.settings.get("INFERENCE_PRECISION_HINT") == "f32"
    config = " ie-config=INFERENCE_PRECISION_HINT=f32" if exact else ""
    return [
        f"# {quoted(manifest.name)} ({variant.name}) for DL Streamer",
        "",
        f"For frames of {width}x{height}. `gvaattachroi` lets the model see what it saw when it was validated: DL",
        "Streamer's own central crop is another one.",
        "",
        "```",
        f"gst-launch-1.0 ... ! gvaattachroi roi={corners} ! \\",
        f"  gvaclassify model={MODEL} model-proc={MODEL_PROC} inference-region=roi-list pre-process-backend=opencv "
        f"device=CPU{config} ! \\",
        "  gvametaconvert ! gvametapublish ! fakesink",
        "```",
        "",
        "DL Streamer resizes with OpenCV's bilinear filter, without the antialiasing of the resize that the accuracy",
        "was measured with. Nothing of this was run in DL Streamer: check a few known photos before you rely on it.",
    ]
