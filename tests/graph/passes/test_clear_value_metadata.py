import numpy as np
import onnx_ir as ir

from edgevit.graph.passes.clear_value_metadata import ClearValueMetadata


def test_metadata_of_values_goes_and_the_rest_stays(parse, run):
    model = parse("sum (float[2] x) => (float[2] y) { z = Add (x, one) y = Relu (z) }", {"one": np.ones(2, np.float32)})
    x = np.array([-3, 4], np.float32)
    before = run(model, x=x)
    add = next(iter(model.graph))
    for value in (model.graph.inputs[0], model.graph.initializers["one"], add.outputs[0], model.graph.outputs[0]):
        value.metadata_props["left"] = "over"
    add.metadata_props["kept"] = "here"

    assert ClearValueMetadata()(model).modified

    assert b"left" not in ir.to_proto(model).SerializeToString()
    assert add.metadata_props == {"kept": "here"}
    np.testing.assert_array_equal(run(model, x=x), before)
    assert not ClearValueMetadata()(model).modified
