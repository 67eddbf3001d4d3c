"""Why there is no way to a board, out of what ``ssh`` prints."""

from __future__ import annotations

from edgevit.errors import HostError
from edgevit.report.formats import printable


class ConnectionLostError(HostError):
    """A connection that was there has gone; it may come back."""


#: What ssh says, and what that means: words of a message and of a remedy, with the device's name and the ssh command.
_REASONS = (
    (
        "IDENTIFICATION HAS CHANGED",
        "the host key of {name} is not the one that is known: it was installed anew, or another machine answers",
        "if it was installed anew, take the old key away with ssh-keygen -R, and compare the new one: {ssh}",
    ),
    (
        "host key is known for",
        "the host key of {name} is not known yet",
        "connect once by hand, and compare the key's fingerprint with the board's: {ssh}",
    ),
    (
        "Host key verification failed",
        "the host key of {name} is not known, or not the right one",
        "connect once by hand, and compare the key's fingerprint with the board's: {ssh}",
    ),
    ("Could not resolve hostname", "there is no host {name}", "check the name; edgevit devices shows those remembered"),
    (
        "Permission denied (",
        "{name} refuses the key",
        "let it in with ssh-copy-id, unlock it with ssh-add, or name it in ~/.ssh/config; this must work: {ssh}",
    ),
    (
        "Too many authentication failures",
        "{name} refuses the keys",
        "name the right one in ~/.ssh/config (IdentityFile)",
    ),
    ("Connection refused", "{name} does not take connections", "start its SSH server, and check the port: {ssh}"),
    ("Connection timed out", "{name} does not answer", "check that it is on, and in this network: {ssh}"),
    ("Operation timed out", "{name} does not answer", "check that it is on, and in this network: {ssh}"),
    (
        "No route to host",
        "there is no way to {name} in this network",
        "check that it is on, and in this network: {ssh}",
    ),
    ("Network is unreachable", "there is no network to {name}", "check this machine's network: {ssh}"),
)
#: These do not pass by waiting.
_LASTING = (
    "IDENTIFICATION HAS CHANGED",
    "host key is known for",
    "Host key verification failed",
    "Permission denied (",
)


def reason(said: str, name: str, ssh: str) -> HostError:
    """Return the error that what ``ssh`` printed means; what may pass is a ``ConnectionLostError``."""
    kind = HostError if any(mark in said for mark in _LASTING) else ConnectionLostError
    for mark, message, remedy in _REASONS:
        if mark in said:
            return kind(message.format(name=name), remedy=remedy.format(name=name, ssh=ssh))
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("Warning:")]
    detail = f": {printable(lines[-1].strip())}" if lines else ""
    return ConnectionLostError(f"the connection to {name} has ended{detail}", remedy=f"this must work: {ssh} uptime")
