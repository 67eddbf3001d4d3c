"""One process, or several under torchrun that do the work of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgevit.errors import EdgeViTError, InputError
from edgevit.progress import SILENT, Progress

T = TypeVar("T")


class Processes(Protocol):
    """The processes that train together; this one is number ``rank`` of ``count`` and works on ``device``."""

    rank: int
    count: int
    device: torch.device

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the first process do ``work``; return what it gave, or raise what it raised, on all of them."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        ...

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return ``model`` with gradients that are the mean over all processes."""
        ...

    def without_exchange(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Keep gradients of a ``parallel`` model to this process while the context lasts."""
        ...

    def progress(self, progress: Progress) -> Progress:
        """Return ``progress`` on the first process, silence on the others."""
        ...


class Single:
    """The only process."""

    rank, count = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def on_main(self, work: Callable[[], T]) -> T:
        """Do ``work``."""
        return work()

    def total(self, values: Tensor) -> Tensor:
        """Return ``values``."""
        return values

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return ``model``."""
        return model

    def without_exchange(self, model: nn.Module) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Do nothing."""
        return nullcontext()

    def progress(self, progress: Progress) -> Progress:
        """Return ``progress``."""
        return progress


class Group:
    """One of the processes that torchrun started."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = distributed.get_rank()
        self.count = distributed.get_world_size()

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the first process do ``work``, and send the others what it gave."""
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = work()
            except EdgeViTError as error:
                outcome[1] = (type(error), error.message, error.remedy)
        distributed.broadcast_object_list(outcome, src=0)
        result, failure = outcome
        if failure is not None:
            kind, message, remedy = failure
            raise kind(message, remedy=remedy)
        return result

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        summed = values.to(self.device, copy=True)
        distributed.all_reduce(summed)
        return summed.to(values.device)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return ``model`` with gradients that are the mean over all processes."""
        return DistributedDataParallel(model, broadcast_buffers=False)

    def without_exchange(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Keep the gradients of ``model`` to this process while the context lasts."""
        assert isinstance(model, DistributedDataParallel)  # noqa: S101  # for mypy: ``parallel`` made it
        return model.no_sync()

    def progress(self, progress: Progress) -> Progress:
        """Return ``progress`` on the first process, silence on the others."""
        return progress if self.rank == 0 else SILENT


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """Yield the processes that this one trains with: those of torchrun, if it was started by it.

    Raises:
        InputError: if there is no such device, or torchrun's variables do not fit together.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Single(_device(device, 0))
        return
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the processes cannot find one another: {error}",
            remedy="start them with torchrun, with the same --nnodes and --rdzv-endpoint on each machine",
        ) from error
    try:
        yield Group(chosen)
    finally:
        distributed.destroy_process_group()


def is_main() -> bool:
    """Return whether this process is the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise InputError(f"there is no device '{name}'", remedy="use --device auto, cpu or cuda")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"process {local_rank} of this machine needs a GPU, and there are {torch.cuda.device_count()}",
            remedy="start no more processes than there are GPUs (--nproc-per-node), or use --device cpu",
        )
    return torch.device("cuda", local_rank)
