"""Signatures of packs: OpenSSL and OpenSSH are the oracles, and no key but a trusted one will do."""

import base64
import json
import shutil
import subprocess
import zipfile

import pytest

from edgevit.bundle.packing import write_pack
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, InputError, VerificationError

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM, SSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
PUBLIC_PEM = PRIVATE.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
PUBLIC_SSH = PRIVATE.public_key().public_bytes(SSH, serialization.PublicFormat.OpenSSH)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
OTHER_PEM = OTHER.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(key, password: bytes | None = None) -> bytes:
    hidden = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, hidden)


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(PRIVATE))
    return path


@pytest.fixture
def signed(bundle, tmp_path, key):
    path = tmp_path / "signed.zip"
    write_pack(bundle, path, ["float32"], key=key)
    return path


@pytest.fixture
def unpacked(signed, tmp_path):
    with zipfile.ZipFile(signed) as archive:
        archive.extractall(tmp_path / "unpacked.edgevit")
    return tmp_path / "unpacked.edgevit"


@pytest.mark.parametrize("form", ["pem", "ssh", "text", "path", "several"])
def test_a_trusted_key_in_any_form_opens_a_pack_and_what_it_is_unpacked_to(signed, unpacked, tmp_path, form):
    (tmp_path / "public.pem").write_bytes(PUBLIC_PEM)
    keys = {
        "pem": [PUBLIC_PEM],
        "ssh": [PUBLIC_SSH + b" someone@somewhere\n"],
        "text": [PUBLIC_PEM.decode()],
        "path": [tmp_path / "public.pem"],
        "several": [OTHER_PEM, str(tmp_path / "public.pem")],
    }[form]
    raw = PRIVATE.public_key().public_bytes_raw()
    for place in (signed, unpacked):
        assert base64.b64decode(Bundle.open(place, trusted_keys=keys).signed_by) == raw
    assert Bundle.open(signed).signed_by is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_keys_and_checks_signatures(bundle, tmp_path):
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "own.pem")
    openssl("pkey", "-in", "own.pem", "-pubout", "-out", "public.pem")
    write_pack(bundle, tmp_path / "signed.zip", ["float32"], key=tmp_path / "own.pem")
    Bundle.open(tmp_path / "signed.zip", trusted_keys=[tmp_path / "public.pem"])
    with zipfile.ZipFile(tmp_path / "signed.zip") as archive:
        archive.extract("manifest.json", tmp_path)
        signature = base64.b64decode(json.loads(archive.read("signature.json"))["signature"])
    (tmp_path / "signature").write_bytes(signature)
    openssl(
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "public.pem",
        "-in",
        "manifest.json",
        "-sigfile",
        "signature",
    )


def test_signing_is_deterministic(bundle, tmp_path, signed, key):
    write_pack(bundle, tmp_path / "again.zip", ["float32"], key=key)
    assert (tmp_path / "again.zip").read_bytes() == signed.read_bytes()


def test_what_nobody_trusted_has_signed_is_refused(bundle, signed, tmp_path):
    write_pack(bundle, tmp_path / "plain.zip", ["float32"])
    for place in (tmp_path / "plain.zip", bundle.path):
        with pytest.raises(VerificationError, match="not signed"):
            Bundle.open(place, trusted_keys=[PUBLIC_PEM])
    for keys in ([OTHER_PEM], []):
        with pytest.raises(VerificationError, match="not among those that are trusted"):
            Bundle.open(signed, trusted_keys=keys)


def test_what_was_changed_after_it_was_signed_is_refused(unpacked):
    manifest = unpacked / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"name": "test"', b'"name": "tess"'))
    with pytest.raises(VerificationError, match="changed after it was signed"):
        Bundle.open(unpacked, trusted_keys=[PUBLIC_PEM])
    model = next(unpacked.glob("float32/model.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(unpacked).verify_files("float32")


def test_a_signature_by_another_under_a_trusted_name_is_refused(unpacked):
    path = unpacked / "signature.json"
    said = json.loads(path.read_bytes())
    said["signature"] = base64.b64encode(bytes(64)).decode()
    for signature in (said["signature"], base64.b64encode(b"short").decode(), "A"):
        path.write_text(json.dumps(said | {"signature": signature}))
        with pytest.raises(VerificationError, match="does not match"):
            Bundle.open(unpacked, trusted_keys=[PUBLIC_PEM])


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"algorithm": "none", "public_key": "aa", "signature": ""}'])
def test_what_is_no_signature_is_refused(unpacked, content):
    (unpacked / "signature.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"signature\.json is not valid"):
        Bundle.open(unpacked, trusted_keys=[PUBLIC_PEM])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no private key"),
        (b"-----BEGIN nothing", "no private key"),
        (PUBLIC_PEM, "no private key"),
        (private_pem(PRIVATE, b"secret"), "password"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), "not Ed25519"),
    ],
)
def test_what_cannot_sign_is_named_and_nothing_is_written(bundle, tmp_path, content, problem):
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        write_pack(bundle, tmp_path / "x.zip", ["float32"], key=tmp_path / "bad.pem")
    assert "openssl" in caught.value.remedy
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("trusted", "problem"),
    [
        (b"", "no public key"),
        (b"ssh-rsa AAAA", "no public key"),
        (private_pem(PRIVATE), "no public key"),
        (3, "is a int"),
        ("absent.pem", "cannot be read"),
        ("a\0b", "has a zero byte"),
    ],
)
def test_what_is_no_public_key_is_named(signed, trusted, problem):
    with pytest.raises(InputError, match=problem):
        Bundle.open(signed, trusted_keys=[trusted])
