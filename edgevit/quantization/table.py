"""What calibration measured, as a file: ``table.npz``, plain arrays without pickles."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import msgspec
import numpy as np

from edgevit.errors import BundleError
from edgevit.files import atomic_path

SCHEMA_VERSION = 1

_LARGEST = 64 << 20  # bytes that a table's arrays may take; a ViT-L's takes 20 kB
_REMEDY = "calibrate again with `edgevit quantize`"


class TensorStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One activation tensor over all calibration images: its smallest and largest value, both finite."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not -np.inf < self.minimum <= self.maximum < np.inf:
            raise BundleError(f"[{self.minimum}, {self.maximum}] is no range of activations", remedy=_REMEDY)


class CalibrationTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs of a model's Linear layers, by the layer's name, over ``images`` calibration images.

    ``model_sha256`` is that of the float32 ONNX file, ``images_sha256`` that of the preprocessed images in order.
    """

    inputs: dict[str, TensorStatistics]
    images: int
    model_sha256: str
    images_sha256: str

    def save(self, path: Path) -> None:
        """Write the table to ``path``, whole or not at all.

        Raises:
            StorageError: if it cannot be written.

        """
        with atomic_path(path) as draft, draft.open("wb") as stream:
            np.savez_compressed(
                stream,
                allow_pickle=False,
                schema_version=np.int64(SCHEMA_VERSION),
                layers=np.array(list(self.inputs), dtype=np.str_),
                minimum=np.array([statistics.minimum for statistics in self.inputs.values()], dtype=np.float32),
                maximum=np.array([statistics.maximum for statistics in self.inputs.values()], dtype=np.float32),
                images=np.int64(self.images),
                model_sha256=np.str_(self.model_sha256),
                images_sha256=np.str_(self.images_sha256),
            )

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read a table.

        Raises:
            BundleError: if it is missing, damaged, or of another version of EdgeViT.

        """
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > _LARGEST:
                raise BundleError(f"{path} would take {size} bytes unpacked", remedy=_REMEDY)
            with np.load(path, allow_pickle=False) as arrays:
                version = int(arrays["schema_version"])
                if version != SCHEMA_VERSION:
                    raise BundleError(f"{path} has version {version}, not {SCHEMA_VERSION}", remedy=_REMEDY)
                ranges = zip(arrays["layers"], arrays["minimum"], arrays["maximum"], strict=True)
                return cls(
                    inputs={
                        str(name): TensorStatistics(minimum=float(low), maximum=float(high))
                        for name, low, high in ranges
                    },
                    images=int(arrays["images"]),
                    model_sha256=str(arrays["model_sha256"]),
                    images_sha256=str(arrays["images_sha256"]),
                )
        except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise BundleError(f"{path} is no calibration table: {error}", remedy=_REMEDY) from error
