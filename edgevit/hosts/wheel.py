"""A wheel of the EdgeViT that runs here, so that a board measures with the same code."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edgevit
from edgevit import resources
from edgevit.errors import MissingDataError

#: What setuptools maps into the package, where it is installed.
_MAPPED = (("_resources", "export"), ("_resources", "calibration"))
_OF_INSTALLATION = ("entry_points.txt", "top_level.txt")
#: A zip archive knows no time before; the same files give the same archive.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder``, and return its path.

    It is made of the files that are imported here: of a checkout, an editable install and a wheel alike. Nothing is
    built, as EdgeViT is all Python.

    Raises:
        MissingDataError: if EdgeViT is not installed, so that nothing tells what it depends on.
    """
    try:
        distribution = importlib.metadata.distribution("edgevit")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDataError(
            "EdgeViT is not installed, so nothing says what a board needs", remedy="pip install -e ."
        ) from error
    # In a checkout the folder edgevit.egg-info may come first, where the same text has another name.
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    if not metadata:
        raise MissingDataError("what EdgeViT depends on is not noted where it is installed", remedy="pip install -e .")
    information = f"edgevit-{distribution.version}.dist-info"
    path = folder / f"edgevit-{distribution.version}-py3-none-any.whl"
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archived = {f"{information}/METADATA": metadata.encode()}
        for name, content in (*_files(distribution, information), *archived.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
        lines.append(f"{information}/RECORD,,\n")
        archive.writestr(zipfile.ZipInfo(f"{information}/RECORD", _TIME), "".join(lines), zipfile.ZIP_DEFLATED)
    return path


def _files(distribution: importlib.metadata.Distribution, information: str) -> Iterator[tuple[str, bytes]]:
    """Yield the names in the wheel and what is in the files, in order.

    Of the folders beside the package a board needs the targets and the recipes.
    """
    folders = {
        "edgevit": Path(edgevit.__file__).parent,
        "edgevit/_resources/export/targets": resources.folder("export") / "targets",
        "edgevit/_resources/calibration": resources.folder("calibration"),
    }
    for place, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            name = f"{place}/{path.relative_to(folder).as_posix()}"
            mapped = place == "edgevit" and path.parts[len(folder.parts) :][:2] in _MAPPED
            if path.is_file() and "__pycache__" not in path.parts and not mapped:
                yield name, path.read_bytes()
    for name in _OF_INSTALLATION:
        text = distribution.read_text(name)
        if text is not None:
            yield f"{information}/{name}", text.encode()
    yield f"{information}/WHEEL", b"Wheel-Version: 1.0\nGenerator: edgevit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
