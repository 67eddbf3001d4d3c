"""What is done to a model on its way to OpenVINO's IR: its batch, its input, and what it says of itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.backends.base import BatchProfile
from edgevit.backends.pixels import read_note
from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError

#: Where OpenVINO's ONNX reader puts the metadata of a file, which ``graph.torch_export`` wrote into it.
_METADATA = "framework"


#: How a file would have characters that XML has none of: by their number, or as they are.
_PERHAPS_NO_XML = re.compile(r"&#(?:([0-9]+)|x([0-9A-Fa-f]+));|[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_XML = re.compile(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_valid_xml(path: Path) -> None:
    """Write the IR at ``path`` again if names or labels in it have characters that only OpenVINO's own reader takes."""
    content = path.read_bytes()
    valid = _PERHAPS_NO_XML.sub(_valid, content.decode("utf-8", "replace")).encode()
    if valid != content:
        path.write_bytes(valid)


def _valid(match: re.Match[str]) -> str:
    number = int(match[1]) if match[1] else int(match[2] or "0", 16)
    return match[0] if number <= sys.maxunicode and _XML.match(chr(number)) else "?"


def set_batch(engine: Any, model: Any, batch: BatchProfile | None, device: str) -> None:  # noqa: ANN401
    """Give a model, in place, the batch that ``batch`` names: one number of images, or a range; None leaves it.

    An NPU takes one number only, which is 1 if nothing else is asked for.

    Raises:
        InputError: if a range is asked for on an NPU.

    """
    if device == "NPU":
        batch = batch or BatchProfile()
        if batch.min != batch.max:
            raise InputError(
                f"an NPU takes one number of images, not {batch.min} to {batch.max}",
                remedy="give the target's batch the same min, opt and max",
            )
    if batch is not None:
        (entry,) = model.inputs
        shape = entry.get_partial_shape()
        shape[0] = engine.Dimension(batch.min, batch.max)
        model.reshape({entry: shape})


#: Model API's names; it has no Lanczos, box or Hamming filter.
_MODES = {"bicubic": "CUBIC", "bilinear": "LINEAR", "nearest": "NEAREST"}


def take_pixels(engine: Any, model: Any, preprocess: Preprocess) -> Any:  # noqa: ANN401
    """Return the model with uint8 pixels (B, H, W, C) as its input, which it normalises itself.

    That is what ``Preprocess.normalize`` does; resizing and cropping, ``Preprocess.geometry``, are left to the caller.
    """
    steps = engine.preprocess.PrePostProcessor(model)
    entry = steps.input()
    entry.tensor().set_element_type(engine.Type.u8).set_layout(engine.Layout("NHWC"))
    entry.model().set_layout(engine.Layout("NCHW"))
    mean, scale = _in_levels(preprocess.mean), _in_levels(preprocess.std)
    entry.preprocess().convert_element_type(engine.Type.f32).mean(mean).scale(scale)
    return steps.build()


def exported_preprocess(model: Any) -> Preprocess | None:  # noqa: ANN401
    """Return how a model wants its images, as the exported file says; None if it says nothing.

    Raises:
        GraphError: if that cannot be understood, or contradicts itself.

    """
    found: Preprocess | None = read_note(note_of(model, "preprocess"), "preprocess", Preprocess)
    return found


def exported_labels(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the names of a model's classes, as the exported file says; none if it has none.

    Raises:
        GraphError: if they cannot be understood.

    """
    return read_note(note_of(model, "labels"), "labels", tuple[str, ...]) or ()


def add_model_info(engine: Any, model: Any) -> None:  # noqa: ANN401
    """Write into a model, in place, what other OpenVINO tools read: layouts, labels and preprocessing.

    That is the section ``model_info`` as OpenVINO's Model API defines it. It cannot say all that EdgeViT knows: labels
    are separated by blanks, so that those within one become underscores; and of resizing it has two kinds, the whole
    image squashed and the largest crop in the middle, which is more than a model sees whose ``resize`` is larger than
    its crop. What holds exactly stands as JSON in the section ``framework``, under ``edgevit.preprocess`` and
    ``edgevit.labels``.
    """
    pixels = model.inputs[0].get_element_type() == engine.Type.u8
    engine.layout_helpers.set_layout(model.inputs[0], engine.Layout("NHWC" if pixels else "NCHW"))
    for output in model.outputs:
        if len(output.get_partial_shape()) == 2:
            engine.layout_helpers.set_layout(output, engine.Layout("NC"))
    preprocess = exported_preprocess(model)
    if preprocess is not None:
        for key, value in model_info(preprocess, exported_labels(model), normalises=pixels).items():
            model.set_rt_info(value, ["model_info", key])


def model_info(preprocess: Preprocess, labels: Sequence[str], *, normalises: bool) -> dict[str, str]:
    """Return what Model API is told of a model; one that ``normalises`` its input itself names no mean and scale.

    Model API counts pixels from 0 to 255, and takes images whose channels are in the order BGR.
    """
    info = {
        "resize_type": _resize_type(preprocess),
        "interpolation_mode": _MODES.get(preprocess.interpolation, "CUBIC"),
        "reverse_input_channels": str(preprocess.channel_order == "RGB"),
    }
    if labels:
        info |= {"model_type": "Classification", "labels": " ".join(re.sub(r"\s+", "_", label) for label in labels)}
    if not normalises:
        info |= {
            "mean_values": " ".join(f"{value:.9g}" for value in _in_levels(preprocess.mean)),
            "scale_values": " ".join(f"{value:.9g}" for value in _in_levels(preprocess.std)),
        }
    return info


def _resize_type(preprocess: Preprocess) -> str:
    """Return the way of Model API that comes nearest."""
    if preprocess.fit == "contain":
        return "fit_to_window" if preprocess.pad == "after" else "fit_to_window_letterbox"
    squashed = preprocess.fit == "squash" or (preprocess.fit == "short" and preprocess.resize is None)
    return "standard" if squashed else "crop"


def _in_levels(values: Sequence[float]) -> list[float]:
    return [float(value) for value in 255 * np.asarray(values, dtype=np.float64)]


def note_of(model: Any, name: str) -> str | None:  # noqa: ANN401
    """Return what the exported file says of its ``name``, such as its preprocess, as JSON; None if nothing."""
    path = [_METADATA, f"edgevit.{name}"]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None
