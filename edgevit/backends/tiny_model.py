"""The smallest model with an image as input, to see whether an engine works: written without the onnx package.

``logits = Flatten(images) @ weight``, as a protobuf message of onnx.proto, field by field.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_INPUT, _WEIGHT, _LOGITS = "images", "weight", "logits"
_SHAPE = (1, 1, 4, 4)
_CLASSES = 4
_FLOAT = 1  # TensorProto.DataType
_IR_VERSION, _OPSET = 8, 17  # what all engines that EdgeViT works with read


def example() -> NDArray[np.float32]:
    """Return images (1, 1, 4, 4) for it."""
    return np.linspace(0, 1, 16, dtype=np.float32).reshape(_SHAPE)


def expected_logits() -> NDArray[np.float32]:
    """Return the logits (1, 4) that the example has."""
    return np.asarray(example().reshape(1, -1) @ _weight())


def onnx_bytes() -> bytes:
    """Return the model as an ONNX file."""
    graph = [
        _message(1, _node("Flatten", [_INPUT], "flat")),
        _message(1, _node("MatMul", ["flat", _WEIGHT], _LOGITS)),
        _text(2, "tiny"),
        _message(5, _tensor(_WEIGHT, _weight())),
        _message(11, _value(_INPUT, _SHAPE)),
        _message(12, _value(_LOGITS, (1, _CLASSES))),
    ]
    opset = _text(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _message(7, b"".join(graph)) + _message(8, opset)


def _weight() -> NDArray[np.float32]:
    return np.cos(np.arange(16 * _CLASSES, dtype=np.float32)).reshape(16, _CLASSES)


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    return b"".join([*(_text(1, name) for name in inputs), _text(2, output), _text(3, operator), _text(4, operator)])


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    sizes = b"".join(_number(1, size) for size in values.shape)
    return sizes + _number(2, _FLOAT) + _text(8, name) + _message(9, values.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    return _text(1, name) + _message(2, _message(1, _number(1, _FLOAT) + _message(2, sizes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
