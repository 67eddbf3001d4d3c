"""The Open Inference Protocol, version 2, for one model with one input: what comes in, and what goes out, as JSON.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError
from edgevit.json import JSONError, decode
from edgevit.models.outputs import parts
from edgevit.runtime import Model

INPUT = "images"
VERSION = "1"

_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Shape = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]], msgspec.Meta(max_length=8)]


class RequestedInput(msgspec.Struct, frozen=True):
    """A tensor of a request; ``data`` is flat or nested, row by row."""

    name: _Name
    shape: _Shape
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for."""

    name: _Name
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """The body of an infer request."""

    inputs: Annotated[list[RequestedInput], msgspec.Meta(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=64)] = []
    id: _Name | None = None
    parameters: dict[str, Any] = {}


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


def read_request(body: bytes, model: Model, *, most_images: int) -> tuple[InferRequest, NDArray[np.float32]]:
    """Return an infer request, and its images (B, C, H, W).

    Raises:
        DataError: if it is no such request, or not for this model.

    """
    try:
        request = decode(body, InferRequest, most_bytes=len(body))
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
    unknown = [each.name for each in request.outputs if each.name not in model.output_names]
    if unknown:
        raise DataError(f"there is no output {unknown[0]}", remedy=f"ask for {', '.join(model.output_names)}")
    return request, _array(given.data, (given.shape[0], *shape))


def _array(data: list[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        given = np.asarray(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise _no_numbers() from error
    if given.dtype.kind not in "iuf":  # text and truth values would become numbers, too
        raise _no_numbers()
    with np.errstate(over="ignore"):
        found = given.astype(np.float32)
    if found.size != np.prod(shape) or (found.ndim > 1 and found.shape != shape):
        raise DataError(
            f"there are {found.size} numbers for a shape of {shape}", remedy="give as many as the shape has"
        )
    if not np.isfinite(found).all():
        raise DataError("a number is not finite", remedy="give finite numbers")
    return found.reshape(shape)


def _no_numbers() -> DataError:
    return DataError("the data are no numbers, or ragged", remedy="give them flat, or nested as the shape")


def response_of(name: str, model: Model, request: InferRequest, rows: NDArray[np.float32]) -> dict[str, Any]:
    """Return the body of the response with the outputs that were asked for, all if none were."""
    if model.output_types:
        given = {output.name: part for output, part in parts(model.output_types, rows)}
    else:
        given = {model.output_names[0]: rows}
    wanted = [each.name for each in request.outputs] or list(given)
    outputs = [
        {"name": each, "datatype": "FP32", "shape": list(given[each].shape), "data": given[each].ravel().tolist()}
        for each in wanted
    ]
    return {"model_name": name, "model_version": VERSION, "outputs": outputs} | (
        {"id": request.id} if request.id else {}
    )
