"""A pack answers as the bundle that it was made of, from memory; what is not trusted is not loaded."""

import subprocess
import sys

import numpy as np
import pytest

import edgevit as public
from edgevit.errors import BundleError, InputError, VerificationError
from edgevit.runtime import load

VARIANTS = ("float32", "int8-onnxruntime", "float32-openvino", "int8-openvino")


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    return public.pack(tiny_quantized, tmp_path_factory.mktemp("packs") / "tiny.edgevit.zip").path


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Have a cache in which nothing can be written."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "file"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_pack_answers_bit_for_bit_as_its_bundle_and_writes_nothing(tiny_quantized, pack, name, pictures, no_cache):
    with load(tiny_quantized, variant=name, threads=1) as whole, load(pack, variant=name, threads=1) as packed:
        np.testing.assert_array_equal(packed.infer_images(pictures), whole.infer_images(pictures))


@pytest.mark.filterwarnings("ignore:.* have not been validated")
def test_the_variant_that_serves_best_is_the_same(tiny_quantized, pack, no_cache):
    with load(tiny_quantized) as whole, load(pack) as packed:
        assert packed.variant.name == whole.variant.name
        assert repr(packed) == repr(whole)


def test_what_an_engine_keeps_compiled_is_unpacked_into_the_cache(pack, tmp_path, monkeypatch, pictures):
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path))
    with load(pack, variant="int8-openvino", settings={"CACHE": "on"}) as packed:
        packed.infer_images(pictures)
    assert [path.name for path in tmp_path.glob("packs/*/*/*")]


def test_kernels_are_seen_in_a_pack(edgevit, tiny_quantized, pack, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path))
    [whole, packed] = [edgevit("inspect", path, "--kernels", "--json").data() for path in (tiny_quantized, pack)]
    names = {each["variant"]: each["linears"] for each in whole["variants"]}
    assert {each["variant"]: each["linears"] for each in packed["variants"]} == names


def test_a_model_outlives_its_file(tiny_quantized, pack, tmp_path, pictures):
    copy = tmp_path / "copy.zip"
    copy.write_bytes(pack.read_bytes())
    for name in ("int8-onnxruntime", "int8-openvino"):
        with load(tiny_quantized, variant=name, threads=1) as whole, load(copy, variant=name, threads=1) as model:
            other = tmp_path / "other.zip"
            other.write_bytes(b"nothing")
            other.replace(copy)
            np.testing.assert_array_equal(model.infer_images(pictures), whole.infer_images(pictures))
        copy.write_bytes(pack.read_bytes())


def test_a_pack_needs_no_onnx_and_no_zipfile(pack):
    script = (
        "import sys; from edgevit.runtime import load; load(sys.argv[1], variant='int8-onnxruntime').close()\n"
        "print({'onnx', 'onnx_ir', 'torch', 'zipfile', 'cryptography'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, str(pack)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "set()"


def test_signatures_are_asked_for(tiny_quantized, tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public_key = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = public.pack(tiny_quantized, tmp_path / "signed.zip", variants=["float32"], sign=tmp_path / "key.pem").path
    load(signed, trusted_keys=[public_key]).close()
    for trusted in (
        [],
        [
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ],
    ):
        with pytest.raises(VerificationError, match="not trusted"):
            load(signed, trusted_keys=trusted)
    with pytest.raises(VerificationError, match="not signed"):
        load(tiny_quantized, trusted_keys=[public_key])
    with pytest.raises(InputError, match="no list"):
        load(signed, trusted_keys=public_key)


def test_a_truncated_pack_is_refused(pack, tmp_path):
    for size in (0, 10, 1000, pack.stat().st_size - 1):
        (tmp_path / "cut.zip").write_bytes(pack.read_bytes()[:size])
        with pytest.raises(BundleError, match="not a pack"):
            load(tmp_path / "cut.zip")
