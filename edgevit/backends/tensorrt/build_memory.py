"""How much memory a build takes, said before it starts, and how much of it is workspace."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.errors import MissingError

_MIB = 1 << 20
_LEAST_WORKSPACE_MB = 64
_USUAL_WORKSPACE_MB = 1024
#: MiB that the library takes, and how often a build holds the model's file: what TensorRT-RTX 1.7.1 took at the most
#: for six models of 0.1 to 173 MB, by `python benchmarks/tensorrt_build.py`.
_LIBRARY_MB = 360
_COPIES_OF_MODEL = 3
#: What CUDA's context and the kernels that are tried take on top, where there is a GPU: an allowance, not measured.
_CUDA_MB = 512


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a build may take, in MiB: ``workspace_mb`` of ``total_mb``; ``free_mb`` is None where it is not known."""

    workspace_mb: int
    total_mb: int
    free_mb: int | None

    def sentence(self) -> str:
        """Return it in words."""
        free = "" if self.free_mb is None else f"; {self.free_mb:,} MiB are free"
        workspace = f", {self.workspace_mb:,} of them workspace" if self.workspace_mb else ""
        return f"it may take about {self.total_mb:,} MiB of memory{workspace}{free}"


def plan_memory(model_bytes: int, wanted_mb: int | None, free_mb: int | None) -> MemoryPlan:
    """Return what building a model of ``model_bytes`` takes, with the workspace that is ``wanted_mb``, or what fits.

    Raises:
        MissingError: if so much is not free.

    """
    rest = _CUDA_MB + _needed_mb(model_bytes)
    workspace = wanted_mb or _USUAL_WORKSPACE_MB
    if free_mb is not None:
        fits = free_mb - rest
        if fits < _LEAST_WORKSPACE_MB:
            raise MissingError(
                f"building takes about {rest + _LEAST_WORKSPACE_MB:,} MiB of memory, and {free_mb:,} are free",
                remedy="close other programs (on a Jetson the desktop: sudo systemctl isolate multi-user.target), "
                "or add swap space",
            )
        workspace = min(workspace, fits)
    return MemoryPlan(workspace, rest + workspace, free_mb)


def plan_elsewhere(model_bytes: int, free_mb: int | None) -> MemoryPlan:
    """Return what compiling for another machine's GPU takes here: no workspace, which is that GPU's."""
    return MemoryPlan(0, _needed_mb(model_bytes), free_mb)


def _needed_mb(model_bytes: int) -> int:
    return _LIBRARY_MB + _COPIES_OF_MODEL * model_bytes // _MIB
