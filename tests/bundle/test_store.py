import errno
import fcntl
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edgevit.bundle.manifest import Arithmetic, Kernels
from edgevit.bundle.store import Bundle
from edgevit.bundle.summary import summary
from edgevit.errors import BundleError, ImageError, StorageError
from edgevit.files import sha256_of


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_created_bundle_opens_again(bundle: Bundle):
    again = Bundle.open(str(bundle.path))
    assert again.manifest == bundle.manifest
    assert names(bundle.path) == {".lock", "manifest.json", "float32", "golden"}
    assert again.verify_files("float32") == bundle.path / "float32/model.onnx"
    assert again.verify_files("float32").read_bytes().endswith(b"float32 model" * 99)
    variant = again.variant("float32")
    assert (variant.precision, variant.backend) == ("float32", "onnxruntime")
    assert variant.files[0].sha256 == sha256_of(bundle.path / "float32/model.onnx")


def test_bundles_variants_and_kernels_print_in_a_line(bundle: Bundle):
    float_linears = tuple(f"blocks.{index}.mlp" for index in range(500))
    kernels = Kernels(linears=502, integer_linears=2, float_linears=float_linears)
    variant = msgspec.structs.replace(bundle.variant("float32"), kernels=kernels)
    assert repr(bundle) == f"<Bundle '{bundle.path}': float32>"
    assert repr(variant) == f"<Variant 'float32': precision=float32, engine=onnxruntime, bytes={variant.bytes}>"
    assert repr(variant.kernels) == "<Kernels: integer_linears=2 of 502>"
    sums = Arithmetic(kind="Linear", macs=8, integer_macs=6, nodes=2, float_nodes=1)
    counted = msgspec.structs.replace(kernels, arithmetic=(sums,))
    assert repr(counted) == "<Kernels: integer_linears=2 of 502, integer_share=0.75>"


