import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgevit.errors import BundleError
from edgevit.quantization.calibration.calibration_table import CalibrationTable, TensorStatistics
from edgevit.quantization.calibration.observers import InputObserver
from edgevit.quantization.calibration.pixels import PixelStatistics

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
RANGES = st.lists(FINITE, min_size=6, max_size=6).map(sorted)
PREDICTED = RANGES.map(lambda v: TensorStatistics.of((v[0], v[5], v[1], v[4], v[2], v[3])))


@st.composite
def seen(draw):
    """Return statistics of something that an observer has seen."""
    width = draw(st.integers(1, 4))
    observer = InputObserver(width)
    values = arrays(np.float32, (draw(st.integers(1, 3)), width), elements=st.floats(-1e6, 1e6, width=32))
    for image in draw(st.lists(values, min_size=1, max_size=3)):
        observer.update(image)
    return observer.statistics()


STATISTICS = PREDICTED | seen()
TABLES = st.builds(
    CalibrationTable,
    inputs=st.dictionaries(st.text(st.characters(exclude_characters="\0"), min_size=1), STATISTICS, max_size=5),
    images=st.integers(0, 2**40),
    model_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    images_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    selection_sha256=st.text("0123456789abcdef", max_size=64),
    image_hashes=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple),
    pixels=st.none() | st.builds(PixelStatistics, *[FINITE] * 6),
)


@settings(max_examples=20, deadline=None)  # each is flushed to the disk
@given(TABLES)
def test_a_table_comes_back_as_it_was(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "table.npz"
    table.save(path)
    assert CalibrationTable.load(path) == table


def test_real_statistics_come_back_exactly(quantized, tmp_path):
    quantized.table.save(tmp_path / "table.npz")
    assert CalibrationTable.load(tmp_path / "table.npz") == quantized.table


def arrays_of(table, path, **changes):
    table.save(path)
    with np.load(path) as arrays:
        return {**arrays, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": np.int64(5)},
        {"schema_version": np.int64(3)},
        {"counts/0": np.full(5, -1)},
        {"counts/0": np.ones(5)},
        {"counts/0": np.ones(4096, dtype=np.int64)},
        {"counts/0": np.zeros(4, dtype=np.int64)},
        {"grid/0": np.array([0.0, 0.0])},
        {"grid/0": np.array([np.nan, 1.0])},
        {"grid/0": np.zeros(3)},
        {"channels/0": np.zeros((3, 32))},
        {"channels/0": np.full((4, 32), np.inf)},
        {"pixels": np.zeros(2)},
        {"moving_minimum": np.full(9, 1e9)},
        {"minimum": np.full(9, np.nan)},
        {"minimum": np.full(9, -np.inf)},
        {"maximum": np.full(9, np.inf)},
        {"minimum": np.full(9, 1e9)},
        {"average_maximum": np.full(9, 1e9)},
        {"maximum": np.zeros(3, dtype=np.float32)},
        {"maximum": np.array([["a"]])},
        {"images": np.zeros(2)},
        {"image_hashes": np.zeros(2)},
        {"image_hashes": np.array(b"00")},
        {"image_hashes": np.array([b"\xff"])},
    ],
)
def test_a_table_with_wrong_values_is_refused(quantized, tmp_path, changes):
    path = tmp_path / "table.npz"
    arrays = arrays_of(quantized.table, path, **changes)
    np.savez(path, **arrays)
    with pytest.raises(BundleError):
        CalibrationTable.load(path)


def test_what_a_table_lacks_of_a_model_is_said(quantized):
    quantized.table.check_layers({"head": 32})
    for layers in ({"head": 33}, {"tail": 32}):
        with pytest.raises(BundleError, match="lacks"):
            quantized.table.check_layers(layers)


def test_a_table_without_an_array_is_refused(quantized, tmp_path):
    path = tmp_path / "table.npz"
    arrays = arrays_of(quantized.table, path)
    del arrays["images"]
    np.savez(path, **arrays)
    with pytest.raises(BundleError, match="images"):
        CalibrationTable.load(path)


def test_a_pickle_is_not_opened(quantized, tmp_path):
    path = tmp_path / "table.npz"
    arrays = arrays_of(quantized.table, path, layers=np.array([print], dtype=object))
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(BundleError, match="allow_pickle"):
        CalibrationTable.load(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "table.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("layers.npy", bytes(257 << 20))
    with pytest.raises(BundleError, match="unpacked"):
        CalibrationTable.load(path)


def test_damaged_files_are_refused(quantized, tmp_path):
    path = tmp_path / "table.npz"
    quantized.table.save(path)
    content = path.read_bytes()
    broken = bytearray(content)
    broken[80] ^= 0xFF
    for damaged in (b"", content[:-30], content[: len(content) // 2], bytes(broken), b"PK\x03\x04" + bytes(50)):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="no calibration table"):
            CalibrationTable.load(path)
    path.unlink()
    with pytest.raises(BundleError):
        CalibrationTable.load(path)


def test_a_plain_array_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    (tmp_path / "table.npz").write_bytes(stream.getvalue())
    with pytest.raises(BundleError, match="no calibration table"):
        CalibrationTable.load(tmp_path / "table.npz")
