"""Addresses of other devices, as users write them: ``[USER@]HOST[:PORT]``.

One of IPv6 is in brackets, and may have a zone: ``pi@[fe80::1%eth0]:22``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from edgevit.errors import InputError

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
_ZONE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,15}"
_ADDRESS = re.compile(
    rf"(?:(?P<user>{_USER})@)?(?:(?P<host>{_HOST})|\[(?P<v6>[0-9A-Fa-f:.]{{2,45}}(?:%{_ZONE})?)\])(?::(?P<port>\d{{1,5}}))?"
)
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device is reached; what is None is for ssh and its configuration to say."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def device(self) -> str:
        """What the device is called in a bundle, where no name is remembered for it."""
        name = f"v6-{self.host.replace('%', '-')}" if ":" in self.host else self.host
        return name if self.port is None else f"{name}:{self.port}"

    def __str__(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port is not None else ''}"


def address_of(text: str) -> Address:
    """Return the address that ``text`` is.

    Raises:
        InputError: if it is none. What begins with a dash, which ssh would take for an option, is none.
    """
    found = _ADDRESS.fullmatch(text)
    remedy = "write USER@HOST, HOST or USER@HOST:PORT; a host of ssh's configuration, or a name of edgevit devices"
    if found is None:
        raise InputError(f"{text[:_MOST_SHOWN]!r} is no host", remedy=remedy)
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 1 << 16:
        raise InputError(f"{text!r} has the port {port}", remedy="a port is a number from 1 to 65535")
    if found["v6"]:
        try:
            ipaddress.IPv6Address(found["v6"])
        except ValueError:
            raise InputError(f"{text!r} is no host", remedy=remedy) from None
    return Address(found["v6"] or found["host"], found["user"], port)
