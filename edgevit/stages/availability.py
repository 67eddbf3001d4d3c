"""From what engines have shown on this machine to what can be made and run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from edgevit.backends import REFERENCE, backend_class
from edgevit.backends.probes import Finding
from edgevit.stages.engines import other_version
from edgevit.targets import Profile, Target, other_machine_reason
from edgevit.versions import in_range

#: What commands need: the extras, and the engine that float32 runs in, as pyproject.toml's extras have it.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "export": ("train", REFERENCE),
    "quantize, build": ("quantize", REFERENCE),
    "pipeline": ("train", "quantize", REFERENCE, "report"),
    "report": ("report",),
}
_BUILD = "quantize, build"

#: "onnx": EdgeViT writes the file from which the engine is built on the device.
Build = Literal["yes", "onnx", "no"]


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether commands have what they need; if not, what is missing and what to type."""

    name: str
    works: bool
    problem: str | None = None
    remedy: str | None = None


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a target can be built for, and run, on this machine.

    ``name`` has an edition where another than the first serves this machine better. ``problem`` says why it does not
    run, or is not built; ``remedy`` what to do.
    """

    name: str
    build: Build
    run: bool
    problem: str | None = None
    remedy: str | None = None


class _Unavailability(msgspec.Struct, frozen=True):
    problem: str
    remedy: str


def command_abilities(findings: Sequence[Finding]) -> tuple[Ability, ...]:
    """Return which commands work."""
    found = {finding.name: finding for finding in findings}
    return tuple(_ability(name, [found[need] for need in needs]) for name, needs in _NEEDS.items())


def _ability(name: str, needs: Sequence[Finding]) -> Ability:
    missing = [finding for finding in needs if not finding.runs]
    if not missing:
        return Ability(name=name, works=True)
    return Ability(name=name, works=False, problem=missing[0].problem, remedy=missing[0].remedy)


def target_availabilities(
    profiles: Mapping[str, Profile], findings: Sequence[Finding], commands: Sequence[Ability], machine: str
) -> tuple[Availability, ...]:
    """Return for each target, in the edition that does best, whether it can be built and run on this machine."""
    verdicts = []
    for name, profile in profiles.items():
        editions = {name: profile.target(profile.edition(None))}
        editions |= {f"{name}@{edition.names[0]}": profile.target(edition) for edition in profile.editions[1:]}
        each = [target_availability(full, target, findings, commands, machine) for full, target in editions.items()]
        verdicts.append(max(each, key=lambda verdict: (verdict.run, verdict.build == "yes")))
    return tuple(verdicts)


def target_availability(
    name: str, target: Target, findings: Sequence[Finding], commands: Sequence[Ability], machine: str
) -> Availability:
    """Return whether the ``target`` that is called ``name`` can be built and run on this machine."""
    building = next(command for command in commands if command.name == _BUILD)
    engine = next((each for each in findings if (each.name, each.device) == (target.backend, target.device)), None)
    wrong = _engine_reason(name, target, engine)
    elsewhere = _machine_reason(target, machine)
    here = None if engine is None or engine.runs else _Unavailability(engine.problem or "", engine.remedy or "")
    wrong_gpu = _gpu_reason(target, engine)
    running = elsewhere or wrong or here or wrong_gpu
    build: Build = "yes"
    lacking = None if building.works else _Unavailability(building.problem or "", building.remedy or "")
    if lacking:
        build = "no"
    elif backend_class(target.backend).builds_on_device and not _builds(target, engine, wrong_gpu):
        build = "onnx"
    elif wrong or not _builds(target, engine, wrong_gpu):
        build = "no"
    reason = running or lacking
    return Availability(
        name=name,
        build=build,
        run=running is None,
        problem=reason.problem if reason else None,
        remedy=reason.remedy if reason else None,
    )


def _builds(target: Target, engine: Finding | None, wrong_gpu: _Unavailability | None) -> bool:
    """Say whether the engine builds for the target here; some do for GPUs that are elsewhere."""
    return engine is not None and engine.builds and (backend_class(target.backend).cross_compiles or wrong_gpu is None)


def _machine_reason(target: Target, machine: str) -> _Unavailability | None:
    problem = other_machine_reason(target, machine)
    return None if problem is None else _Unavailability(problem, "copy the bundle to the device and run it there")


def _engine_reason(name: str, target: Target, engine: Finding | None) -> _Unavailability | None:
    if engine is None:
        return _Unavailability(f"{target.backend} was not tried on a {target.device}", "edgevit doctor")
    if engine.version and target.versions and not in_range(engine.version, target.versions):
        problem = f"it is for {target.backend} {target.versions}, and this is {engine.version}"
        return _Unavailability(problem, other_version(name, target, engine.version))
    return None


def _gpu_reason(target: Target, engine: Finding | None) -> _Unavailability | None:
    found = engine.compute_capability if engine else None
    if not target.compute_capability or not found or target.compute_capability == found:
        return None
    problem = f"it is for compute capability {target.compute_capability}, and this GPU has {found}"
    return _Unavailability(problem, "choose a target for this GPU, or go to the device")
