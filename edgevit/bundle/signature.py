"""Who made a bundle: an Ed25519 signature (RFC 8032) over its manifest, which holds the SHA-256 of every file.

The signature stands in a file of its own beside the manifest, in a pack and in the folder that it is unpacked to.
``openssl pkeyutl -verify -rawin`` checks it, too.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from edgevit.bundle.pack import SIGNATURE
from edgevit.dependencies import require
from edgevit.errors import BundleError, InputError, VerificationError
from edgevit.files import expanded
from edgevit.json import JSONError, decode
from edgevit.paths import path_given

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: A path to a file with a public key, or the key itself as text or bytes: PEM, or a line of OpenSSH's.
TrustedKey = str | bytes | os.PathLike[str]

_MOST_BYTES = 4096
_MAKE_KEY = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"
_MAKE_PUBLIC = "write it with: openssl pkey -in key.pem -pubout -out public.pem"
_Base64 = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9+/]+={0,2}\Z", max_length=128)]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public key of whoever signed, and the signature, both in base64; the file holds it as JSON."""

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: _Base64
    signature: _Base64


def read_signature(content: bytes) -> Signature:
    """Return what ``signature.json`` says; nothing of it is checked.

    Raises:
        BundleError: if that is no signature.

    """
    try:
        return decode(content, Signature, most_bytes=_MOST_BYTES)
    except JSONError as error:
        raise BundleError(
            f"{SIGNATURE} is not valid: {error}", remedy="get the pack again from where it came, or sign it again"
        ) from error


def sign(manifest: bytes, key: Path) -> bytes:
    """Return the content of ``signature.json`` for a manifest; ``key`` is the file of a private Ed25519 key, in PEM.

    Raises:
        InputError: if there is no such key, or it is protected by a password.
        MissingDependencyError: if the package ``cryptography`` is not installed.

    """
    require("cryptography", extra="sign")
    private = _private_key(key)
    made = Signature(
        public_key=_encoded(private.public_key().public_bytes_raw()), signature=_encoded(private.sign(manifest))
    )
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def check_signature(manifest: bytes, content: bytes | None, trusted: Sequence[TrustedKey]) -> str:
    """Check that one of the ``trusted`` keys signed ``manifest``; ``content`` is ``signature.json``'s, None without.

    Return the key, in base64.

    Raises:
        VerificationError: if none of them did.
        InputError: if one is no public key.
        BundleError: if ``content`` is no signature.
        MissingDependencyError: if the package ``cryptography`` is not installed.

    """
    require("cryptography", extra="sign")
    from cryptography.exceptions import InvalidSignature

    keys = {_encoded(key.public_bytes_raw()): key for key in map(_public_key, trusted)}
    if content is None:
        raise VerificationError("it is not signed", remedy="sign it with: edgevit pack BUNDLE --sign key.pem")
    signature = read_signature(content)
    if signature.public_key not in keys:
        raise VerificationError(
            f"it is signed with the key {signature.public_key}, which is not among those that are trusted",
            remedy="get it from who has a key that you trust, or add this one once you know whose it is",
        )
    try:
        keys[signature.public_key].verify(_decoded(signature.signature), manifest)
    except InvalidSignature as error:
        raise VerificationError(
            "the signature does not match: it was changed after it was signed",
            remedy="get it again from where it came, or sign it again with: edgevit pack BUNDLE --sign key.pem",
        ) from error
    return signature.public_key


def own_key(content: bytes) -> TrustedKey:
    """Return the key that ``signature.json`` names, to see whether the signature is that key's.

    Raises:
        BundleError: if ``content`` is no signature.

    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(read_signature(content).public_key))
    except ValueError as error:
        raise BundleError(f"{SIGNATURE} is not valid: {error}", remedy="sign the bundle again") from error
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(_read(path, _MAKE_KEY), password=None)
    except TypeError as error:
        raise InputError(
            f"{path} is protected by a password", remedy=f"write it without: openssl pkey -in {path} -out plain.pem"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} holds no private key in PEM", remedy=_MAKE_KEY) from error
    except UnsupportedAlgorithm as error:
        raise InputError(f"{path} holds a key of a kind that is not known here", remedy=_MAKE_KEY) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise InputError(f"{path} holds a private key that is not Ed25519", remedy=_MAKE_KEY)
    return found


def _public_key(given: TrustedKey) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    what, content = _key_content(given)
    load = load_ssh_public_key if content.startswith(b"ssh-") else load_pem_public_key
    try:
        found: Any = load(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{what} is no public key in PEM, or of OpenSSH", remedy=_MAKE_PUBLIC) from error
    if not isinstance(found, Ed25519PublicKey):
        raise InputError(f"{what} is a public key that is not Ed25519", remedy=_MAKE_PUBLIC)
    return found


def _key_content(given: TrustedKey) -> tuple[str, bytes]:
    """Return what a trusted key is called in messages, and its content."""
    if isinstance(given, bytes):
        return "a trusted key", given.strip()
    if isinstance(given, str) and given.lstrip().startswith(("-----BEGIN ", "ssh-")):
        return "a trusted key", given.strip().encode()
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"a trusted key is a {type(given).__name__}", remedy=f"give the path of its file; {_MAKE_PUBLIC}"
        )
    path = Path(path_given("a trusted key", given))
    return str(path), _read(path, _MAKE_PUBLIC).strip()


def _read(path: Path, remedy: str) -> bytes:
    try:
        with expanded(path).open("rb") as stream:
            return stream.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the key {path} cannot be read: {reason}", remedy=remedy) from error


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    """Return what ``text`` stands for; what is no base64 stands for nothing that would be a key or a signature."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
