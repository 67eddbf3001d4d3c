import gc
import weakref

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.graph.weights import letting_go


def model_of(array):
    node = ir.node("Identity", [ir.Value(name="w", const_value=ir.tensor(array, name="w"))])
    return ir.Model(ir.Graph([], node.outputs, nodes=[node], initializers=[node.inputs[0]]), ir_version=10)


@pytest.mark.parametrize("error", [None, ValueError])
def test_weights_are_free_at_once(error):
    """They are when an error comes between as well, and do not wait for Python to look for circles."""
    array = np.ones(3)
    weight = weakref.ref(array)
    gc.disable()
    try:
        with letting_go(model_of(array)) as model:
            del array
            np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), np.ones(3))
            if error is not None:
                raise error
    except ValueError:
        assert error is not None
    finally:
        gc.enable()
    assert weight() is None