def test_golden_images_come_back_bit_for_bit(bundle: Bundle):
    pixels = np.random.default_rng(1300).integers(0, 256, (2, 10, 12, 3), dtype=np.uint8)
    golden = bundle.golden()
    assert np.array_equal(np.stack([np.asarray(image) for image in golden.images]), pixels)
    assert np.array_equal(golden.logits, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert golden.logits.dtype == np.float32


def test_what_is_there_already_is_kept(bundle: Bundle, make_bundle, tmp_path: Path):
    with pytest.raises(BundleError, match="exists already"):
        make_bundle(bundle.path, b"other")
    bundle.verify_files("float32")
    for existing in ("refuse", "replace"):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        (folder / "cat.jpg").write_bytes(b"cat")
        with pytest.raises(BundleError, match="not a bundle"):
            make_bundle(folder, existing=existing)
        assert names(folder) == {"cat.jpg"}
        file = tmp_path / "file"
        file.write_bytes(b"text")
        with pytest.raises(BundleError, match="not a bundle"):
            make_bundle(file, existing=existing)
        assert file.read_bytes() == b"text"


def test_a_bundle_is_replaced_as_a_whole_when_asked(bundle: Bundle, make_bundle, add_int8, add_report):
    add_report(add_int8(bundle, b"int8"), b"report")
    replaced = make_bundle(bundle.path, b"other", existing="replace")
    assert names(bundle.path) == {".lock", "manifest.json", "float32", "golden"}
    assert replaced.verify_files("float32").read_bytes().endswith(b"er")
    assert Bundle.open(bundle.path).manifest == replaced.manifest


def test_creating_needs_parts_that_fit(bundle: Bundle, tmp_path: Path):
    manifest = bundle.manifest
    good = {
        "name": "x",
        "spec": manifest.spec,
        "preprocess": manifest.preprocess,
        "labels": ("a", "b", "c"),
        "provenance": manifest.provenance,
        "backend": "onnxruntime",
        "float32": bundle.path / "float32/model.onnx",
        "golden_images": [Image.new("RGB", (8, 8))],
        "golden_logits": np.zeros((1, 3), np.float32),
    }
    for wrong in (
        {"labels": ("a", "b")},
        {"golden_images": [], "golden_logits": np.zeros((0, 3), np.float32)},
        {"golden_logits": np.zeros((2, 3), np.float32)},
        {"golden_logits": np.zeros((1, 3), np.float64)},
        {"golden_logits": np.full((1, 3), np.nan, np.float32)},
        {"float32": tmp_path / "absent.onnx"},
    ):
        with pytest.raises(BundleError):
            Bundle.create(tmp_path / "bad.edgevit", **(good | wrong))
        assert not (tmp_path / "bad.edgevit").exists()
    with pytest.raises(ImageError):
        Bundle.create(tmp_path / "bad.edgevit", **(good | {"golden_images": [b"no image"]}))
    assert not (tmp_path / "bad.edgevit").exists()


def test_a_variant_is_added_and_measured_and_replaced(bundle: Bundle, add_int8, measured):
    added = add_int8(bundle, b"one")
    assert [variant.name for variant in bundle.manifest.variants] == ["float32"], "a bundle does not change by itself"
    variant = added.variant("int8-openvino")
    assert [file.path for file in variant.files] == ["int8-openvino/model.xml", "int8-openvino/model.bin"]
    assert variant.settings == {"HINT": "f32"}
    assert variant.bytes == 51 * 3 + len("<net></net>")

    for name, value in measured.items():
        added = added.update_variant("int8-openvino", **{name: value})
    assert added.variant("int8-openvino") == msgspec.structs.replace(variant, **measured)
    assert Bundle.open(bundle.path).manifest == added.manifest

    replaced = add_int8(added, b"another")
    assert replaced.variant("int8-openvino").accuracy is None, "what was measured was measured on other files"
    assert replaced.verify_files("int8-openvino") == bundle.path / "int8-openvino/model.xml"
    assert replaced.verify_files("int8-openvino").read_bytes() == b"<net>another</net>"
    assert names(bundle.path) == {".lock", "manifest.json", "float32", "golden", "int8-openvino"}


def test_figures_of_files_that_were_replaced_are_refused(bundle: Bundle, add_int8, measured):
    one = add_int8(bundle, b"one")
    add_int8(one, b"two")
    with pytest.raises(BundleError, match="replaced since it was measured"):
        one.update_variant("int8-openvino", accuracy=measured["accuracy"])


def test_what_was_made_of_a_model_is_not_put_beside_another(
    bundle: Bundle, make_bundle, add_int8, add_report, measured
):
    other = make_bundle(bundle.path, b"other", existing="replace")
    for change in (
        lambda: add_int8(bundle, b"int8"),
        lambda: add_report(bundle, b"report"),
        lambda: bundle.update_variant("float32", accuracy=measured["accuracy"]),
    ):
        with pytest.raises(BundleError, match="replaced by another model meanwhile"):
            change()
    assert Bundle.open(bundle.path).manifest == other.manifest
    assert names(bundle.path) == {".lock", "manifest.json", "float32", "golden"}


def test_one_of_the_same_model_takes_what_was_made_of_the_one_before(bundle: Bundle, make_bundle, add_int8):
    make_bundle(bundle.path, existing="replace")
    assert add_int8(bundle, b"int8").variant("int8-openvino").files


def test_figures_that_are_no_numbers_never_reach_the_manifest(bundle: Bundle, measured):
    bad = msgspec.structs.replace(measured["accuracy"], agreement=float("nan"))
    with pytest.raises(BundleError, match=r"accuracy\.agreement"):
        bundle.update_variant("float32", accuracy=bad)
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_two_views_of_a_bundle_do_not_undo_each_other(bundle: Bundle, add_int8, add_report, measured):
    add_int8(bundle, b"int8")
    add_report(bundle, b"report")
    after = bundle.update_variant("float32", kernels=measured["kernels"])
    assert [variant.name for variant in after.manifest.variants] == ["float32", "int8-openvino"]
    assert after.manifest.extra


def test_further_files_are_replaced_by_folder(bundle: Bundle, add_report):
    one = add_report(bundle, b"1")
    with_plan = one.add_extra("calibration", lambda folder: [Path(_written(folder / "plan.json", b"{}"))])
    two = add_report(with_plan, b"22")
    assert {file.path for file in two.manifest.extra} == {
        "report/index.html",
        "report/report.json",
        "calibration/plan.json",
    }
    assert two.verify_extra("report/report.json").path.read_bytes() == b"22"
    with pytest.raises(BundleError, match=r"calibration/table\.npz"):
        two.verify_extra("calibration/table.npz")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["", "Int8", "a/b", "..", ".", ".draft", "int8.2", "a b", "golden", "report", "a\n"])
def test_names_that_are_no_folder_or_taken_are_refused(bundle: Bundle, add_report, name: str):
    bundle = add_report(bundle, b"report")
    with pytest.raises(BundleError):
        bundle.add_variant(
            name,
            precision="int8",
            backend="openvino",
            target="any",
            fill=lambda folder: [_written(folder / "model.onnx", b"x")],
        )
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert not (bundle.path / ".draft").exists()


