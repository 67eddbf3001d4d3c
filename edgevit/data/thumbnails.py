"""Small pictures of images, for people to look at."""

from __future__ import annotations

import io

from PIL import Image

#: Pixels of the longer side, and the largest file: a photo takes some 4 kB.
SIDE = 112
MOST_BYTES = 32 << 10
_QUALITIES = (78, 50, 20)


def thumbnail(image: Image.Image) -> bytes:
    """Return ``image`` as a small JPEG of at most ``MOST_BYTES``; nothing but pixels goes into it, no EXIF either."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    bare = Image.frombytes("RGB", small.size, small.tobytes())
    for quality in _QUALITIES:
        stream = io.BytesIO()
        bare.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MOST_BYTES:
            break
    return stream.getvalue()


def is_thumbnail(content: bytes) -> bool:
    """Say whether ``content`` is such a JPEG, which a page may show."""
    if len(content) > MOST_BYTES or not content.startswith(b"\xff\xd8\xff"):
        return False
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if max(image.size) > SIDE:
                return False
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
