import numpy as np

from edgevit.quantization.reservoir import BYTES, FEWEST, ROWS, Reservoir


def test_every_row_is_as_likely_to_be_kept():
    kept = np.zeros(400)
    for seed in range(300):
        reservoir = Reservoir(1, seed=seed)
        for start in range(0, 400, 50):
            reservoir.update(np.arange(start, start + 50, dtype=np.float32)[:, None])
        rows = reservoir.rows()[:, 0].astype(int)
        assert len(set(rows)) == ROWS
        kept[rows] += 1
    # 48 expected of each, with a deviation of 6.3; the means of fifty of them with one of 0.9.
    assert 20 < kept.min() < kept.max() < 80
    assert np.abs(kept.reshape(8, 50).mean(axis=1) - 300 * ROWS / 400).max() < 4


def test_fewer_rows_than_there_is_room_for_are_all_kept():
    reservoir = Reservoir(2, seed=0)
    for row in range(5):
        reservoir.update(np.full((1, 2), row, dtype=np.float32))
    np.testing.assert_array_equal(reservoir.rows()[:, 0], range(5))


def test_memory_is_bounded_by_rows_and_bytes():
    for width, room in ((8, ROWS), (BYTES // 4 // 20, 20), (1 << 20, FEWEST)):
        reservoir = Reservoir(width, seed=0)
        reservoir.update(np.zeros((100, width), dtype=np.float32))
        assert reservoir.rows().shape == (room, width)
