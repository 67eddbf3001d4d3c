"""The Open Inference Protocol, version 2, for one model with one input: what comes in, and what goes out.

That is JSON, and with Triton's binary extension JSON with the bytes of tensors behind it.
https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError
from edgevit.json import JSONError, decode
from edgevit.runtime import Model
from edgevit.server import tensors

INPUT = "images"
VERSION = "1"
#: What a client may use beyond the protocol itself.
EXTENSIONS = ("binary_tensor_data",)
#: The header that says how many bytes of a body are JSON; tensors' bytes stand behind them.
JSON_BYTES = "Inference-Header-Content-Length"
_DIGITS = 15

_ProtocolName = Annotated[str, msgspec.Meta(max_length=256)]
_ByteCount = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_TensorShape = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]], msgspec.Meta(max_length=8)]


class Answer(NamedTuple):
    """The body of a response, and what goes before it."""

    content: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = {}


class InputParameters(msgspec.Struct, frozen=True):
    """``binary_data_size`` is how many bytes of a tensor stand behind the JSON, in the place of ``data``."""

    binary_data_size: _ByteCount | None = None
    shared_memory_region: Any = None


class OutputParameters(msgspec.Struct, frozen=True):
    """``binary_data`` says whether an output is wanted behind the JSON, None as the request says of all."""

    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: Any = None


class RequestParameters(msgspec.Struct, frozen=True):
    """``binary_data_output`` says whether outputs that say nothing themselves are wanted behind the JSON."""

    binary_data_output: bool = False


class RequestedInput(msgspec.Struct, frozen=True):
    """A tensor of a request; ``data`` is flat or nested, row by row, None where its bytes stand behind the JSON."""

    name: _ProtocolName
    shape: _TensorShape
    datatype: str
    data: list[Any] | None = None
    parameters: InputParameters = InputParameters()


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for."""

    name: _ProtocolName
    parameters: OutputParameters = OutputParameters()


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON of an infer request."""

    inputs: Annotated[list[RequestedInput], msgspec.Meta(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=64)] = []
    id: _ProtocolName | None = None
    parameters: RequestParameters = RequestParameters()


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a tensor is called, its type and shape; -1 stands for any number of images."""

    name: str
    datatype: Literal["FP32"] = "FP32"
    shape: tuple[int, ...]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...] = (VERSION,)
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


def metadata_of(name: str, model: Model) -> Metadata:
    """Return the metadata of ``model``, which clients call ``name``."""
    info = model.info()
    if model.output_types:
        outputs = tuple(TensorMetadata(name=each.name, shape=(-1, *each.shape)) for each in model.output_types)
    else:
        outputs = (TensorMetadata(name=model.output_names[0], shape=(-1, model.width)),)
    return Metadata(
        name=name,
        platform=f"{info.engine}_{info.variant}",
        inputs=(TensorMetadata(name=INPUT, shape=(-1, *info.input)),),
        outputs=outputs,
    )


def read_request(
    body: bytes, model: Model, *, most_images: int, json_bytes: str | None = None
) -> tuple[InferRequest, NDArray[np.float32]]:
    """Return an infer request, and its images (B, C, H, W).

    ``json_bytes`` is what the client says of how many bytes are JSON, in the header that its binary extension has; the
    others are a tensor's. None where it has not sent that header.

    Raises:
        DataError: if it is no such request, or not for this model.

    """
    length = len(body) if json_bytes is None else _length(json_bytes, len(body))
    try:
        request = decode(body[:length], InferRequest, most_bytes=len(body))
    except JSONError as error:
        raise DataError(
            f"the request is not valid: {error}", remedy="see the Open Inference Protocol, version 2"
        ) from error
    (given,) = request.inputs
    shape = (model.preprocess.channels, *model.preprocess.size)
    if (
        given.name != INPUT
        or given.datatype != "FP32"
        or tuple(given.shape[1:]) != shape
        or len(given.shape) != 1 + len(shape)
    ):
        wanted = ", ".join(map(str, ("images", *shape)))
        raise DataError(
            f"the input is {given.name} of {given.datatype} {given.shape}",
            remedy=f"give {INPUT}, FP32, of shape ({wanted}), prepared as the model's preprocessing says",
        )
    if not 1 <= given.shape[0] <= most_images:
        raise DataError(f"{given.shape[0]} images in one request", remedy=f"give 1 to {most_images} at once")
    _check_outputs(request, model)
    behind = None if json_bytes is None else memoryview(body)[length:]
    return request, tensors.read_tensor(given.data, given.parameters.binary_data_size, behind, (given.shape[0], *shape))


def _check_outputs(request: InferRequest, model: Model) -> None:
    """Check that what is asked for is there; what Triton does beyond that would be left out in silence."""
    unknown = [each.name for each in request.outputs if each.name not in model.output_names]
    if unknown:
        raise DataError(f"there is no output {unknown[0]}", remedy=f"ask for {', '.join(model.output_names)}")
    if any(each.parameters.classification for each in request.outputs):
        raise DataError("classification is not done here", remedy="ask for the numbers, or post images to /v1/predict")
    regions = [each.parameters.shared_memory_region for each in request.inputs]
    regions += [each.parameters.shared_memory_region for each in request.outputs]
    if any(region is not None for region in regions):
        raise DataError("shared memory is not used here", remedy="send tensors in the request")


def _length(given: str, whole: int) -> int:
    """Return how many bytes of a body of ``whole`` bytes are JSON."""
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS) or int(given) > whole:
        raise DataError(
            f"{JSON_BYTES} is {given[:40]!r}, and the body has {whole} bytes",
            remedy=f"give the bytes of the JSON in {JSON_BYTES}, or leave it out where there is nothing behind it",
        )
    return int(given)


def response_of(name: str, model: Model, request: InferRequest, rows: NDArray[np.float32]) -> Answer:
    """Return the response with the outputs that were asked for, all if none were.

    Raises:
        VerificationError: if a number is not finite.

    """
    given = model.outputs_of(rows)
    usual = request.parameters.binary_data_output
    asked = request.outputs or [RequestedOutput(each) for each in given]
    outputs, behind = [], []
    for each in asked:
        binary = usual if each.parameters.binary_data is None else each.parameters.binary_data
        output: dict[str, Any] = {"name": each.name, "datatype": "FP32", "shape": list(given[each.name].shape)}
        if binary:
            behind.append(tensors.as_bytes(given[each.name]))
            output["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            output["data"] = given[each.name].ravel().tolist()
        outputs.append(output)
    said: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    if request.id:
        said["id"] = request.id
    content = msgspec.json.encode(said)
    if not behind:
        return Answer(content)
    return Answer(b"".join((content, *behind)), "application/octet-stream", {JSON_BYTES: str(len(content))})
