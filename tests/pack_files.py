"""Archives in the form of a pack, whatever is in them."""

import zipfile
import zlib
from pathlib import Path

from edgevit.bundle import zip_layout
from edgevit.bundle.pack import is_aligned


def written(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive in the form of a pack."""
    entries = [zip_layout.Entry(name, zlib.crc32(each), len(each), is_aligned(name)) for name, each in files.items()]
    found = list(zip_layout.placed(entries))
    parts = [each.header + files[each.entry.name] for each in found]
    path.write_bytes(b"".join(parts) + zip_layout.directory(found))
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """Return what is in an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
