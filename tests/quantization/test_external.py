"""ViTs that others have exported: Linear layers as MatMul and Add, or as Gemm."""

import numpy as np
import onnxruntime
import pytest
from onnx_files import calibrate, emit, optimize_files

from edgevit.backends import get_backend
from edgevit.errors import GraphError
from edgevit.graph.linears import find_linears, load_graph
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.ptq import CalibrationImages
from edgevit.statistics import sqnr_db

DIALECTS = {"onnxruntime": "asymmetric", "openvino": "asymmetric", "portable": "symmetric"}


@pytest.mark.parametrize(("name", "operators"), [("old", 8), ("new", 8), ("gemm", 0)])
def test_a_vit_of_timms_is_quantized(external_vits, tmp_path, name, operators):
    path = external_vits[name]
    kinds = [layer.matmul.op_type for layer in find_linears(load_graph(path).graph)]
    assert (kinds.count("MatMul"), len(kinds)) == (operators, 9)
    images = np.random.default_rng(0).normal(size=(24, 3, 32, 32)).astype(np.float32)
    source = CalibrationImages(lambda: iter([images]), 1)
    _, optimized = optimize_files(
        path, source, {scheme: tmp_path / f"{scheme}.onnx" for scheme in set(DIALECTS.values())}
    )
    exact = onnxruntime.InferenceSession(path).run(None, {"x": images})[0]
    for dialect, scheme in DIALECTS.items():
        plan = optimized[scheme].plan
        assert len(plan.integer_layers()) == 9
        emit(optimized[scheme].model, plan, dialect, tmp_path / "int8.onnx")
        backend = "openvino" if dialect == "openvino" else "onnxruntime"
        with get_backend(backend).open(tmp_path / "int8.onnx", threads=0, settings={}) as session:
            check_kernels(session, plan.integer_layers())
            assert sqnr_db(exact, session.infer(images)) > 30


def test_a_file_with_a_fixed_batch_is_refused(external_vits):
    with pytest.raises(GraphError, match="takes 2 images at a time") as caught:
        calibrate(external_vits["two images"], [], total=0)
    assert "dynamic" in caught.value.remedy
