"""Takes a measurement to other devices: what goes there, and what the command there is given."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.api.arguments import names as strings
from edgevit.api.arguments import text
from edgevit.backends import REFERENCE, backend_class
from edgevit.bundle.manifest import MOST_DEVICES
from edgevit.bundle.pack import is_pack
from edgevit.bundle.reading import MANIFEST
from edgevit.bundle.store import Bundle
from edgevit.data.sources import BUILT_IN
from edgevit.errors import InputError
from edgevit.files import check_writable, scratch_folder
from edgevit.hosts.measuring import HostJob, RemoteStep
from edgevit.hosts.remembered import wanted
from edgevit.hosts.sending import Parcel, parcel
from edgevit.hosts.several import measure_on
from edgevit.hosts.shipment import (
    BUNDLE,
    CALIBRATION,
    IMAGES,
    INPUTS,
    Shipment,
    backends_of,
    built_there,
    bundle_parcels,
    image_parcels,
    listing_at,
    names_with_references,
)
from edgevit.hosts.wheel import write_wheel
from edgevit.progress import Progress
from edgevit.runtime.arguments import flag
from edgevit.stages.host_result import HostResult
from edgevit.stages.images import DataSource, LabelledBatches, several_labels
from edgevit.stages.precisions import NEED_IMAGES
from edgevit.stages.race import Race

#: What is on every board already, as it comes with EdgeViT or is computed.
_THERE = frozenset(BUILT_IN) - {"fashion-mnist"}
#: Of calibration images so many go along beside those that are calibrated with: some are kept apart to judge by.
_BESIDE = 1024
_ANY_MACHINE = ("x86_64", "aarch64")
#: What is not for the command there, or has its own way.
_HERE = frozenset(
    ("bundle", "hosts", "python", "keep", "progress", "root", "labels", "samples", "data", "calibration_data")
)
_OPTIONS = {"variants": "variant", "precisions": "precision", "token_budgets": "token_budget"}


@dataclass(frozen=True, slots=True)
class OnHosts:
    """Which hosts are to measure, as a caller gives them, with which Python, and whether what is put there stays."""

    hosts: tuple[str, ...]
    python: str | None
    keep: bool

    @classmethod
    def given(cls, hosts: Sequence[str], python: str | None, *, keep: bool) -> OnHosts | None:
        """Return what was given; None where this machine is to measure.

        Raises:
            InputError: if something is given that goes with hosts alone.
        """
        found, python, keep = strings("hosts", hosts), text("python", python), flag("keep", keep)
        if found:
            return cls(found, python, keep)
        if python is not None or keep:
            option = "--keep" if python is None else "--python"
            raise InputError(f"{option} goes with --host", remedy="add --host USER@HOST, or leave it out")
        return None


def on_hosts(
    step: RemoteStep,
    bundle: Bundle,
    where: OnHosts,
    given: Mapping[str, Any],
    *,
    images: DataSource | None = None,
    race: Race | None = None,
    progress: Progress,
) -> tuple[Bundle, tuple[HostResult, ...]]:
    """Run ``step`` on each host as it would run here, and return the bundle with its figures, and what came of each.

    ``given`` are the arguments of the function of that name.

    Raises:
        InputError: if something cannot be taken there.
        HostError: if there is one host, and it cannot be measured on.
        EdgeViTError: as the function does for what is looked at before.
    """
    hosts = wanted(where.hosts, where.python)
    if not is_pack(bundle.path):
        remedy = "copy the bundle to where you may write: it notes the figures"
        check_writable(bundle.path / MANIFEST, remedy=remedy)
    _check_room(bundle, [host.name for host in hosts])
    variants = tuple(given.get("variants", ()))
    names = _raced(bundle, race) if race is not None else names_with_references(bundle, variants)
    inputs, options, targets = _inputs(given)
    builds = () if race is not None else built_there([bundle.variant(name) for name in names])
    manifest, files = bundle_parcels(bundle, names, targets, progress, calibration=bool(builds))
    folders = {BUNDLE: files}
    if inputs:
        folders[INPUTS] = inputs
    data, arguments = _data(images, manifest_of=bundle, race=race, progress=progress)
    folders |= data
    engines = list(dict.fromkeys([REFERENCE, *backends_of(manifest.variants)]))
    if race is not None:
        engines = list(dict.fromkeys([REFERENCE, race.target.backend, *engines]))
    with scratch_folder() as scratch:
        path = write_wheel(scratch)
        job = HostJob(
            step=step,
            shipment=Shipment(manifest, folders),
            wheel=parcel(path.name, path.read_bytes()),
            arguments=(*options, *arguments),
            verified=tuple(name for name in names if name in variants) if variants else (),
            extras=_extras(engines),
            engines=tuple(engines),
            machines=_ANY_MACHINE if race is None else tuple(race.target.machines),
            why="EdgeViT" if race is None else f"the target {race.name}",
            names={there: here for here, there in targets.items()}
            | ({} if images is None else {listing_at(IMAGES): images.name}),
            builds=builds,
        )
        bundle, found = measure_on(bundle, job, hosts, keep=where.keep, progress=progress)
    missing = () if images is None else images.unreadable.names  # which were not sent
    return bundle, tuple(
        each if each.device is None else replace(each, unreadable=(*missing, *each.unreadable)) for each in found
    )


def _check_room(bundle: Bundle, names: Sequence[str]) -> None:
    if len({*names, *(device.name for device in bundle.manifest.devices)}) > MOST_DEVICES:
        raise InputError(
            f"{bundle.path} has figures of {len(bundle.manifest.devices)} devices, and keeps {MOST_DEVICES}",
            remedy="measure other devices with a copy of the bundle",
        )


def _raced(bundle: Bundle, race: Race) -> tuple[str, ...]:
    """Return the variants that a race looks at: the target's, and float32 as it was exported."""
    names = [each.name for each in bundle.manifest.variants if each.target == race.name]
    return names_with_references(bundle, names or ["float32"])


