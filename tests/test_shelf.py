"""The small models that tests share: ``scripts/check_pythons.py`` has them made here, for Pythons without torch."""

import numpy as np

from edgevit.bundle.store import Bundle


def test_small_models_are_there(tiny_quantized, tiny_embedding, tiny_dense):
    for path in (tiny_quantized, tiny_embedding, tiny_dense):
        bundle = Bundle.open(path)
        for variant in bundle.manifest.variants:
            bundle.verify_files(variant.name)
        assert np.isfinite(bundle.golden().logits).all()
