"""``edgevit pack`` and ``edgevit verify`` as a user types them."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.runtime import verification


@pytest.fixture
def packed(edgevit, quantized):
    return quantized.parent / edgevit("pack", quantized, "--json").data()["path"]


def test_pack_says_what_it_made_and_verify_that_it_is_right(edgevit, quantized):
    made = edgevit("pack", quantized, "--variant", "int8-onnxruntime", "--variant", "float32")
    path = quantized.with_name("tiny.edgevit.zip")
    assert made.code == 0
    assert f"edgevit verify {path}" in made.out
    assert Bundle.open(path).manifest.variants[1].name == "int8-onnxruntime"
    checked = edgevit("verify", path)
    assert checked.code == 0
    assert "this machine gives the validated answers, within the tolerances above, on" in checked.out
    found = edgevit("verify", path, "--json").data()
    assert found["passed"]
    assert [(each["name"], each["status"]) for each in found["variants"]] == [
        ("float32", "as exported"),
        ("int8-onnxruntime", "as exported"),
    ]
    assert found["variants"][0]["version"]


def test_a_pack_that_is_there_is_replaced_only_if_asked_for(edgevit, quantized, packed):
    refused = edgevit("pack", quantized)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert edgevit("pack", quantized, "--overwrite").code == 0
    (quantized.parent / "photo.zip").write_bytes(b"something else")
    assert edgevit("pack", quantized, "-o", quantized.parent / "photo.zip", "--overwrite").code == 2
    assert (quantized.parent / "photo.zip").read_bytes() == b"something else"
    with zipfile.ZipFile(quantized.parent / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "of another program")
    assert edgevit("pack", quantized, "-o", quantized.parent / "other.zip", "--overwrite").code == 2
    assert edgevit("pack", packed, "-o", packed, "--overwrite").code == 2
    assert edgevit("pack", quantized, "-o", quantized, "--overwrite").code == 2


@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "--data", "shapes:size=16"),
        ("build", "--target", "x86-openvino", "--precision", "fp16"),
        ("report",),
    ],
)
def test_what_would_change_a_pack_is_refused_at_once(edgevit, packed, command):
    name, *options = command
    refused = edgevit(name, packed, *options)
    assert refused.code == 2
    assert "is a pack, which is never changed" in refused.err


def test_reading_commands_take_a_pack(edgevit, packed, pictures):
    assert edgevit("inspect", packed).code == 0
    assert edgevit("predict", packed, *pictures).code == 0
    assert edgevit("report", packed, "-o", packed.parent / "site").code == 0
    measured = edgevit("validate", packed, "--data", "shapes:size=16,count=16", "--json")
    assert measured.code == 0
    assert {each["name"] for each in measured.data()["variants"]} == {
        variant.name for variant in Bundle.open(packed).manifest.variants
    }


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="has no place that takes no files")
def test_a_place_that_takes_no_files_is_named(edgevit, quantized):
    _, remedy = edgevit("pack", quantized, "-o", "/proc/x.edgevit.zip").failure()
    assert "-o" in remedy


def test_verify_finds_a_machine_that_answers_otherwise(edgevit, packed, monkeypatch):
    monkeypatch.setitem(verification.BOUNDS, "int8", verification.Bound(cosine=1.01, agreement=0.5))
    found = edgevit("verify", packed, "--variant", "int8-onnxruntime")
    assert found.code == 1
    assert "does not give the answers" in found.out
    assert edgevit("verify", packed, "--variant", "float32").code == 0


def test_verify_finds_damage(edgevit, quantized):
    bundle = Bundle.open(quantized)
    path = bundle.verify_files("int8-onnxruntime")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    table = bundle.verify_extra("calibration/table.npz").path
    table.write_bytes(table.read_bytes()[:-1] + b"?")
    found = edgevit("verify", quantized)
    assert found.code == 1
    assert f"{path} is damaged" in found.out
    assert f"{table} is damaged" in found.out


def test_verify_says_what_does_not_run_here(edgevit, quantized):
    bundle = Bundle.open(quantized)
    manifest = quantized / "manifest.json"
    variants = [replace(one, versions=">=99") if one.name != "float32" else one for one in bundle.manifest.variants]
    manifest.write_bytes(encode_manifest(replace(bundle.manifest, variants=tuple(variants))))
    found = edgevit("verify", quantized)
    assert found.code == 0
    assert "but for float32-onnxruntime" in found.out
    assert edgevit("verify", quantized, "--variant", "int8-onnxruntime").code == 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_pack_is_signed_and_checked(edgevit, quantized, tmp_path):
    pytest.importorskip("cryptography")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem"], check=True, cwd=tmp_path)
    subprocess.run(["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"], check=True, cwd=tmp_path)
    path = tmp_path / "signed.edgevit.zip"
    made = edgevit("pack", quantized, "--variant", "float32", "-o", path, "--sign", tmp_path / "key.pem")
    assert "signed" in made.out
    checked = edgevit("verify", path, "--trusted-key", tmp_path / "public.pem")
    assert checked.code == 0
    assert "signed by the trusted key" in checked.out
    assert edgevit("verify", quantized, "--trusted-key", tmp_path / "public.pem").code == 1
    assert edgevit("verify", path, "--trusted-key", tmp_path / "absent.pem").code == 2


def test_a_format_that_there_is_not_is_said_in_our_words(edgevit, quantized):
    message, _ = edgevit("pack", quantized, "--format", "banana").failure()
    assert message.startswith("Invalid value for '--format': 'banana' is not one of 'zip'")