def _extras(engines: Sequence[str]) -> tuple[str, ...]:
    """Return which optional packages of EdgeViT bring ``engines`` and what measuring takes.

    Some engines come with the board's own system.
    """
    known = set(importlib.metadata.metadata("edgevit").get_all("Provides-Extra") or ())
    found = {backend_class(name).extra for name in engines} | {"quantize"}
    return tuple(sorted(found & known))


def _inputs(given: Mapping[str, Any]) -> tuple[tuple[Parcel, ...], list[str], dict[str, str]]:
    """Return the files of the user's that go along, the options of the command, and what targets are called there."""
    files: list[Parcel] = []
    options: list[str] = []
    targets: dict[str, str] = {}
    for name, said in given.items():
        value = said.item() if isinstance(said, np.generic) else said
        if name in _HERE or value is None or value is False:
            continue
        option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
        if name in ("target", "recipe"):
            text = _text(name, value)
            if text.endswith(".toml"):
                there = f"{name}.toml"
                files.append(parcel(there, Path(text)))
                targets |= {text: f"{INPUTS}/{there}"} if name == "target" else {}
                text = f"{INPUTS}/{there}"
            options += [option, text]
        elif value is True:
            options.append(option)
        elif isinstance(value, float):
            options += [option, np.format_float_positional(value, trim="-")]
        elif isinstance(value, str | int):
            options += [option, str(value)]
        else:
            for each in value:
                options += [option, str(each)]
    return tuple(files), options, targets


def _text(name: str, value: object) -> str:
    if not isinstance(value, str | Path):
        raise InputError(
            f"{name} is a {type(value).__name__}, which does not go to another device",
            remedy=f"give {name} as a name, or as a TOML file",
        )
    return str(value)


def _data(
    images: DataSource | None, *, manifest_of: Bundle, race: Race | None, progress: Progress
) -> tuple[dict[str, tuple[Parcel, ...]], list[str]]:
    """Return the folders of images that go along, and the options that name them there."""
    if images is None:
        return {}, []
    manifest = manifest_of.manifest
    dataset = images.load(progress)
    LabelledBatches.of(dataset, manifest.outcomes, several=several_labels(manifest))
    folders: dict[str, tuple[Parcel, ...]] = {}
    if _is_there(images):
        arguments = ["--data", images.name]
        arguments += [] if images.samples is None else ["--samples", str(images.samples)]
    else:
        folders[IMAGES] = image_parcels(dataset, images.unreadable, progress)
        arguments = ["--data", listing_at(IMAGES)]
    if race is None or not _calibrates(manifest_of, race):
        return folders, arguments
    source = race.calibration
    if _is_there(source):
        arguments += ["--calibration-data", source.name]
    else:
        drawn = replace(source, samples=None if source.samples is None else source.samples + _BESIDE)
        folders[CALIBRATION] = image_parcels(drawn.load(progress), source.unreadable, progress)
        arguments += ["--calibration-data", listing_at(CALIBRATION)]
    return folders, arguments


def _is_there(source: DataSource) -> bool:
    return source.dataset is None and source.name.partition(":")[0] in _THERE


def _calibrates(bundle: Bundle, race: Race) -> bool:
    """Return whether the race makes a variant that is calibrated."""
    there = {each.precision for each in bundle.manifest.variants if each.target == race.name}
    return bool({*(race.precisions or race.target.precisions)} & set(NEED_IMAGES) - there)
