"""What is no image that EdgeViT reads is called by its name."""

import io

import pytest
from PIL import Image, features

from edgevit.data.formats import format_of
from edgevit.data.images import decode_image
from edgevit.errors import ImageError

PHOTO = Image.effect_noise((32, 32), 60).convert("RGB")


def encoded(kind, **options):
    stream = io.BytesIO()
    PHOTO.save(stream, kind, **options)
    return stream.getvalue()


def ftyp(major, *others):
    brands = b"".join((major, b"\0\0\0\0", *others))
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x10mdat" + bytes(64)


# What Pillow itself writes is as others write it; for what it cannot, the beginnings are those of the standards.
WRITTEN = [
    ("TGA", "photo.tga", "TGA"),
    ("ICO", "photo.ico", "ICO"),
    ("PDF", "photo.pdf", "PDF"),
    ("EPS", "photo.eps", "EPS"),
    ("DDS", "photo.dds", "DDS"),
    ("PCX", "photo.pcx", "PCX"),
    *([("JPEG2000", "photo.jp2", "JPEG 2000")] if features.check("jpg_2000") else []),
    *([("AVIF", "photo.avif", "AVIF")] if features.check("avif") else []),
]
BEGUN = [
    (ftyp(b"heic", b"mif1", b"heic"), "HEIC"),
    (ftyp(b"mif1", b"heic"), "HEIC"),
    (ftyp(b"mif1", b"avif"), "AVIF"),
    (ftyp(b"avif", b"mif1", b"miaf"), "AVIF"),
    (ftyp(b"crx ", b"isom"), "raw"),
    (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    (b"\xff\x0a" + bytes(40), "JPEG XL"),
    (b"8BPS\0\1" + bytes(40), "PSD"),
    (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    (b'<svg width="4" height="4"/>', "SVG"),
    (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw"),
]


@pytest.mark.parametrize(("kind", "name", "said"), WRITTEN, ids=[name for _, name, _ in WRITTEN])
def test_files_that_pillow_writes(tmp_path, kind, name, said):
    (tmp_path / name).write_bytes(encoded(kind))
    with pytest.raises(ImageError, match=f"{name} is {said}, which EdgeViT does not read") as caught:
        decode_image(tmp_path / name)
    assert "convert it to" in caught.value.remedy
    assert name in caught.value.remedy


@pytest.mark.parametrize(("content", "said"), BEGUN)
def test_content_goes_before_the_name(tmp_path, content, said):
    assert format_of(content) == said
    (tmp_path / "photo.jpg").write_bytes(content)  # as phones and converters name what they send
    for source in (tmp_path / "photo.jpg", content, io.BytesIO(content)):
        with pytest.raises(ImageError, match=f"is {said}, which"):
            decode_image(source)


@pytest.mark.parametrize("suffix", ["heic", "HEIF", "avif", "jp2", "tga", "ico", "psd", "NEF", "svg", "pdf", "jxl"])
def test_the_name_tells_where_the_content_does_not(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(b"\1\2\3\4")
    with pytest.raises(ImageError, match="which EdgeViT does not read"):
        decode_image(path)


def test_an_image_may_have_another_name(tmp_path):
    (tmp_path / "photo.heic").write_bytes(encoded("JPEG"))
    assert decode_image(tmp_path / "photo.heic").size == (32, 32)


def test_the_preview_in_a_raw_file_is_not_the_photo(tmp_path):
    for name, tags in (("a.tif", {254: 1}), ("b.tif", {50706: b"\1\4\0\0"}), ("c.nef", {}), ("d.DNG", {})):
        PHOTO.save(tmp_path / name, "TIFF", tiffinfo=tags)
        with pytest.raises(ImageError, match="is raw, which"):
            decode_image(tmp_path / name)
    PHOTO.save(tmp_path / "photo.tif", tiffinfo={254: 0})
    assert decode_image(tmp_path / "photo.tif").size == (32, 32)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (ftyp(b"isom", b"mp41"), "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\1\2\3\4", "not an image, or is damaged"),
    ],
)
def test_what_else_lies_among_images(tmp_path, content, said):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=said):
        decode_image(tmp_path / "photo.jpg")
