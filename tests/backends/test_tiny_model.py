import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgevit.backends import BACKENDS, get_backend, tiny_model


def test_it_is_valid_onnx_with_the_answer_that_it_says():
    model = onnx.load_from_string(tiny_model.onnx_bytes())
    onnx.checker.check_model(model, full_check=True)
    (logits,) = ReferenceEvaluator(model).run(None, {"images": tiny_model.example()})
    np.testing.assert_allclose(logits, tiny_model.expected_logits(), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in BACKENDS if not name.startswith("tensorrt")])
def test_every_engine_reads_it(tmp_path, name):
    (tmp_path / "tiny.onnx").write_bytes(tiny_model.onnx_bytes())
    backend = get_backend(name)
    path = backend.build(tmp_path / "tiny.onnx", tmp_path / "built")[0]
    with backend.open(path, threads=1, settings={}) as session:
        np.testing.assert_allclose(session.infer(tiny_model.example()), tiny_model.expected_logits(), rtol=1e-5)
