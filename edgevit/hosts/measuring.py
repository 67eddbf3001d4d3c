"""One measurement on one board, from the first connection to the last file that is removed."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

import msgspec

from edgevit.bundle.manifest import MeasuredDevice
from edgevit.bundle.reading import MANIFEST
from edgevit.bundle.store import Bundle
from edgevit.errors import HostError
from edgevit.hosts import environment, figures, running
from edgevit.hosts.figures import Diagnosed, Printed, PrintedError, RacePrinted, Tried, Verified
from edgevit.hosts.link import Link, Patience
from edgevit.hosts.remembered import Wanted
from edgevit.hosts.running import RemoteCommand, RunEnd
from edgevit.hosts.sending import Parcel, lay_out, send
from edgevit.hosts.shipment import BUNDLE, Shipment
from edgevit.progress import Progress
from edgevit.report.formats import printable

RemoteStep = Literal["benchmark", "validate", "race"]
_DOCTOR, _BUILD, _VERIFY, _RESULT = "doctor.json", "build.json", "verify.json", "result.json"
_GATE_FAILED = 1


class HostJob(msgspec.Struct, frozen=True):
    """What is to be measured on each of the hosts.

    ``arguments`` are those of the command there, behind the bundle; ``verified`` the variants that the golden check
    runs, all if none are named; ``builds`` the targets and precisions of engines that are built there first.
    ``extras`` are what is installed beside EdgeViT, ``engines`` those that ``doctor`` tries. ``machines`` are the
    processors that ``why`` allows. ``names`` are what the user calls targets and data, by what they are called there.
    """

    step: RemoteStep
    shipment: Shipment
    wheel: Parcel
    arguments: tuple[str, ...]
    verified: tuple[str, ...]
    extras: tuple[str, ...]
    engines: tuple[str, ...]
    machines: tuple[str, ...]
    why: str
    names: dict[str, str] = {}
    builds: tuple[tuple[str, str], ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """What a board measured: figures, who was measured, whether all passed, the rest that it said.

    Of ``validate``, ``unreadable`` are images that it could not read, ``shares_missed`` says by variant why too few of
    the multiply-adds are in integers; of a race there is what it printed.
    """

    device: MeasuredDevice
    names: tuple[str, ...]
    passed: bool
    race: RacePrinted | None = None
    unreadable: tuple[str, ...] = ()
    shares_missed: dict[str, str] = {}


def folder_of(bundle: Bundle) -> str:
    """Return the name of the folder on boards for runs of ``bundle`` from this machine by this user."""
    model = bundle.manifest.provenance.weights_sha256
    return hashlib.sha256(f"{platform.node()} {os.getuid()} {model}".encode()).hexdigest()[:16]


def measure_on_host(
    job: HostJob,
    host: Wanted,
    folder: str,
    *,
    keep: bool,
    cancelled: Callable[[], bool],
    progress: Progress,
    patience: Patience,
) -> Outcome:
    """Measure on ``host``, and remove what was put there unless it is to be kept.

    Raises:
        HostError: if it cannot be reached, lacks something, or its answers make no sense.
        InputError: if a file here cannot be read.
    """
    with Link(
        host.name, host.address, host.python, folder, cancelled=cancelled, note=progress.note, patience=patience
    ) as link:
        measured = False
        try:
            outcome = _measured(job, host, link, progress)
            measured = True
        finally:
            if not keep or cancelled():
                left = link.clean()
                if left is not None:
                    place = printable(link.facts.folder)
                    progress.note(f"{place} is left there: {left}; the next run removes it, or: rm -r")
            elif not measured:
                link.stop()
        return outcome


def _measured(job: HostJob, host: Wanted, link: Link, progress: Progress) -> Outcome:
    own_python = host.python is None
    environment.check_board(link, job.machines, job.why, own_python=own_python)
    progress.note(f"{link.machine}, Python {printable(link.facts.python)}, {link.facts.free / 1e9:,.1f} GB free")
    spare = 0
    if own_python and not environment.has_environment(link, job.extras):
        spare = environment.ENVIRONMENT_BYTES
    send(link, [job.wheel, *job.shipment.parcels], progress, spare=spare)
    for place, parcels in job.shipment.folders.items():
        lay_out(link, place, parcels)
    runtime = environment.prepare(link, job.wheel, job.extras, own_python=own_python, say=progress.note)
    commands = _commands(job, runtime.python)
    ended = running.run_commands(link, commands, runtime.environment, progress.note)
    if len(ended.codes) < len(commands) or ended.codes[-1] not in commands[-1].allowed:
        _fail(link, commands, ended)
    codes = {command.out: code for command, code in zip(commands, ended.codes, strict=True)}
    return _outcome(job, link, passed=codes[_RESULT] == 0)


def _commands(job: HostJob, python: str) -> list[RemoteCommand]:
    """Return what runs there, one after the other."""

    def edgevit(out: str, *arguments: str, allowed: tuple[int, ...] = (0,)) -> RemoteCommand:
        return RemoteCommand((python, "-m", "edgevit", *arguments, "--json"), out, allowed)

    engines = [part for name in job.engines for part in ("--engine", name)]
    verified = [part for name in job.verified for part in ("--variant", name)]
    may_fail = (0, _GATE_FAILED)
    commands = [edgevit(_DOCTOR, "doctor", *engines)]
    for target, precision in job.builds:
        allowed = (0,) if job.verified else (0, 1, 2, 3)  # what was not asked for by name may be for another board
        commands.append(edgevit(_BUILD, "build", BUNDLE, "--target", target, "--precision", precision, allowed=allowed))
    commands.append(edgevit(_VERIFY, "verify", BUNDLE, *verified, allowed=may_fail))
    commands.append(edgevit(_RESULT, job.step, BUNDLE, *job.arguments, allowed=may_fail))
    if job.step == "race":  # what was made there meanwhile is checked, too
        commands.append(edgevit(_VERIFY, "verify", BUNDLE, allowed=may_fail))
    return commands


def _fail(link: Link, commands: Sequence[RemoteCommand], ended: RunEnd) -> NoReturn:
    """Say why the last command stopped there, as it said itself."""
    if not ended.codes:
        raise HostError(f"{link.name} runs nothing", remedy="run it again")
    name = commands[len(ended.codes) - 1].out
    content = running.read_remote(link, name, figures.MOST_BYTES)
    try:
        if name == _DOCTOR:
            tried = figures.said(content, Tried, link.name).engines
            problems = "; ".join(f"{each.name}: {each.problem}" for each in tried if each.problem)
            raise HostError(
                f"no engine runs on {link.name}: {problems}", remedy="install one there; leave out --python, and it is"
            )
        error = figures.said(content, PrintedError, link.name).error
    except figures.UnexpectedError:
        last = ended.said[-1] if ended.said else f"edgevit ended with code {ended.codes[-1]}"
        raise HostError(f"{link.name}: {last}", remedy="give --keep, and look there: edgevit doctor") from None
    raise HostError(f"{link.name}: {error.message}", remedy=error.remedy)


def _outcome(job: HostJob, link: Link, *, passed: bool) -> Outcome:
    def printed(name: str) -> bytes:
        return running.read_remote(link, name, figures.MOST_BYTES)

    diagnosed = figures.said(printed(_DOCTOR), Diagnosed, link.name)
    verified = figures.said(printed(_VERIFY), Verified, link.name)
    manifest = running.read_remote(link, f"{BUNDLE}/{MANIFEST}", figures.MOST_BYTES)
    device = figures.measured_device(
        link.name,
        job.shipment.manifest,
        manifest,
        diagnosed.machine.environment,
        verified,
        job.names,
        makes=job.step == "race" or bool(job.builds),
    )
    content = printed(_RESULT)
    race = figures.said(content, RacePrinted, link.name) if job.step == "race" else None
    plain = figures.said(content, Printed, link.name)
    there = race or plain
    known = {each.name for each in device.variants}
    names = tuple(each.name for each in there.variants if each.name in known)
    if not names:
        raise HostError(f"{link.name} has measured nothing", remedy="give --keep, and look there")
    answers = {each.name: each.answers for each in device.variants}
    shipped = names if race is None else (race.winner,)
    right = all(answers.get(each or "") == "as exported" for each in shipped)
    return Outcome(device, names, passed and right, race, tuple(plain.unreadable), plain.shares_missed)
