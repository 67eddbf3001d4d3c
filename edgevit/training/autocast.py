"""Whether matrix products run faster in bfloat16 here: measured on the model and batch of the run."""

from __future__ import annotations

import time
from statistics import median

import torch
from torch import Tensor, nn

from edgevit.progress import SILENT, Progress
from edgevit.training.batch_plan import MicroBatch
from edgevit.training.distributed import Processes
from edgevit.training.objective import Loss

_ROUNDS = 3
_WORTHWHILE = 0.95  # of the time in float32: below that, bfloat16's rounding is paid for


def faster_in_bfloat16(
    model: nn.Module,
    objective: Loss,
    inputs: Tensor,
    labels: Tensor,
    micro_batch: MicroBatch,
    processes: Processes,
    progress: Progress = SILENT,
) -> tuple[bool, str]:
    """Return whether a step of ``model`` is faster in bfloat16, and a line that says what was measured.

    The first process measures, for all. Gradients are thrown away: the model is as it was.
    """
    return processes.on_main(
        lambda: _measure(model, objective, inputs, labels, micro_batch, processes.device, progress)
    )


def _measure(
    model: nn.Module,
    objective: Loss,
    inputs: Tensor,
    labels: Tensor,
    micro_batch: MicroBatch,
    device: torch.device,
    progress: Progress,
) -> tuple[bool, str]:
    inputs, labels = inputs.to(device), labels.to(device)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    rounds = progress.track(range(1 + _ROUNDS), total=1 + _ROUNDS, label="Timing steps in bfloat16 and float32")
    for _ in rounds:  # in turns, so that what disturbs one disturbs the other
        for bfloat16, times in seconds.items():
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss, _ = objective(model, inputs, labels, micro_batch)
            loss.backward()
            _ = float(loss.detach())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    float32, half = (median(seconds[key][1:]) for key in (False, True))  # the first round warms up
    chosen = half < _WORTHWHILE * float32
    figures = f"{half * 1e3:.0f} ms a step in bfloat16, {float32 * 1e3:.0f} ms in float32"
    return chosen, f"autocast: {figures}; training in {'bfloat16' if chosen else 'float32'}"
