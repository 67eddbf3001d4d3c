"""One conversion, alone in its process: ``python -m edgevit.mobile.worker`` in the folder that it works in.

Standard input is a ``ConversionJob``, standard output ``ConversionMade`` or ``ConversionRefused``; what the tools print
goes to standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgevit.errors import EdgeViTError
from edgevit.graph.linears import load_graph
from edgevit.graph.torch_module import TorchGraph
from edgevit.json import decode
from edgevit.mobile import HandedPrecision
from edgevit.mobile.converter import Converter
from edgevit.mobile.formats import CONVERTERS
from edgevit.mobile.messages import (
    ANSWERS,
    CALIBRATION,
    IMAGES,
    MODEL,
    ConversionJob,
    ConversionMade,
    ConversionRefused,
    ConvertedModel,
)


def convert_and_run(job: ConversionJob, folder: Path) -> ConversionMade:
    """Convert the graph in ``folder``, then quantize it if there are images for that; run what can be run."""
    converter = CONVERTERS[job.format]()
    module = TorchGraph(load_graph(folder / MODEL))
    images = np.load(folder / IMAGES, mmap_mode="r")
    place = folder / "float32"
    place.mkdir()
    float32 = converter.convert(module, torch.from_numpy(images[:1].copy()), place)
    made = [_checked(converter, "float32", float32, images, folder)]
    wants_images = converter.calibrates and not job.calibration
    if converter.quantized is not None and not wants_images:
        seen = np.load(folder / CALIBRATION, mmap_mode="r")[: job.calibration, None] if job.calibration else []
        place = folder / converter.quantized
        place.mkdir()
        integer = converter.quantize(module, float32, seen, place)
        made.append(_checked(converter, converter.quantized, integer, images, folder))
    return ConversionMade(tuple(made), converter.versions())


def _checked(
    converter: Converter, precision: HandedPrecision, model: Path, images: NDArray[np.float32], folder: Path
) -> ConvertedModel:
    if converter.runs:
        found = converter.answers(model, images)
        rows = [np.concatenate([np.asarray(each, np.float32).reshape(-1) for each in outputs]) for outputs in found]
        np.save(folder / ANSWERS.format(precision), np.stack(rows))
    return ConvertedModel(precision, model.relative_to(folder).as_posix())


def main() -> None:
    """Read the job, and answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what tools print is no answer
    answer: ConversionMade | ConversionRefused
    try:
        answer = convert_and_run(decode(sys.stdin.buffer.read(), ConversionJob), Path.cwd())
    except EdgeViTError as error:
        answer = ConversionRefused(error.message, error.remedy)
    except ModuleNotFoundError as error:
        answer = ConversionRefused(str(error), "", missing=True)
    answers.write(msgspec.json.encode(answer))
    answers.flush()


if __name__ == "__main__":
    main()
