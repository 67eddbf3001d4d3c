"""What a board has measured, out of what it sends: bounded, of the right types, and free of control characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec.structs import replace

from edgevit import __version__
from edgevit.bundle.manifest import (
    DeviceVariant,
    Environment,
    GoldenAnswers,
    LimitEvidence,
    Manifest,
    MeasuredDevice,
    Variant,
)
from edgevit.bundle.reading import decode_manifest
from edgevit.errors import BundleError, HostError
from edgevit.files import shareable
from edgevit.json import JSONError, decode
from edgevit.report.formats import printable

T = TypeVar("T")

MOST_BYTES = 16 << 20
_LONGEST = 1024
_MOST_ITEMS = 4096
_LARGEST = 1 << 53
#: Of one device in a manifest, whose own limit is 16 MiB.
_MOST_OF_A_DEVICE = 1 << 20

_RemoteText = Annotated[str, msgspec.Meta(max_length=4096)]


class UnexpectedError(HostError):
    """A board has answered what cannot be."""


class PrintedReason(msgspec.Struct, frozen=True):
    """Why a command there stopped, as its ``--json`` says it."""

    message: _RemoteText
    remedy: _RemoteText
    type: _RemoteText = ""


class PrintedError(msgspec.Struct, frozen=True):
    """What a command prints that stopped."""

    error: PrintedReason


class VerifiedVariant(msgspec.Struct, frozen=True):
    """What ``edgevit verify --json`` says of a variant."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    status: GoldenAnswers
    reason: _RemoteText | None = None


class Verified(msgspec.Struct, frozen=True):
    """What ``edgevit verify --json`` prints."""

    variants: Annotated[list[VerifiedVariant], msgspec.Meta(max_length=256)]


class _BoardMachine(msgspec.Struct, frozen=True):
    environment: Environment


class Diagnosed(msgspec.Struct, frozen=True):
    """What ``edgevit doctor --json`` prints."""

    machine: _BoardMachine


class TriedEngine(msgspec.Struct, frozen=True):
    """An engine that ``edgevit doctor --json`` has tried, and what is the matter with it."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    problem: _RemoteText | None = None


class Tried(msgspec.Struct, frozen=True):
    """What ``edgevit doctor --json`` prints of engines."""

    engines: Annotated[list[TriedEngine], msgspec.Meta(max_length=64)]


class Raced(msgspec.Struct, frozen=True):
    """A variant in a race there, as ``edgevit race --json`` says it."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    verdict: Annotated[str, msgspec.Meta(max_length=64)]
    reason: _RemoteText
    evidence: Annotated[list[LimitEvidence], msgspec.Meta(max_length=64)] = []


class MeasuredName(msgspec.Struct, frozen=True):
    """A variant that was measured; what else is said of it is in the manifest."""

    name: Annotated[str, msgspec.Meta(max_length=128)]


class Printed(msgspec.Struct, frozen=True):
    """What ``validate`` and ``benchmark`` print with ``--json``, as far as it is looked at."""

    variants: Annotated[list[MeasuredName], msgspec.Meta(max_length=256)]
    unreadable: list[_RemoteText] = []
    shares_missed: dict[str, _RemoteText] = {}


class RacePrinted(msgspec.Struct, frozen=True):
    """What ``edgevit race --json`` prints, as far as it is looked at."""

    variants: Annotated[list[Raced], msgspec.Meta(max_length=256)]
    winner: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    left_out: dict[str, _RemoteText] = {}


def said(content: bytes, kind: type[T], device: str) -> T:
    """Return what a command on the board printed.

    Raises:
        HostError: if it is no such thing.
    """
    try:
        return printable_figures(decode(content, kind, most_bytes=MOST_BYTES), kind)
    except (JSONError, msgspec.ValidationError) as error:
        raise _unexpected(device, str(error)) from error


def printable_figures(found: T, kind: Any) -> T:  # noqa: ANN401 - a type, or a union
    """Return ``found``, of the type ``kind``, with printable texts alone, none of them or of its lists too long.

    Raises:
        msgspec.ValidationError: if it is no ``kind`` then, or has an integer that nothing is as large as.
    """
    plain = msgspec.to_builtins(found)
    result: T = msgspec.convert(_plain(plain), kind, strict=True)
    return result


def _plain(part: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(part, int) and abs(part) > _LARGEST:
        raise msgspec.ValidationError("an integer is too large")
    if isinstance(part, str):
        return printable(part, limit=_LONGEST)
    if isinstance(part, list | tuple):
        return [_plain(each) for each in part[:_MOST_ITEMS]]
    if isinstance(part, dict):
        return {_plain(name): _plain(value) for name, value in list(part.items())[:_MOST_ITEMS]}
    return part


def measured_device(
    device: str,
    sent: Manifest,
    content: bytes,
    environment: Environment,
    verified: Verified,
    names: Mapping[str, str],
    *,
    makes: bool,
) -> MeasuredDevice:
    """Return what the manifest ``content``, as it is on the board after the run, says of variants beside ``sent``.

    Only what was sent without figures, or was made there, has any. ``names`` are what the user calls targets and data,
    by what they were called there. Unless it ``makes`` variants, there are none but those that were sent.

    Raises:
        HostError: if it is not the manifest of this model, or has figures of other variants or files.
    """
    try:
        there = decode_manifest(content)
    except BundleError as error:
        raise _unexpected(device, error.message) from error
    if there.model != sent.model or there.typed_outputs != sent.typed_outputs:
        raise _unexpected(device, "it measured another model")
    answers = {each.name: each.status for each in verified.variants}
    own = {each.name: each for each in sent.variants}
    if not makes and any(each.name not in own or each.files != own[each.name].files for each in there.variants):
        raise _unexpected(device, "it measured other files than it was sent")
    found = MeasuredDevice(
        name=device,
        environment=environment,
        edgevit=__version__,
        variants=tuple(
            _variant(each, own.get(each.name), answers.get(each.name), names)
            for each in there.variants
            if each.accuracy is not None or each.latency is not None or each.name in answers
        ),
    )
    try:
        found = printable_figures(found, MeasuredDevice)
    except msgspec.ValidationError as error:
        raise _unexpected(device, str(error)) from error
    if len(msgspec.json.encode(found)) > _MOST_OF_A_DEVICE:
        raise _unexpected(device, "its figures are more than a bundle keeps")
    return found


def _variant(
    there: Variant, sent: Variant | None, answers: GoldenAnswers | None, names: Mapping[str, str]
) -> DeviceVariant:
    return DeviceVariant(
        name=there.name,
        precision=there.precision,
        backend=there.backend,
        target=shareable(names.get(there.target, there.target)),
        sha256=there.files[0].sha256,
        bytes=there.bytes,
        answers=answers,
        accuracy=there.accuracy
        and replace(there.accuracy, data=shareable(names.get(there.accuracy.data, there.accuracy.data))),
        latency=there.latency,
        evidence=there.evidence,
        kernels=there.kernels if sent is None or there.kernels != sent.kernels else None,
    )


def _unexpected(device: str, why: str) -> UnexpectedError:
    return UnexpectedError(f"{device} answers what cannot be: {printable(why)}", remedy="check what runs there")
