"""For NVIDIA DeepStream: an ONNX file that takes pixels, and a configuration of its element ``nvinfer``.

``nvinfer`` knows one scale for all channels and takes probabilities, so that the file normalises its pixels and ends in
a softmax itself. Keys, and how labels are read, are those of Gst-nvinfer's documentation and parser, DeepStream 6 to 9
(https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html). There is no DeepStream where
this was written: the ONNX file is run in tests, the configuration is held against the documented keys.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.graph.pixel_classifier import write_pixel_classifier
from edgevit.shell import quoted
from edgevit.video.folder import VideoOptions, classifier_labels, only_variant, write_lines
from edgevit.video.frame import Region, region_seen

CONFIG, MODEL, ENGINE, LABELS, README = "nvinfer.txt", "model.onnx", "model.engine", "labels.txt", "README.md"

#: ``model-color-format``, by the order of channels.
_COLOURS = {"RGB": 0, "BGR": 1, "L": 2}
_SEPARATOR = ";"  # of labels, which has no escape


def chosen(manifest: Manifest) -> str:
    """Return the variant for TensorRT, or float32 where there is none.

    Raises:
        InputError: if there are several.

    """
    fitting = [variant.name for variant in manifest.variants if _fits(variant)]
    return only_variant(manifest, fitting, "DeepStream", "quantize or build for --target tensorrt")


def write(bundle: Bundle, variant: Variant, folder: Path, options: VideoOptions) -> list[str]:
    """Fill ``folder`` with model, labels, configuration, and how to use them; return what the user should know.

    Raises:
        BundleError: if a file is damaged.
        GraphError: if the ONNX file cannot be given pixels as its input.
        InputError: if the model is no classifier of one class of several, its geometry is no crop, or the variant has
            no ONNX file of standard operators.

    """
    manifest = bundle.manifest
    labels = classifier_labels(manifest, "DeepStream")
    region = region_seen(manifest.preprocess, *options.frame)
    source = _onnx_file(bundle, variant)
    entry = write_pixel_classifier(source, folder / MODEL, manifest.preprocess, manifest.activation)
    (folder / LABELS).write_text(_SEPARATOR.join(map(_plain, labels)), encoding="utf-8")
    write_lines(folder / CONFIG, _config(manifest))
    write_lines(folder / README, _readme(manifest, variant, region, options, entry))
    notes = [
        "DeepStream resizes frames otherwise than the accuracy was measured with: check its answers on your own photos"
    ]
    changed = sum(_plain(label) != label for label in labels)
    if changed:
        notes.append(
            f"{changed} of the labels are written otherwise, as DeepStream knows no escape: ';' became a comma, "
            "line breaks and other control characters a space"
        )
    return notes


def _fits(variant: Variant) -> bool:
    return variant.name == "float32" or variant.backend == "tensorrt"


def _onnx_file(bundle: Bundle, variant: Variant) -> Path:
    """Return the ONNX file of a variant: what its backend opens, or what its engine was built from."""
    names = [Path(file.path).name for file in variant.files]
    if not _fits(variant) or MODEL not in names:
        raise InputError(
            f"{variant.name} is not for DeepStream, which runs TensorRT",
            remedy="name float32 or a variant for --target tensorrt with --variant",
        )
    return bundle.verify_files(variant.name).with_name(MODEL)


def _plain(label: str) -> str:
    """Return a label as the labels' one line can hold it."""
    return "".join(" " if unicodedata.category(each) == "Cc" else each for each in label.replace(_SEPARATOR, ","))


def _config(manifest: Manifest) -> list[str]:
    preprocess = manifest.preprocess
    channels, (height, width) = preprocess.channels, preprocess.size
    return [
        "# Written by 'edgevit pack --format deepstream'.",
        "[property]",
        "gpu-id=0",
        "gie-unique-id=1",
        "# Whole frames; 2 is for the objects that a detector found.",
        "process-mode=1",
        "network-type=1",
        "# Built on the device, see README.md. There is no onnx-file: nvinfer would build an engine of its own choice.",
        f"model-engine-file={ENGINE}",
        f"labelfile-path={LABELS}",
        "batch-size=1",
        "interval=0",
        f"infer-dims={channels};{height};{width}",
        "network-input-order=0",
        "output-blob-names=probabilities",
        "classifier-threshold=0.0",
        "classifier-async-mode=0",
        f"model-color-format={_COLOURS[preprocess.channel_order]}",
        "# The model normalises its pixels itself.",
        "net-scale-factor=1.0",
        f"offsets={';'.join(['0.0'] * channels)}",
        "maintain-aspect-ratio=0",
        "# Bilinear.",
        "scaling-filter=1",
    ]


def _readme(manifest: Manifest, variant: Variant, region: Region, options: VideoOptions, entry: str) -> list[str]:
    width, height = options.frame
    channels, (model_height, model_width) = manifest.preprocess.channels, manifest.preprocess.size
    shape = f"{channels}x{model_height}x{model_width}"
    crop = f"{region.left}:{region.top}:{region.width}:{region.height}"
    return [
        f"# `{quoted(manifest.name)}` ({variant.name}) for DeepStream",
        "",
        f"`{MODEL}` takes pixels (batch, {shape.replace('x', ', ')}), 0 to 255 in float32, and gives probabilities.",
        "",
        "1. On the device, build the engine, once for each version of TensorRT and each GPU. Before TensorRT 10.12 say",
        "   `--fp16 --int8` in place of `--stronglyTyped`.",
        "",
        "   ```",
        f"   trtexec --onnx={MODEL} --stronglyTyped --saveEngine={ENGINE} \\",
        f"     --minShapes={entry}:1x{shape} --optShapes={entry}:1x{shape} --maxShapes={entry}:1x{shape}",
        "   ```",
        "",
        f"2. For frames of {width}x{height}, let the model see what it saw when it was validated, and nothing else:",
        "",
        "   ```",
        f"   ... ! nvvideoconvert src-crop={crop} ! 'video/x-raw(memory:NVMM),width={region.width},"
        f"height={region.height}' ! mux.sink_0 \\",
        f"     nvstreammux name=mux batch-size=1 width={region.width} height={region.height} ! "
        f"nvinfer config-file-path={CONFIG} ! ...",
        "   ```",
        "",
        "DeepStream resizes on the GPU, without the antialiasing of the resize that the accuracy was measured with.",
        "Nothing of this folder was run in DeepStream: check a few known photos before you rely on it.",
    ]
