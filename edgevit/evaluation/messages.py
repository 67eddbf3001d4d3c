"""The messages between a benchmark and its workers."""

from __future__ import annotations

import msgspec


class BenchmarkJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What to open, and what to feed it: random-normal images (B, C, H, W).

    ``spawned_ns`` is the parent's monotonic clock just before this process was started; the clock is the same in all
    processes of a machine.
    """

    backend: str
    model: str
    settings: dict[str, str]
    threads: int
    shape: tuple[int, int, int, int]
    seed: int
    warmup: int
    spawned_ns: int


class TimedBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Inferences to run one after the other: first ``warmup`` unrecorded ones, then ``inferences``."""

    warmup: int
    inferences: int


class Opened(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The model is ready and warm; ``warmup_ns`` are the times of the inferences after the first."""

    cold_start_ms: float
    warmup_ns: list[int]


class Timings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The time of each recorded inference, and the most memory that the process ever had resident, in MiB."""

    inference_ns: list[int]
    rss_mb: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The backend or the file cannot be used."""

    message: str
