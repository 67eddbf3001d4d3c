"""What EdgeViT builds for: one profile for each family of devices, in ``export/targets/``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit import processor, resources, toml, versions
from edgevit.backends import check_settings
from edgevit.backends.base import BatchProfile, BuildOptions, ComputeCapability
from edgevit.backends.pixels import PIXELS
from edgevit.backends.tensorrt.limits import FP8_COMPUTE_CAPABILITY, NO_DLA, has_fp8
from edgevit.bundle.manifest import Precision
from edgevit.errors import BundleError, InputError
from edgevit.likeness import devices_like, nearest
from edgevit.system import cpuinfo
from edgevit.toml import FieldError

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Dialect = Literal["onnxruntime", "openvino", "portable", "tensorrt", "tensorrt-legacy"]
#: No backend runs on a DLA; it is known here so that the reason is told.
Device = Literal["CPU", "GPU", "NPU", "DLA"]
#: Processors, as Linux calls them.
Machine = Literal["x86_64", "aarch64"]
#: What macOS and Windows call the same.
_SAME_MACHINE = {"arm64": "aarch64", "amd64": "x86_64"}

#: The one that can be written in FP8.
FLOAT8_DIALECT: Dialect = "tensorrt"

#: What x86 processors call instructions that multiply 8-bit integers and add up in 32 bits.
_VNNI = frozenset(("avx512_vnni", "avx_vnni"))
_OR = "|"  # between the values that a setting may take

_EditionName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.]*\Z", max_length=32)]
_Megabytes = Annotated[int, msgspec.Meta(ge=64, le=1 << 20)]


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a profile and the target that it describes share; ``Target`` says what it means."""

    description: str
    backend: BackendName
    precisions: Annotated[tuple[Precision, ...], msgspec.Meta(min_length=1)]
    why: str
    device: Device = "CPU"
    machines: Annotated[tuple[Machine, ...], msgspec.Meta(min_length=1)] = ("x86_64", "aarch64")
    attention: Literal["float", "quantized"] = "float"
    weight_bits: Literal["auto", 7, 8] = "auto"
    settings: dict[str, str] = {}
    settings_of: dict[Precision, dict[str, str]] = {}
    versions: str | None = None
    compute_capability: ComputeCapability | None = None
    workspace_mb: _Megabytes | None = None
    batch: BatchProfile | None = None


