"""What calibration measured, as a file: ``table.npz``, plain arrays without pickles."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import msgspec
import numpy as np

from edgevit.errors import BundleError
from edgevit.files import atomic_path
from edgevit.recipes import Observer

SCHEMA_VERSION = 1

_LARGEST = 64 << 20  # bytes that a table's arrays may take; a ViT-L's takes 20 kB
_REMEDY = "calibrate again with `edgevit quantize`"


class TensorStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One activation tensor over all calibration images.

    ``minimum`` and ``maximum`` are its smallest and largest value; ``average_minimum`` and ``average_maximum`` the mean
    of those of groups of images (see ``observers``), within them.

    Raises:
        BundleError: if they are not finite, or not in order.

    """

    minimum: float
    maximum: float
    average_minimum: float
    average_maximum: float

    def __post_init__(self) -> None:
        ordered = self.minimum <= self.average_minimum <= self.average_maximum <= self.maximum
        if not ordered or self.minimum == -np.inf or self.maximum == np.inf:
            raise BundleError(f"{self} is no range of activations", remedy=_REMEDY)

    def range(self, observer: Observer) -> tuple[float, float]:
        """Return the range that ``observer`` reads off them."""
        if observer == "minmax":
            return self.minimum, self.maximum
        return self.average_minimum, self.average_maximum

    @classmethod
    def between(cls, minimum: float, maximum: float) -> TensorStatistics:
        """Return the statistics of a tensor that is expected to stay between both."""
        return cls(minimum=minimum, maximum=maximum, average_minimum=minimum, average_maximum=maximum)

    def shifted(self, by: float) -> TensorStatistics:
        """Return the statistics of the same tensor less ``by``."""
        return TensorStatistics(**{field: getattr(self, field) - by for field in _FIELDS})


_FIELDS = TensorStatistics.__struct_fields__


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
                **{
                    field: np.array([getattr(statistics, field) for statistics in self.inputs.values()])
                    for field in _FIELDS
                },
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
                columns = zip(arrays["layers"], *(arrays[field] for field in _FIELDS), strict=True)
                return cls(
                    inputs={
                        str(name): TensorStatistics(**dict(zip(_FIELDS, map(float, values), strict=True)))
                        for name, *values in columns
                    },
                    images=int(arrays["images"]),
                    model_sha256=str(arrays["model_sha256"]),
                    images_sha256=str(arrays["images_sha256"]),
                )
        except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise BundleError(f"{path} is no calibration table: {error}", remedy=_REMEDY) from error
