"""Fetch one file of known size and hash."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgevit.errors import DataError, MissingDataError
from edgevit.files import atomic_path
from edgevit.progress import Progress

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 20


def download(address: str, target: Path, *, sha256: str, size: int, progress: Progress) -> None:
    """Fetch ``address`` (http or https), which has ``size`` bytes and the hash ``sha256``, to ``target``.

    Nothing appears at ``target`` before all of it has arrived and been checked.

    Raises:
        MissingDataError: if the address cannot be reached or the connection breaks off.
        DataError: if what arrives is not the file that was asked for.
        StorageError: if the disk is full or not writable.

    """
    if not address.startswith(("https://", "http://")):
        raise DataError(f"{address} is not a web address", remedy="give an address that begins with https://")
    digest = hashlib.sha256()
    with atomic_path(target) as draft, draft.open("wb") as stream:
        arrived = 0
        for chunk in progress.track(
            _chunks(address, size), total=-(-size // _CHUNK), label=f"Downloading {target.name}"
        ):
            digest.update(chunk)
            arrived += len(chunk)
            stream.write(chunk)
        if arrived < size:
            raise MissingDataError(
                f"the download of {address} ended after {arrived} of {size} bytes",
                remedy="check the connection and run the command again",
            )
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{address} is not the file that was published: its SHA-256 is another",
                remedy=f"fetch {target.name} another way and put it at {target}",
            )


def _chunks(address: str, size: int) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310  # scheme is checked
            yield from _read_up_to(response, size + 1)
    except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and TLS errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise MissingDataError(
            f"cannot download {address}: {reason}", remedy="check the connection and run the command again"
        ) from error


def _read_up_to(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    while limit > 0 and (chunk := stream.read(min(_CHUNK, limit))):
        limit -= len(chunk)
        yield chunk
