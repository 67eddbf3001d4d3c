"""What a benchmark notes beside the times: the machine, energy, the warm-up, and other ways to load a variant."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgevit.bundle.scalars import Count, Name, Quantity, Rate, Reason, Signed

_Three = tuple[Quantity, Quantity, Quantity]


class GpuState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an NVIDIA GPU did during the blocks that count: as ``MachineState``, and watts at the median."""

    name: Name
    clock_mhz: _Three | None = None
    temperature_c: tuple[Signed, Signed] | None = None
    power_w: Quantity | None = None
    throttle_reasons: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()


class MachineState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the machine did while it was measured; None for what the system does not tell.

    ``clock_mhz`` are least, median and most of the fastest core's clock, seen right after each block of the run,
    ``core_clocks_mhz`` the median of each core that may be used;
    ``temperature_c`` is the hottest sensor's at the start and at the most. ``throttled`` says whether something held
    the clocks down, ``throttle_reasons`` what. ``other_load`` and ``steal`` are the shares of the usable cores' time
    that other processes and the hypervisor took in the rounds that count. Of ``rounds`` that were measured,
    ``dropped`` were disturbed and do not count, for ``dropped_reasons``.
    """

    clock_mhz: _Three | None = None
    core_clocks_mhz: Annotated[tuple[Quantity, ...], msgspec.Meta(max_length=1024)] = ()
    temperature_c: tuple[Signed, Signed] | None = None
    governor: Name | None = None
    power_mode: Name | None = None
    throttled: bool | None = None
    throttle_reasons: Annotated[tuple[Reason, ...], msgspec.Meta(max_length=16)] = ()
    other_load: Rate | None = None
    steal: Rate | None = None
    on_battery: bool | None = None
    gpus: Annotated[tuple[GpuState, ...], msgspec.Meta(max_length=16)] = ()
    rounds: Count = 0
    dropped: Count = 0
    dropped_reasons: Annotated[tuple[Reason, ...], msgspec.Meta(max_length=16)] = ()


class Energy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Millijoules per inference, of a whole batch, above what the idle machine takes; with the 95 % interval.

    ``source`` is the sensor, ``covers`` what it measures, ``idle_w`` what it showed while the loaded workers slept,
    ``load_w`` the mean of the blocks, idle power included. ``blocks`` is how many the interval is of.
    """

    mj: Signed
    mj_ci95: tuple[Signed, Signed]
    source: Reason
    covers: Name
    idle_w: Quantity
    load_w: Quantity
    blocks: Count


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inferences before the first that counts, their seconds, and whether they got ``steady`` by ``method``."""

    inferences: Count
    seconds: Quantity
    steady: bool
    method: Reason


class EndToEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds from the bytes of one JPEG to the logits, through the runtime's own preprocessing, one at a time.

    ``decode_ms``, ``prepare_ms`` (resize, crop, normalise) and ``model_ms`` are medians of the parts. ``image`` says
    what the JPEG was.
    """

    image: Name
    images: Count
    p50_ms: Quantity
    p90_ms: Quantity
    p99_ms: Quantity
    decode_ms: Quantity
    prepare_ms: Quantity
    model_ms: Quantity


class Transfers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds of one inference on a GPU, by its own clock: copies to it, computing, copies back; medians."""

    to_device_ms: Quantity
    compute_ms: Quantity
    to_host_ms: Quantity


class LoadPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant does under one load: ``streams`` of batches, each stream waiting for its answer.

    ``throughput_ips`` is images per second of all streams together; the latencies are of one batch.
    """

    batch: Count
    streams: Count
    throughput_ips: Quantity
    p50_ms: Quantity
    p99_ms: Quantity


class Sweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Throughput over batch and streams. A stream is a thread or a process, as ``streams_are`` says.

    ``threads`` is how many of the engine's each stream may use. The ``knee`` is the smallest load from which doubling
    the load again gains less than ``min_gain`` of throughput; None where the largest that was tried still gained.
    ``invalid_reason`` says what disturbed the machine, or what ended the sweep early.
    """

    streams_are: Literal["threads", "processes"]
    threads: Count
    min_gain: Rate
    points: Annotated[tuple[LoadPoint, ...], msgspec.Meta(max_length=256)]
    knee: LoadPoint | None = None
    valid: bool = True
    invalid_reason: Reason | None = None
