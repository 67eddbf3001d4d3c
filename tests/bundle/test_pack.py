"""Packs: one file that holds what a bundle holds, always the same bytes, and nothing that it should not."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pack_files import files_of, written

from edgevit.bundle import zip_layout
from edgevit.bundle.manifest import File
from edgevit.bundle.pack import Pack, begins_as_pack, is_aligned, refuse_pack
from edgevit.bundle.packing import write_pack
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, StorageError

ALL = ("float32", "int8-openvino")


@pytest.fixture
def whole(bundle, add_int8, add_report):
    return add_report(add_int8(bundle, b"one"), b"report")


@pytest.fixture
def pack(whole, tmp_path):
    path = tmp_path / "test.edgevit.zip"
    write_pack(whole, path, ALL)
    return path


def test_a_pack_has_what_the_bundle_has_but_calibration_and_report(whole, pack):
    opened = Bundle.open(pack)
    assert opened.manifest == msgspec.structs.replace(whole.manifest, extra=())
    assert opened.golden().images == whole.golden().images
    np.testing.assert_array_equal(opened.golden().logits, whole.golden().logits)
    for name in ALL:
        contents = opened.verified(opened.variant(name).files)
        paths = whole.verified(whole.variant(name).files)
        assert [bytes(each) for each in contents] == [path.read_bytes() for path in paths]


def test_the_same_variants_are_the_same_bytes(whole, pack, tmp_path):
    os.utime(whole.verify_files("float32"), (1, 1))
    write_pack(whole, tmp_path / "again.zip", ALL)
    write_pack(Bundle.open(pack), tmp_path / "of-a-pack.zip", ALL)
    assert pack.read_bytes() == (tmp_path / "again.zip").read_bytes() == (tmp_path / "of-a-pack.zip").read_bytes()


def test_numbers_of_folders_do_not_show(whole, add_int8, tmp_path):
    replaced = add_int8(whole, b"two")
    fresh = add_int8(replaced, b"one")
    write_pack(fresh, tmp_path / "fresh.zip", ALL)
    packed = Bundle.open(tmp_path / "fresh.zip").manifest.variants
    assert {file.path.partition("/")[0] for variant in packed for file in variant.files} == set(ALL)


def test_models_begin_at_pages(pack):
    with zipfile.ZipFile(pack) as archive:
        content = pack.read_bytes()
        for each in archive.infolist():
            start = content.index(archive.read(each.filename), each.header_offset)
            assert start % zip_layout.ALIGNMENT == 0 or not is_aligned(each.filename)


def test_what_is_unpacked_is_a_bundle(pack, tmp_path):
    with zipfile.ZipFile(pack) as archive:
        archive.extractall(tmp_path / "unpacked.edgevit")
    unpacked = Bundle.open(tmp_path / "unpacked.edgevit")
    assert unpacked.manifest == Bundle.open(pack).manifest
    assert unpacked.verify_files("int8-openvino").is_file()


def test_a_pack_is_never_changed(pack, add_report, measured):
    opened = Bundle.open(pack)
    with pytest.raises(BundleError, match="never changed") as caught:
        add_report(opened, b"new")
    assert "unzip" in caught.value.remedy
    before = pack.read_bytes()
    noted = opened.update_variant("float32", **measured)
    assert noted.variant("float32").accuracy == measured["accuracy"]
    assert pack.read_bytes() == before


def test_what_is_unpacked_for_an_engine_goes_by_its_hash_and_is_checked_each_time(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    opened = Bundle.open(pack)
    path = opened.verify_files("int8-openvino")
    assert path == opened.verify_files("int8-openvino")
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"!")
    assert opened.verify_files("int8-openvino").read_bytes() == right
    path.with_suffix(".bin").unlink()
    assert opened.verify_files("int8-openvino").with_suffix(".bin").is_file()


def test_a_cache_that_cannot_be_written_is_named(pack, tmp_path, monkeypatch):
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StorageError) as caught:
        Bundle.open(pack).verify_files("int8-openvino")
    assert "EDGEVIT_CACHE" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["float32/model.onnx", "golden/00.png", "golden/logits.npy", "int8-openvino/model.bin"]
)
def test_a_file_that_differs_is_damaged(pack, name):
    files = files_of(pack)
    files[name] = bytes([files[name][0] ^ 1]) + files[name][1:]
    opened = Bundle.open(written(pack, files))
    listed = [*opened.manifest.golden, *(file for one in opened.manifest.variants for file in one.files)]
    with pytest.raises(BundleError, match="damaged"):
        opened.verified([file for file in listed if file.path == name])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.pop("golden/00.png"), "golden/00.png is missing"),
        (lambda files: files.update({"golden/00.png": b"short"}), "has 5 bytes"),
        (lambda files: files.update({"more.txt": b""}), "does not list more.txt"),
        (lambda files: files.update({"../../etc/passwd": b""}), "does not list"),
        (lambda files: files.update({"/etc/passwd": b""}), "does not list"),
        (lambda files: files.pop("manifest.json"), "no manifest.json"),
    ],
)
def test_a_pack_has_what_its_manifest_lists_and_nothing_else(pack, change, problem):
    files = files_of(pack)
    change(files)
    with pytest.raises(BundleError, match=problem):
        Bundle.open(written(pack, files))


def test_a_name_twice_is_refused(pack):
    entries = [zip_layout.Entry("manifest.json", 0, 0, aligned=False)] * 2
    found = list(zip_layout.placed(entries))
    pack.write_bytes(b"".join(each.header for each in found) + zip_layout.directory(found))
    with pytest.raises(BundleError, match="twice"):
        Bundle.open(pack)


def test_a_manifest_that_lists_itself_is_refused(pack):
    files = files_of(pack)
    manifest = Bundle.open(pack).manifest
    for name in ("manifest.json", "signature.json"):
        listed = msgspec.structs.replace(manifest, extra=(File(path=name, sha256="0" * 64, bytes=2),))
        with pytest.raises(BundleError, match="lists"):
            Bundle.open(written(pack, files | {"manifest.json": encode_manifest(listed)}))


@given(share=st.floats(0, 1), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bit_that_flips_is_found(pack, share, bit):
    content = pack.read_bytes()
    place = min(int(share * len(content)), len(content) - 1)
    other = pack.with_name("other.zip")
    other.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
    with pytest.raises(BundleError):
        read_all(other)


def read_all(path: Path) -> None:
    opened = Bundle.open(path)
    opened.golden()
    for variant in opened.manifest.variants:
        opened.verified(variant.files)


def test_other_files_are_no_packs(tmp_path):
    for content in (b"PK\5\6" + bytes(18), b"\x89PNG" * 100):
        (tmp_path / "x.zip").write_bytes(content)
        for refuse in (Bundle.open, refuse_pack):
            with pytest.raises(BundleError, match=r"is not a bundle: ") as caught:
                refuse(tmp_path / "x.zip")
            assert "edgevit predict BUNDLE IMAGE" in caught.value.remedy
    for content in (b"", b"PK", b"PK\3\4" * 100):  # as if the rest were missing
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(BundleError, match=r"is not a pack: it is (empty|cut short)"):
            Bundle.open(tmp_path / "x.zip")
    assert not begins_as_pack(tmp_path / "x.zip")
    assert not begins_as_pack(tmp_path)


def test_a_model_that_opens_other_files_is_refused_in_a_pack_too(pack):
    files = files_of(pack)
    with_entity = b'<!DOCTYPE net SYSTEM "/etc/passwd"><net/>'
    files["int8-openvino/model.xml"] = with_entity
    manifest = Bundle.open(pack).manifest

    def relisted(file: File) -> File:
        content = files[file.path]
        return msgspec.structs.replace(file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))

    listed = tuple(msgspec.structs.replace(one, files=tuple(map(relisted, one.files))) for one in manifest.variants)
    files["manifest.json"] = encode_manifest(msgspec.structs.replace(manifest, variants=listed))
    opened = Bundle.open(written(pack, files))
    with pytest.raises(BundleError, match="not a readable IR"):
        opened.verify_packed("int8-openvino", (".xml", ".onnx"))


def test_a_kill_while_it_is_written_leaves_what_was_there(whole, pack, tmp_path):
    before = pack.read_bytes()
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgevit.bundle import packing\n"
        "from edgevit.bundle.store import Bundle\n"
        "count = 0\n"
        "def chunks(source, real=packing._chunks):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == int(sys.argv[3]): os.kill(os.getpid(), 9)\n"
        "    yield from real(source)\n"
        "packing._chunks = chunks\n"
        "packing.write_pack(Bundle.open(sys.argv[1]), Path(sys.argv[2]), ['float32'])\n"
    )
    for moment in (2, 6, 9):
        command = [sys.executable, "-c", script, str(whole.path), str(pack), str(moment)]
        assert subprocess.run(command, check=False).returncode == -9
        assert pack.read_bytes() == before
    write_pack(whole, pack, ["float32"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_pack_is_read_while_another_takes_its_place(whole, pack):
    opened = Pack(pack)
    write_pack(whole, pack, ["float32"])
    assert {variant.name for variant in opened.manifest.variants} == set(ALL)
    assert len(opened.verified(opened.manifest.variants[1].files)) == 2
