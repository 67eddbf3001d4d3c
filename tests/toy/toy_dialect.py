"""A dialect of a test's own: the portable form, signed with its name."""

import onnx_ir as ir

from edgevit.quantization.emit import portable
from edgevit.quantization.emit.dialect import Dialect


class Sign(ir.passes.InPlacePass):
    """Notes who has made the file."""

    def call(self, model):
        model.producer_name = "toy"
        return ir.passes.PassResult(model, modified=True)


def emit(model, plan, path, weight_bits):
    Sign()(model)
    return portable.emit(model, plan, path, weight_bits)


DIALECT = Dialect(name="toy", scheme="symmetric", emit=emit, float32_passes=lambda: (Sign(),))