class Target(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of devices.

    ``precisions`` are those that can be made for it, in the order to try them. ``dialect`` is the form of Q/DQ nodes
    that reaches the backend's integer kernels; ``attention`` quantized puts the products of attention there too.
    ``device`` is which of the computer's it runs on, ``machines`` are the
    processors that such computers have. ``weight_bits`` is 7 where 8 would overflow: on x86 processors without VNNI;
    "auto" looks at the one that EdgeViT runs on. ``settings`` are what the backend is opened with, for every precision
    alike, and ``settings_of`` what one precision needs beside them; ``f32|bf16`` leaves it to a race between both when
    the variant is built (``stages.tuning``). ``versions`` are those of the engine that serve the
    device, as in PEP 440 (``>=10.3,<10.4``); ``compute_capability`` is an NVIDIA GPU's, such as 8.7; ``workspace_mb``
    is how much memory a build may take, in MiB; ``batch`` is what the variant is built for. ``why`` says where these
    choices come from.
    """

    dialect: Dialect

    def build_options(self, precision: Precision) -> BuildOptions:
        """Return what the backend must know to build ``precision`` for this device."""
        return BuildOptions(
            settings=self.settings_for(precision),
            batch=self.batch,
            compute_capability=self.compute_capability,
            workspace_mb=self.workspace_mb,
            precision=precision,
        )

    def settings_for(self, precision: Precision) -> dict[str, str]:
        """Return what the backend is opened with for ``precision``; what is left open takes its first value."""
        return self.choices_for(precision)[0]

    def choices_for(self, precision: Precision) -> list[dict[str, str]]:
        """Return all settings that ``precision`` may have, the preferred ones first."""
        device = {"DEVICE": self.device} if self.backend == "openvino" and self.device != "CPU" else {}
        settings = device | self.settings | self.settings_of.get(precision, {})
        values = itertools.product(*(value.split(_OR) for value in settings.values()))
        return [dict(zip(settings, chosen, strict=True)) for chosen in values]

    def variant_of(self, precision: Precision) -> str:
        """Return what a variant for this target is called.

        What differs in its files or settings is in the name: a device, a kind of GPU, uint8 pixels as input.
        """
        device = f"-{self.device.lower()}" if self.backend == "openvino" and self.device != "CPU" else ""
        gpu = f"-sm{self.compute_capability.replace('.', '')}" if self.compute_capability else ""
        form = self.backend if self.backend == "tensorrt-rtx" else self.dialect
        pixels = "-uint8" if self.settings_for(precision).get("INPUT") == PIXELS else ""
        return f"{precision}-{form}{device}{gpu}{pixels}"

    def weight_bits_on(self, root: Path = Path("/")) -> Literal[7, 8]:
        """Return how many bits INT8 weights take on this machine's processor, 8 if it is none of x86's.

        ``root`` is where the system's own files lie.
        """
        if self.weight_bits != "auto":
            return self.weight_bits
        flags = processor.field(cpuinfo(root), "flags").split()
        return 8 if not flags or _VNNI.intersection(flags) else 7


class Edition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release of a device's software, or one of several processors or GPUs: what it sets takes the profile's place.

    It is reached as ``TARGET@NAME``, by any of its ``names``.
    """

    names: Annotated[tuple[_EditionName, ...], msgspec.Meta(min_length=1)]
    description: str
    dialect: Dialect | None = None
    precisions: Annotated[tuple[Precision, ...], msgspec.Meta(min_length=1)] | None = None
    versions: str | None = None
    compute_capability: ComputeCapability | None = None
    machines: Annotated[tuple[Machine, ...], msgspec.Meta(min_length=1)] | None = None
    weight_bits: Literal[7, 8] | None = None


class Profile(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in ``export/targets/``: a target, or what several ``editions`` of one have in common.

    The first edition is the one that is meant by the target's name alone.
    """

    dialect: Dialect | None = None
    editions: tuple[Edition, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        for index, edition in enumerate(self.editions or (None,)):
            if (edition is None or edition.dialect is None) and self.dialect is None:
                raise FieldError("backend", "the key 'dialect' is missing: which form of the model the backend takes")
            for field, problem in _contradictions(self.target(edition)):
                own = edition is not None and getattr(edition, field, None) is not None
                raise FieldError(f"editions[{index}].{field}" if own else field, problem)

    def target(self, edition: Edition | None = None) -> Target:
        """Return the target that ``edition`` is, one of ``editions``, or without any the profile itself."""
        fields = {name: getattr(self, name) for name in Target.__struct_fields__}
        if edition is not None:
            changed = msgspec.structs.asdict(edition) | {"description": f"{self.description}; {edition.description}"}
            fields |= {name: changed[name] for name in fields if changed.get(name) is not None}
        return Target(**fields)

    def edition(self, name: str | None) -> Edition | None:
        """Return the edition of that name, the first one for None; None where there is no such edition."""
        return next((each for each in self.editions if name is None or name in each.names), None)

    def edition_names(self) -> list[str]:
        """Return the names of all editions."""
        return [name for edition in self.editions for name in edition.names]

    def _check_names(self) -> None:
        seen: set[str] = set()
        for index, edition in enumerate(self.editions):
            if twice := seen.intersection(edition.names):
                raise FieldError(f"editions[{index}].names", f"there are two editions '{min(twice)}'")
            seen.update(edition.names)


_OF_ONNX: tuple[Precision, ...] = ("float32", "fp16", "int8", "int8-dynamic", "int8-weights", "int4-weights")
_OF_TENSORRT: tuple[Precision, ...] = ("fp16", "int8", "fp8")


class _Abilities(msgspec.Struct, frozen=True):
    """What can be asked of a backend."""

    dialects: tuple[Dialect, ...]
    precisions: tuple[Precision, ...]
    devices: tuple[Device, ...]


_ABILITIES: Mapping[BackendName, _Abilities] = {
    "onnxruntime": _Abilities(("onnxruntime", "portable"), _OF_ONNX, ("CPU",)),
    "openvino": _Abilities(("openvino", "portable"), _OF_ONNX, ("CPU", "GPU", "NPU")),
    "tensorrt": _Abilities(("tensorrt", "tensorrt-legacy"), _OF_TENSORRT, ("GPU",)),
    "tensorrt-rtx": _Abilities(("tensorrt",), _OF_TENSORRT, ("GPU",)),
}

#: Of the two dialects for TensorRT, releases that each is not for: float16 scales are read since 10.12.
_NOT_FOR: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("8.5", "8.6", "9.0", "10.0", "10.3", "10.7", "10.11"),
    "tensorrt-legacy": ("8.5", "10.12", "10.13", "10.16", "11.0", "12.0"),
}


def _contradictions(target: Target) -> Iterator[tuple[str, str]]:
    """Yield the fields whose values contradict others, and how."""
    able, backend = _ABILITIES[target.backend], target.backend
    if target.dialect not in able.dialects:
        yield "dialect", f"{backend} does not take '{target.dialect}': use {' or '.join(able.dialects)}"
    if target.device == "DLA":
        yield "device", f'{NO_DLA}: use device = "{able.devices[0]}"'
    elif target.device not in able.devices:
        yield "device", f'{backend} runs on no {target.device}: use device = "{able.devices[0]}"'
    for precision in target.precisions:
        if precision not in able.precisions:
            yield "precisions", f"{backend} cannot have {precision}: use {', '.join(able.precisions)}"
    if len(set(target.precisions)) < len(target.precisions):
        yield "precisions", "a precision is named twice"
    for precision in target.settings_of.keys() - set(target.precisions):
        yield "settings_of", f"settings for {precision}, which is not one of the precisions"
    if "fp8" in target.precisions and target.backend.startswith("tensorrt"):
        yield from _fp8_contradictions(target)
    yield from _device_contradictions(target)
    yield from _setting_contradictions(target)
    yield from _version_contradictions(target)


def _fp8_contradictions(target: Target) -> Iterator[tuple[str, str]]:
    if target.dialect != "tensorrt":
        yield "precisions", f"fp8 is for the dialect tensorrt, not {target.dialect}"
    capability = target.compute_capability
    if capability is not None and not has_fp8(capability):
        yield "precisions", f"fp8 needs compute capability {FP8_COMPUTE_CAPABILITY} or later, not {capability}"


def _device_contradictions(target: Target) -> Iterator[tuple[str, str]]:
    named = target.settings.get("DEVICE", target.device)
    if named.partition(".")[0] != target.device:
        yield "settings", f"the setting DEVICE is {named}, and the key device {target.device}: make both the same"
    if target.weight_bits == "auto" and (target.device != "CPU" or "x86_64" not in target.machines):
        yield "weight_bits", '"auto" looks at an x86 processor: write 8'
    if target.compute_capability and not target.backend.startswith("tensorrt"):
        yield "compute_capability", f"{target.backend} does not run on an NVIDIA GPU"
    if target.device == "NPU" and target.batch is not None and target.batch.min != target.batch.max:
        yield "batch", "an NPU takes one number of images only: make min and max the same"


def _setting_contradictions(target: Target) -> Iterator[tuple[str, str]]:
    """Yield the settings that the engine does not have, or not with one of their values."""
    places = {"settings": target.settings, **{f"settings_of.{name}": each for name, each in target.settings_of.items()}}
    for place, settings in places.items():
        for name, values in settings.items():
            if problem := _setting_problem(target.backend, name, values):
                yield f"{place}.{name}", problem


def _setting_problem(backend: BackendName, name: str, values: str) -> str | None:
    try:
        for value in values.split(_OR):
            check_settings(backend, {name: value})
    except BundleError as error:
        return f"{error.message}: {error.remedy}"
    return None


def _version_contradictions(target: Target) -> Iterator[tuple[str, str]]:
    if target.versions is None:
        return
    if problem := versions.problem_of(target.versions):
        yield "versions", problem
    elif target.backend == "tensorrt":
        for release in _NOT_FOR.get(target.dialect, ()):
            if versions.within(release, target.versions):
                limit = "10.12 and later" if target.dialect == "tensorrt" else "8.6 to 10.11"
                yield "versions", f"dialect '{target.dialect}' is for TensorRT {limit}, and this has {release} in it"


def _place() -> Path:
    return resources.folder("export") / "targets"


def target_names() -> list[str]:
    """Return the names of the targets that come with EdgeViT, without those of their editions."""
    return resources.names(_place())


def load_profile(name: str) -> Profile:
    """Return the profile called ``name``, or the one in the TOML file whose path ``name`` is.

    Raises:
        InputError: if there is none, or it is not valid; the message names the file, the line and the key.

    """
    if not name.endswith(".toml") and name not in target_names() and (close := _meant(name)):
        raise InputError(f"there is no target '{name}'", remedy=f"use {' or '.join(close)}; edgevit targets lists all")
    return toml.read_named("target", _place(), name, Profile)


def _meant(name: str) -> list[str]:
    """Return the targets that ``name``, which is none, may stand for."""
    profiles = {each: load_profile(each) for each in target_names()}
    described = {each: f"{each} {profile.description}" for each, profile in profiles.items()}
    for each, profile in profiles.items():
        described |= {
            f"{each}@{edition.names[0]}": f"{edition.description} {' '.join(edition.names)}"
            for edition in profile.editions
        }
    found = devices_like(name, described)
    meant: dict[str, None] = {}
    for base, profile in profiles.items():
        editions = [each for each in found if each.startswith(f"{base}@")]
        if len(editions) == 1 and editions[0].partition("@")[2] not in profile.editions[0].names:
            meant[editions[0]] = None
        elif editions or base in found:
            meant[base] = None
    return list(meant)


def load_target(name: str) -> Target:
    """Return the target called ``name``, an edition of it (``NAME@EDITION``), or the one in a TOML file (its path).

    Raises:
        InputError: if there is none, or its profile is not valid; the message names the file, the line and the key.

    """
    base, wanted = split_name(name)
    profile = load_profile(base)
    edition = profile.edition(wanted)
    if wanted is not None and edition is None:
        known = [f"{base}@{each}" for each in profile.edition_names()]
        raise InputError(f"target {base} has no edition '{wanted}'", remedy=nearest(name, known or [base]))
    return profile.target(edition)


def edition_for(base: str, version: str) -> str | None:
    """Return the name of the target of the profile ``base`` that a ``version`` of its engine serves; None if none."""
    profile = load_profile(base)
    for edition in profile.editions:
        serving = profile.target(edition).versions
        if serving is None or versions.within(version, serving):
            return base if edition is profile.editions[0] else f"{base}@{edition.names[0]}"
    return None


def split_name(name: str) -> tuple[str, str | None]:
    """Return the profile's name, or path, and the edition's, if the target's ``name`` has one."""
    if name.endswith(".toml") or "@" not in name:
        return name, None
    base, _, edition = name.rpartition("@")
    return base, edition


def same_machine(machine: str) -> str:
    """Return what Linux calls a processor that another system calls ``machine``."""
    return _SAME_MACHINE.get(machine.lower(), machine)


def own_targets(machine: str) -> dict[str, Target]:
    """Return the targets for the processor of a machine that calls itself ``machine``, one for each of its engines."""
    every = {name: load_target(name) for name in target_names()}
    return {
        name: target
        for name, target in every.items()
        if target.device == "CPU" and same_machine(machine) in target.machines and target.dialect == target.backend
    }
