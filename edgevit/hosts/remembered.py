"""Names of other devices that the user has given: one file, in the folder of the user's settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from edgevit.errors import BundleError, InputError, StorageError
from edgevit.files import expanded
from edgevit.hosts.address import Address, address_of
from edgevit.json_file import JSONFile
from edgevit.likeness import alike

_NAME = r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z"

_ELSEWHERE = "make it readable and writable for you, with room; or name another folder in EDGEVIT_CONFIG"
_LONGEST_NAME = 128  # of a device, in a bundle


class Remembered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device by its name; ``python`` is the interpreter there that runs use, None makes one of their own."""

    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    address: Annotated[str, msgspec.Meta(max_length=512)]
    python: Annotated[str, msgspec.Meta(max_length=4096)] | None = None


class RememberedDevices(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All devices that the user has given a name."""

    what: ClassVar[str] = "list of devices"
    schema: ClassVar[int] = 1
    remedy: ClassVar[str] = "remove the file, and give the devices their names again with edgevit devices add"

    devices: tuple[Remembered, ...] = ()


class Wanted(msgspec.Struct, frozen=True):
    """A device that is to be measured on: what it is called, where it is, and which Python runs there."""

    name: str
    address: Address
    python: str | None = None


def place() -> Path:
    """Return where the names are kept: in $EDGEVIT_CONFIG, else in ~/.config/edgevit.

    Raises:
        StorageError: if neither is known.
    """
    folder = os.environ.get("EDGEVIT_CONFIG")
    if folder:
        return Path(folder) / "devices.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or expanded("~/.config")) / "edgevit" / "devices.json"


def remembered() -> tuple[Remembered, ...]:
    """Return the devices that have names, by these.

    Raises:
        BundleError: if the file is damaged, or cannot be read.
    """
    path = place()
    try:
        path.lstat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}",
            remedy=_ELSEWHERE,
        ) from error
    return RememberedDevices.load(path).devices


def remember(name: str, address: str, python: str | None = None) -> tuple[Remembered, ...]:
    """Give a device a name, in place of the one that had it; return all.

    Raises:
        InputError: if the name, the address or the path will not do.
        BundleError: if the file is damaged.
        StorageError: if it cannot be written.
    """
    if re.match(_NAME, name) is None:
        raise InputError(f"{name[:100]!r} cannot name a device", remedy="use letters, digits, - and _, up to 64")
    found = Remembered(name=name, address=str(address_of(address)), python=checked_python(python))
    with _changing():
        return _saved({each.name: each for each in remembered()} | {name: found})


def forget_host(name: str) -> tuple[Remembered, ...]:
    """Take the name of a device away; return the others.

    Raises:
        InputError: if there is none.
        BundleError: if the file is damaged.
        StorageError: if it cannot be written.
    """
    names = [each.name for each in remembered()]
    if name not in names:
        close = alike(name, names)
        raise InputError(
            f"no device is called {name[:100]!r}", remedy=f"use {' or '.join(close)}" if close else "edgevit devices"
        )
    with _changing():
        return _saved({each.name: each for each in remembered() if each.name != name})


@contextlib.contextmanager
def _changing() -> Iterator[None]:
    """Let no other process change the names meanwhile.

    Raises:
        StorageError: if there is no folder for them.
    """
    folder = place().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror}", remedy=_ELSEWHERE) from error
    try:
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _saved(by_name: dict[str, Remembered]) -> tuple[Remembered, ...]:
    devices = tuple(by_name[name] for name in sorted(by_name))
    path = Path(os.path.realpath(place()))  # it may be a link to where the user keeps settings
    try:
        RememberedDevices(schema_version=RememberedDevices.schema, devices=devices).save(path)
    except StorageError as error:
        raise StorageError(error.message, remedy=_ELSEWHERE) from error
    return devices


def checked_python(path: str | None) -> str | None:
    """Return the path of an interpreter on a device, as it was given.

    Raises:
        InputError: if it could not be one.
    """
    if path is not None and (not path.strip() or not path.isprintable() or path.startswith("-") or len(path) > 4096):
        raise InputError(f"{path[:100]!r} is no path of a Python", remedy="give --python such as /opt/venv/bin/python")
    return path


def wanted(hosts: list[str] | tuple[str, ...], python: str | None = None) -> tuple[Wanted, ...]:
    """Return the devices that ``hosts`` name, each by a remembered name or an address; ``python`` holds for all.

    Raises:
        InputError: if one is no host, or is given twice.
        BundleError: if the file of names is damaged.
    """
    names = {each.name: each for each in remembered()}
    found = []
    for text in hosts:
        known = names.get(text)
        address = address_of(text if known is None else known.address)
        found.append(
            Wanted(
                name=address.device if known is None else known.name,
                address=address,
                python=checked_python(known.python if known is not None and python is None else python),
            )
        )
    for index, each in enumerate(found):
        if len(each.name) > _LONGEST_NAME:
            raise InputError(
                f"the host {each.name[:_LONGEST_NAME]}… has too long a name for a bundle",
                remedy="give it another: edgevit devices add NAME USER@HOST, and then --host NAME",
            )
        if any(each.name == other.name or each.address == other.address for other in found[:index]):
            raise InputError(f"the host {each.name} is given twice", remedy="give each host once")
    return tuple(found)
