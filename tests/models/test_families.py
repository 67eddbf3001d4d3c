"""Every family against its own library: the same weights and images give the same output within 1e-5."""

import pytest
import torch
from zoo import CASES

from edgevit.models.loading import load_checkpoint

TOLERANCE = 1e-5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_equal_the_librarys(case, tmp_path):
    path, reference = case.build(tmp_path)
    loaded = load_checkpoint(str(path))
    assert (loaded.spec.channels, *loaded.spec.image_size) == case.size
    images = torch.randn(3, *case.size)
    with torch.inference_mode():
        expected, found = reference(images), loaded.model()(images)
    assert expected.std() > 0.05, "the comparison would see nothing"
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert found.shape == (3, loaded.spec.outputs)
