"""How Triton's OpenVINO backend runs an IR: with which parameters, and what it does not take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevit.backends.openvino_settings import DEFAULTS, GROUP_SIZE, checked
from edgevit.backends.triton import TritonModel

_PRECISION = "INFERENCE_PRECISION_HINT"


def triton_model(model: Path, settings: Mapping[str, str]) -> TritonModel | str:
    """Return how Triton runs the IR ``model``; else why it does not.

    It goes by one image at a time: the backend asks for all of a batch, or fills it up, where a model takes any number.
    https://github.com/triton-inference-server/openvino_backend
    """
    chosen = checked(settings)
    if chosen["DEVICE"] != "CPU":
        return f"Triton's OpenVINO backend runs on the CPU, and this is for {chosen['DEVICE']}"
    if model.suffix != ".xml":
        return f"{model.name} is no IR"
    if chosen[GROUP_SIZE] != DEFAULTS[GROUP_SIZE]:
        return f"Triton's OpenVINO backend does not take {GROUP_SIZE}, without which the answers are others"
    parameters = {"PERFORMANCE_HINT": chosen["PERFORMANCE_HINT"]}
    if chosen["NUM_STREAMS"] != DEFAULTS["NUM_STREAMS"]:
        parameters["NUM_STREAMS"] = chosen["NUM_STREAMS"]
    if chosen["INFERENCE_NUM_THREADS"] != DEFAULTS["INFERENCE_NUM_THREADS"]:
        parameters["INFERENCE_NUM_THREADS"] = chosen["INFERENCE_NUM_THREADS"]
    notes: tuple[str, ...] = ()
    if chosen[_PRECISION] == "bf16":
        parameters["HINT_BF16"] = "YES"
    else:
        notes = (f"Triton's OpenVINO backend takes no {_PRECISION}: a processor with BF16 computes in that",)
    return TritonModel(
        backend="openvino",
        files={"model.xml": model, "model.bin": model.with_suffix(".bin")},
        described_by=model,
        largest_batch=1,
        parameters=parameters,
        notes=notes,
    )
