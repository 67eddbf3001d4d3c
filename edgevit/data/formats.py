"""Names of file formats that EdgeViT does not read, for error messages."""

from __future__ import annotations

from pathlib import Path

_SUFFIXES = {
    "HEIC": ".heic .heics .heif .heifs .hif",
    "AVIF": ".avif .avifs",
    "JPEG 2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "JPEG XL": ".jxl",
    "JPEG XR": ".jxr .wdp .hdp",
    "TGA": ".tga .icb .vda .vst",
    "ICO": ".ico .cur",
    "PSD": ".psd .psb",
    "XCF": ".xcf",
    "SVG": ".svg .svgz",
    "PDF": ".pdf",
    "EPS": ".eps .ps",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "DDS": ".dds",
    "DICOM": ".dcm .dicom",
    "PCX": ".pcx",
    "raw": ".dng .nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .orf .rw2 .raf .pef .srw .raw .x3f .3fr .iiq .erf .kdc .rwl",
}
_BY_SUFFIX = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

UNREAD_SUFFIXES = frozenset(_BY_SUFFIX)
"""How the names of images in formats that are not read end, in lower case."""

HEAD = 1024
"""How many bytes of a file's beginning tell its format."""

# What these files begin with. TIFF and its relatives are told apart in edgevit.data.images.
_SIGNATURES = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"gimp xcf": "XCF",
    b"%PDF": "PDF",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"DDS ": "DDS",
    b"FUJIFILMCCD-RAW": "raw",
    b"IIRO": "raw",
    b"IIRS": "raw",
    b"MMOR": "raw",
    b"IIU\0": "raw",
    b"FOVb": "raw",
}

_READ = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_PHOTOS = ("HEIC", "AVIF", "JPEG 2000", "JPEG XL", "JPEG XR")

# The brands of the ISO base media format that hold still images.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "raw",
} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC")


def is_image(head: bytes) -> bool:
    """Return whether a file begins as an image does: JPEG, PNG, GIF, TIFF, WebP, or one that is not read."""
    return head.startswith(_READ) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _by_content(head) in _PHOTOS


def named_as(path: Path) -> str | None:
    """Return the format that is not read and that ``path`` is named as, or None."""
    return _BY_SUFFIX.get(path.suffix.lower())


def format_of(head: bytes, path: Path | None = None) -> str | None:
    """Return which format that is not read a file has, by its first ``HEAD`` bytes, else by its name; or None."""
    return _by_content(head) or (named_as(path) if path else None)


def what_it_is(head: bytes) -> str | None:
    """Return what stands where an image should, with what to do, for files that are often found there; or None."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not an image"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not an image (git lfs pull fetches it)"
    film = head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3")
    if film or (head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"WAVE")):
        return "is a video or sound, not an image"
    return None


def conversion_hint(name: str, file: str) -> str:
    """Return what to do with ``file`` in the format ``name``."""
    target = "PNG" if name in ("SVG", "TGA", "ICO") else "JPEG"
    if "." not in Path(file).name:
        return f"convert it to {target}"
    changed = Path(file).with_suffix(".png" if target == "PNG" else ".jpg").name
    return f"convert it to {target}: magick {Path(file).name} {changed}"


def _by_content(head: bytes) -> str | None:
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    if head[128:132] == b"DICM":
        return "DICOM"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<?xml", b"<svg", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        return "SVG"
    return "raw" if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR" else None


def _by_brands(head: bytes) -> str | None:
    """Name a file of the ISO base media format by its major brand, or, where that is a general one, by the others."""
    size = min(int.from_bytes(head[:4], "big"), HEAD)
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, size, 4))]
    names = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    general = brands[0] in (b"mif1", b"msf1")
    return "AVIF" if general and "AVIF" in names else names[0] if names else None