def test_extra_folders_cannot_take_the_place_of_a_variant(bundle: Bundle):
    for name in ("float32", "golden"):
        with pytest.raises(BundleError, match="another folder"):
            bundle.add_extra(name, lambda folder: [_written(folder / "x", b"x")])


def test_a_variant_needs_a_file_and_no_links(bundle: Bundle, tmp_path: Path):
    def linked(folder: Path) -> list[Path]:
        (folder / "model.onnx").symlink_to(tmp_path / "source1300.onnx")
        return [folder / "model.onnx"]

    for fill in (linked, lambda folder: []):
        with pytest.raises(BundleError, match="no file"):
            bundle.add_variant("int8", precision="int8", backend="openvino", target="any", fill=fill)
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_a_folder_of_the_users_own_is_neither_used_nor_removed(bundle: Bundle, add_int8):
    _written_in = bundle.path / "int8-openvino"
    _written_in.mkdir()
    (_written_in / "notes.txt").write_text("mine")
    bundle = add_int8(add_int8(bundle, b"one"), b"two")
    assert (_written_in / "notes.txt").read_text() == "mine"
    assert bundle.verify_files("int8-openvino").read_bytes() == b"<net>two</net>"
    assert len(list(bundle.path.glob("int8-openvino*"))) == 2
    assert Bundle.open(bundle.path).variant("int8-openvino") == bundle.variant("int8-openvino")


def test_only_one_process_changes_a_bundle(bundle: Bundle, make_bundle, add_int8):
    with (bundle.path / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match="another process"):
            add_int8(bundle, b"x")
        with pytest.raises(BundleError, match="another process"):
            make_bundle(bundle.path, existing="replace")
        Bundle.open(bundle.path).verify_files("float32")
    add_int8(bundle, b"x")


def test_changing_a_bundle_within_a_change_of_it_is_refused(bundle: Bundle, add_report):
    with pytest.raises(BundleError, match="another process"):
        bundle.add_variant(
            "int8", precision="int8", backend="b", target="t", fill=lambda folder: add_report(bundle, b"") and []
        )


def test_a_bundle_that_has_gone_is_said_to_be_gone(bundle: Bundle, add_int8, tmp_path: Path):
    bundle.path.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="no bundle"):
        add_int8(bundle, b"x")
    assert not bundle.path.exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(bundle: Bundle, add_int8, monkeypatch, code: int):
    real = os.open

    def refusing(path, flags, *arguments, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code))
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StorageError) as caught:
        add_int8(bundle, b"x")
    assert caught.value.remedy
    Bundle.open(bundle.path).verify_files("float32")


def test_without_hard_links_the_new_folder_keeps_its_number(bundle: Bundle, add_int8, monkeypatch):
    def unsupported(*arguments, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    for content in (b"one", b"two", b"three"):
        bundle = add_int8(bundle, content)
        assert Bundle.open(bundle.path).verify_files("int8-openvino").read_bytes() == b"<net>" + content + b"</net>"
        assert len(list(bundle.path.glob("int8-openvino*"))) == 1


def test_damage_is_found_by_size_at_once_and_by_content_when_used(bundle: Bundle):
    model = bundle.path / "float32/model.onnx"
    content = model.read_bytes()
    model.write_bytes(b"F" + content[1:])
    opened = Bundle.open(bundle.path)
    with pytest.raises(BundleError, match="damaged"):
        opened.verify_files("float32")
    assert summary(opened).variants[0].problem is not None
    model.write_bytes(content[:-1])
    with pytest.raises(BundleError, match="1299 bytes, not 1300"):
        Bundle.open(bundle.path)
    model.unlink()
    with pytest.raises(BundleError, match="missing"):
        Bundle.open(bundle.path)
    model.mkdir()
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle.path)


def test_damaged_golden_images_are_not_believed(bundle: Bundle):
    (bundle.path / "golden/00.png").write_bytes(bytes(bundle.manifest.golden[0].bytes))
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle.path).golden()


def test_the_summary_tells_everything_as_plain_json(bundle: Bundle, add_int8, add_report, measured):
    bundle = add_report(add_int8(bundle, b"int8").update_variant("int8-openvino", **measured), b"report")
    plain = msgspec.json.decode(msgspec.json.encode(summary(bundle)))
    assert plain["name"] == "test"
    assert plain["spec"]["width"] == 8
    float32, int8 = plain["variants"]
    assert (float32["name"], float32["bytes"], float32["problem"]) == ("float32", 1300, None)
    assert (int8["path"], int8["accuracy"]["top1"]) == (str(bundle.path / "int8-openvino/model.xml"), 0.9)
    assert plain["extra"] == ["report/index.html", "report/report.json"]
    assert plain["golden_images"] == 2
