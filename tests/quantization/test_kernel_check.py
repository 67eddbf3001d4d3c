import numpy as np
import onnx
import pytest
from tiny import ENGINES

from edgevit.backends import get_backend
from edgevit.errors import VerificationError
from edgevit.quantization.kernel_check import check_kernels


def open_session(backend, path):
    return get_backend(backend).open(path, threads=1, settings={})


@pytest.mark.parametrize("backend", ENGINES)
def test_every_layer_of_its_dialect_runs_in_integers(quantized, backend):
    with open_session(backend, quantized.int8[backend]) as session:
        kernels = check_kernels(session, quantized.plan.integer_layers())
    assert (kernels.linears, kernels.integer_linears, kernels.float_linears) == (9, 9, ())


@pytest.mark.parametrize("backend", ENGINES)
def test_the_float_model_has_float_kernels(quantized, backend):
    with open_session(backend, quantized.path) as session:
        kernels = check_kernels(session, ())
        assert (kernels.linears, kernels.integer_linears) == (9, 0)
        assert kernels.float_linears == tuple(quantized.layers)
        with pytest.raises(VerificationError, match=r"9 of 9 .*'blocks\.0\.attn\.qkv' .* and 4 more"):
            check_kernels(session, quantized.plan.integer_layers())


def test_the_form_that_onnxruntime_silently_runs_in_float_is_caught(quantized):
    # Q/DQ around MatMul and Add of a bias (N,): onnxruntime fuses these two first, as the product of two matrices for
    # the head, and then finds no quantized MatMul.
    with (
        open_session("onnxruntime", quantized.int8["openvino"]) as session,
        pytest.raises(VerificationError, match=r"1 of 9 .*: 'head' \(Gemm\)"),
    ):
        check_kernels(session, quantized.plan.integer_layers())


def test_the_same_form_with_a_fixed_batch_is_caught_for_every_layer(quantized, tmp_path):
    model = onnx.load(quantized.int8["openvino"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    with open_session("onnxruntime", tmp_path / "model.onnx") as session:
        session.infer(np.zeros((1, 3, 16, 16), dtype=np.float32))
        with pytest.raises(VerificationError) as caught:
            check_kernels(session, quantized.plan.integer_layers())
    assert "9 of 9" in caught.value.message


@pytest.mark.parametrize("backend", ENGINES)
def test_a_layer_that_is_not_there_is_named(quantized, backend):
    with (
        open_session(backend, quantized.int8[backend]) as session,
        pytest.raises(VerificationError, match=r"'blocks\.7' \(not found\)"),
    ):
        check_kernels(session, ["blocks.7"])
