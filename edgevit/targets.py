"""What EdgeViT builds for: one profile for each family of devices, in ``export/targets/``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit import processor, resources, toml, versions
from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.backend import Backend
from edgevit.backends.base import NO_DLA, BatchProfile, BuildOptions, ComputeCapability
from edgevit.backends.pixels import PIXELS
from edgevit.bundle.manifest import Precision
from edgevit.errors import BundleError, InputError
from edgevit.likeness import devices_like, nearest
from edgevit.system import cpuinfo
from edgevit.toml import FieldError, unknown_value

#: No backend runs on a DLA; it is known here so that the reason is told.
TargetDevice = Literal["CPU", "GPU", "NPU", "DLA"]
#: Processors, as Linux calls them.
Architecture = Literal["x86_64", "aarch64"]
#: What macOS and Windows call the same.
_SAME_MACHINE = {"arm64": "aarch64", "amd64": "x86_64"}

#: What x86 processors call instructions that multiply 8-bit integers and add up in 32 bits.
_VNNI = frozenset(("avx512_vnni", "avx_vnni"))
_OR = "|"  # between the values that a setting may take

_EditionName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.]*\Z", max_length=32)]
_Megabytes = Annotated[int, msgspec.Meta(ge=64, le=1 << 20)]


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a profile and the target that it describes share; ``Target`` says what it means."""

    description: str
    backend: str
    precisions: Annotated[tuple[Precision, ...], msgspec.Meta(min_length=1)]
    why: str
    device: TargetDevice = "CPU"
    machines: Annotated[tuple[Architecture, ...], msgspec.Meta(min_length=1)] = ("x86_64", "aarch64")
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
    the variant is built (``stages.settings_race``). ``versions`` are those of the engine that serve the
    device, as in PEP 440 (``>=10.3,<10.4``); ``compute_capability`` is an NVIDIA GPU's, such as 8.7; ``workspace_mb``
    is how much memory a build may take, in MiB; ``batch`` is what the variant is built for. ``why`` says where these
    choices come from.
    """

    dialect: str

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
        device = backend_class(self.backend).device_settings(self.device)
        settings = device | self.settings | self.settings_of.get(precision, {})
        values = itertools.product(*(value.split(_OR) for value in settings.values()))
        return [dict(zip(settings, chosen, strict=True)) for chosen in values]

    def variant_of(self, precision: Precision) -> str:
        """Return what a variant for this target is called.

        What differs in its files or settings is in the name: a device, a kind of GPU, uint8 pixels as input.
        """
        backend = backend_class(self.backend)
        device = "" if self.device == backend.devices[0] else f"-{self.device.lower()}"
        gpu = f"-sm{self.compute_capability.replace('.', '')}" if self.compute_capability else ""
        form = self.dialect if backend.name in backend.dialects else backend.name  # which has none of its own
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
    dialect: str | None = None
    precisions: Annotated[tuple[Precision, ...], msgspec.Meta(min_length=1)] | None = None
    versions: str | None = None
    compute_capability: ComputeCapability | None = None
    machines: Annotated[tuple[Architecture, ...], msgspec.Meta(min_length=1)] | None = None
    weight_bits: Literal[7, 8] | None = None


class Profile(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in ``export/targets/``: a target, or what several ``editions`` of one have in common.

    The first edition is the one that is meant by the target's name alone.
    """

    dialect: str | None = None
    editions: tuple[Edition, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        if self.backend not in BACKENDS:
            raise unknown_value("backend", self.backend, list(BACKENDS), {})
        for index, edition in enumerate(self.editions or (None,)):
            if (edition is None or edition.dialect is None) and self.dialect is None:
                raise FieldError("backend", "the key 'dialect' is missing: which form of the model the backend takes")
            target = self.target(edition)
            for field, reason in _contradictions(target):
                own = edition is not None and getattr(edition, field, None) is not None
                place = f"editions[{index}].{field}" if own else field
                if field == "dialect" and target.dialect not in (known := _dialects()):
                    raise unknown_value(place, target.dialect, known, {})
                raise FieldError(place, reason)

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


def _dialects() -> list[str]:
    """Return the names of all dialects that any backend takes."""
    return sorted({dialect for name in BACKENDS for dialect in backend_class(name).dialects})


def _contradictions(target: Target) -> Iterator[tuple[str, str]]:
    """Yield the keys whose values contradict others, and how."""
    backend = backend_class(target.backend)
    if target.dialect not in backend.dialects:
        yield "dialect", f"{backend.name} does not take '{target.dialect}': use {' or '.join(backend.dialects)}"
    if target.device == "DLA":
        yield "device", f'{NO_DLA}: use device = "{backend.devices[0]}"'
    elif target.device not in backend.devices:
        yield "device", f'{backend.name} runs on no {target.device}: use device = "{backend.devices[0]}"'
    for precision in target.precisions:
        if precision not in backend.precisions:
            yield "precisions", f"{backend.name} cannot have {precision}: use {', '.join(backend.precisions)}"
    if len(set(target.precisions)) < len(target.precisions):
        yield "precisions", "a precision is named twice"
    for precision in target.settings_of.keys() - set(target.precisions):
        yield "settings_of", f"settings for {precision}, which is not one of the precisions"
    yield from _device_contradictions(target)
    yield from _setting_contradictions(target, backend)
    if target.versions is not None and (reason := versions.range_reason(target.versions)):
        yield "versions", reason
    yield from backend.contradictions(target)


def _device_contradictions(target: Target) -> Iterator[tuple[str, str]]:
    named = target.settings.get("DEVICE", target.device)
    if named.partition(".")[0] != target.device:
        yield "settings", f"the setting DEVICE is {named}, and the key device {target.device}: make both the same"
    if target.weight_bits == "auto" and (target.device != "CPU" or "x86_64" not in target.machines):
        yield "weight_bits", '"auto" looks at an x86 processor: write 8'
    if target.device == "NPU" and target.batch is not None and target.batch.min != target.batch.max:
        yield "batch", "an NPU takes one number of images only: make min and max the same"


def _setting_contradictions(target: Target, backend: type[Backend]) -> Iterator[tuple[str, str]]:
    """Yield the settings that the engine does not have, or not with one of their values."""
    places = {"settings": target.settings, **{f"settings_of.{name}": each for name, each in target.settings_of.items()}}
    for place, settings in places.items():
        for name, values in settings.items():
            if reason := _setting_reason(backend, name, values):
                yield f"{place}.{name}", reason


def _setting_reason(backend: type[Backend], name: str, values: str) -> str | None:
    """Return why ``backend`` cannot be given one of the ``values`` of the setting ``name``; None if it can."""
    try:
        for value in values.split(_OR):
            backend.check_settings({name: value})
    except BundleError as error:
        return f"{error.message}: {error.remedy}"
    return None


def _place() -> Path:
    return resources.folder("export") / "targets"


def target_names() -> list[str]:
    """Return the names of the targets that come with EdgeViT, without those of their editions."""
    return resources.toml_names(_place())


def load_profile(name: str) -> Profile:
    """Return the profile called ``name``, or the one in the TOML file whose path ``name`` is.

    Raises:
        InputError: if there is none, or it is not valid; the message names the file, the line and the key.

    """
    if not name.endswith(".toml") and name not in target_names() and (close := _meant(name)):
        raise InputError(f"there is no target '{name}'", remedy=f"use {' or '.join(close)}; edgevit targets lists all")
    return (
        toml.read_named("target", _place(), name, Profile) if name.endswith(".toml") else _own_profile(_place(), name)
    )


@cache
def _own_profile(place: Path, name: str) -> Profile:
    """Return a profile that comes with EdgeViT, which is read once."""
    return toml.read_named("target", place, name, Profile)


def _meant(name: str) -> list[str]:
    """Return the targets that ``name``, which is none, may stand for."""
    profiles = {each: load_profile(each) for each in target_names()}
    described = {each: f"{each} {profile.description}" for each, profile in profiles.items()}
    for each, profile in profiles.items():
        described |= {
            f"{each}@{edition.names[0]}": f"{edition.description} {' '.join(edition.names)}"
            for edition in profile.editions
        }
    nicknames = {each: backend for backend in BACKENDS for each in backend_class(backend).nicknames}
    found = devices_like(name, described, nicknames)
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
        if serving is None or versions.in_range(version, serving):
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


def other_machine_reason(target: Target, machine: str) -> str | None:
    """Return why ``target`` is not a machine that calls its processor ``machine``; None if it may be."""
    if same_machine(machine) in target.machines:
        return None
    return f"it is for {' or '.join(target.machines)}, and this is {machine}"


def own_targets(machine: str) -> dict[str, Target]:
    """Return the targets for the processor of a machine that calls itself ``machine``, one for each of its engines."""
    every = {name: load_target(name) for name in target_names()}
    return {
        name: target for name, target in every.items() if _is_own(target) and same_machine(machine) in target.machines
    }


def target_of_dialect(dialect: str) -> str:
    """Return the name of the target that stands for ``dialect``: the one called so, or the first for processors.

    Raises:
        InputError: if none of the targets that come with EdgeViT has it.

    """
    names = target_names()
    if dialect in names:
        return dialect
    every = {name: load_target(name) for name in names}
    found = next((name for name, target in every.items() if target.dialect == dialect and _is_own(target)), None)
    if found is None:
        raise InputError(
            f"no target that comes with EdgeViT has the dialect '{dialect}'",
            remedy="write one as a TOML file, and name it: edgevit build BUNDLE --target TARGET.toml",
        )
    return found


def float8_dialect() -> str:
    """Return the dialect that has a form in FP8."""
    backends = (backend_class(name) for name in BACKENDS)
    return next(backend.dialects[0] for backend in backends if "fp8" in backend.precisions)


def _is_own(target: Target) -> bool:
    """Say whether ``target`` is a processor, in the dialect that is its engine's own."""
    return target.device == "CPU" and target.dialect == backend_class(target.backend).dialects[0]
