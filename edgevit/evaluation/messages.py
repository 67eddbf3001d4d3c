"""The messages between a benchmark and its workers."""

from __future__ import annotations

import msgspec

from edgevit.data.preprocess import Preprocess


class BenchmarkJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What to open, and what to feed it: random-normal images (B, C, H, W).

    ``spawned_ns`` is the parent's monotonic clock just before this process was started; the clock is the same in all
    processes of a machine. Warming up takes ``warmup`` inferences, and more until they are steady, for ``warmup_s``
    seconds at the most.
    """

    backend: str
    model: str
    settings: dict[str, str]
    threads: int
    shape: tuple[int, int, int, int]
    seed: int
    warmup: int
    spawned_ns: int
    warmup_s: float = 0.0


class TimedBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Inferences to run one after the other: first ``warmup`` unrecorded ones, then ``inferences``."""

    warmup: int
    inferences: int


class StreamsBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Batches of ``batch`` images for ``seconds``, in so many ``streams`` at once: threads that share the model."""

    batch: int
    streams: int
    seconds: float


class EndToEndBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Answers to the bytes of one image file for ``seconds``, from decoding to the logits, one after the other."""

    picture: bytes
    preprocess: Preprocess
    seconds: float


#: What a worker can be asked for once its model is open.
BlockRequest = TimedBlock | StreamsBlock | EndToEndBlock


class Opened(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The model is ready and warm; ``warmup_ns`` are the times of the inferences after the first.

    ``load_ms`` is what opening the file took, ``first_ms`` the first inference; ``cold_start_ms`` is from the start of
    the process to the end of that. ``largest_batch`` is how many images it computes at once; None where it takes any.
    """

    cold_start_ms: float
    load_ms: float
    first_ms: float
    warmup_ns: list[int]
    steady: bool
    largest_batch: int | None


class Timings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The time of each recorded inference, and the most memory that the process ever had resident, in MiB.

    They began at ``started_ns`` and ended at ``ended_ns`` of the system's monotonic clock.
    """

    inference_ns: list[int]
    rss_mb: float
    started_ns: int
    ended_ns: int


class StreamTimings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The time of each inference of all streams."""

    inference_ns: list[int]


class EndToEndTimings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The time of each part of each answer: decoding, resizing and normalising, the model."""

    decode_ns: list[int]
    prepare_ns: list[int]
    model_ns: list[int]


class Failed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The backend or the file cannot be used."""

    message: str


#: What a worker answers.
WorkerReply = Opened | Timings | StreamTimings | EndToEndTimings | Failed
