import numpy as np
import pytest

from edgevit.errors import DataError
from edgevit.quantization.accuracy.evaluator import Evaluator


def test_a_model_is_as_near_to_itself_as_can_be(quantized):
    evaluator = Evaluator(quantized.path, [quantized.images])
    score = evaluator.score(evaluator.outputs(quantized.path))
    assert (score.kl, score.sqnr_db, score.agreement) == (0, None, 1)


def test_int8_is_a_little_farther_off_and_noise_far(quantized, write_graph):
    evaluator = Evaluator(quantized.path, [quantized.images[:5], quantized.images[5:]])
    near = evaluator.score(evaluator.outputs(quantized.int8["onnxruntime"]))
    assert 10 < near.sqnr_db < 60
    assert 0 < near.kl < 0.5
    far = write_graph(
        "G (float[batch,3,16,16] x) => (float[batch,5] y) { f = Flatten(x) y = MatMul(f, w) }",
        {"w": np.random.default_rng(0).normal(size=(768, 5)).astype(np.float32)},
    )
    noise = evaluator.score(evaluator.outputs(far))
    assert noise.sqnr_db < near.sqnr_db
    assert noise.kl > near.kl
    assert noise.agreement <= near.agreement


def test_without_images_there_is_no_judge(quantized):
    with pytest.raises(DataError, match="no images"):
        Evaluator(quantized.path, [])


def test_any_engine_can_be_judged(quantized):
    evaluator = Evaluator(quantized.path, [quantized.images])
    assert len(evaluator) == len(quantized.images)
    path = quantized.int8["openvino"]
    np.testing.assert_allclose(evaluator.outputs(path, "openvino"), evaluator.outputs(path), atol=0.05)
