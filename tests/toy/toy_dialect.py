"""A dialect of a test's own: the portable form, signed with its name."""

import shutil

import onnx

from edgevit.quantization.emit import portable
from edgevit.quantization.emit.dialect import Dialect


def emit(model, plan, path, weight_bits):
    portable.emit(model, plan, path, weight_bits)
    sign(path)


def emit_float32(model, path):
    shutil.copyfile(model, path)
    sign(path)


def sign(path):
    model = onnx.load(path)
    model.producer_name = "toy"
    onnx.save(model, path)


DIALECT = Dialect(name="toy", scheme="symmetric", emit=emit, emit_float32=emit_float32)
