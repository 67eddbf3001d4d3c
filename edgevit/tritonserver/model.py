"""What runs in Triton's Python backend: the pack beside model.py, with EdgeViT's runtime.

https://github.com/triton-inference-server/python_backend#usage
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgevit.data.images import pixels_of
from edgevit.errors import DataError, EdgeViTError, ImageError, InputError
from edgevit.json import decode
from edgevit.runtime import Model, load

#: The pack beside model.py, and what goes into the model: prepared images, or the bytes of image files.
PACK: Final = "model.edgevit.zip"
IMAGES: Final = "images"
FILES: Final = "files"
#: Parameters in config.pbtxt that are read here.
VARIANT, THREADS, TRUSTED_KEY, MAX_PIXELS = "variant", "threads", "trusted_key", "max_pixels"
_MAX_PIXELS = 25_000_000


class TritonPythonModel:
    """A model as Triton's Python backend calls it.

    The golden images are run when it is loaded: where they are not answered as they should be, the model is refused.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the pack."""
        self._triton: Any = importlib.import_module("triton_python_backend_utils")  # is there in Triton alone
        parameters = decode(args["model_config"], dict[str, Any]).get("parameters") or {}
        given = {name: str(value["string_value"]) for name, value in parameters.items()}
        pack = Path(args["model_repository"]) / args["model_version"] / PACK
        key = given.get(TRUSTED_KEY)
        try:
            self._model: Model = load(
                pack,
                variant=given.get(VARIANT),
                threads=_number(given, THREADS, 0),
                trusted_keys=None if key is None else [key],
            )
            self._model.warm_up()
            self._most_pixels = _number(given, MAX_PIXELS, _MAX_PIXELS)
        except EdgeViTError as error:
            raise self._triton.TritonModelException(f"{error.message} ({error.remedy})") from error
        self._triton.Logger.log_info(f"{args['model_name']}: {self._model.info()}")
        for note in self._model.notes:
            self._triton.Logger.log_warn(f"{args['model_name']}: {note}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer to each of ``requests``, which go through the model together."""
        given = [self._images(request) for request in requests]
        images = [each for each in given if not isinstance(each, EdgeViTError)]
        try:
            outputs = self._model.outputs_of(self._model.infer(np.concatenate(images))) if images else {}
        except EdgeViTError as error:
            return [self._error(each if isinstance(each, EdgeViTError) else error) for each in given]
        answers, start = [], 0
        for request, each in zip(requests, given, strict=True):
            if isinstance(each, EdgeViTError):
                answers.append(self._error(each))
                continue
            wanted, end = request.requested_output_names(), start + len(each)
            own = {name: np.ascontiguousarray(rows[start:end]) for name, rows in outputs.items() if name in wanted}
            tensors = [self._triton.Tensor(name, rows) for name, rows in own.items()]
            answers.append(self._triton.InferenceResponse(output_tensors=tensors))
            start = end
        return answers

    def finalize(self) -> None:
        """Free the model."""
        self._model.close()

    def _images(self, request: Any) -> NDArray[np.float32] | EdgeViTError:  # noqa: ANN401
        """Return the images (B, C, H, W) of a request, which gives them prepared or as files; or why there are none."""
        prepared, files = (self._triton.get_input_tensor_by_name(request, name) for name in (IMAGES, FILES))
        try:
            if (prepared is None) == (files is None):
                raise InputError(
                    f"a request gives either {IMAGES} or {FILES}", remedy="give images prepared, or as they are"
                )
            if files is not None:
                return np.concatenate([self._decoded(bytes(content)) for content in files.as_numpy().reshape(-1)])
            found: NDArray[np.float32] = prepared.as_numpy()
            if not np.isfinite(found).all():
                raise DataError("a number is not finite", remedy="give finite numbers")
        except EdgeViTError as error:
            return error
        return found

    def _decoded(self, content: bytes) -> NDArray[np.float32]:
        if (pixels := pixels_of(content)) > self._most_pixels:
            raise ImageError(
                f"the image has {pixels} pixels, and at most {self._most_pixels} are decoded",
                remedy=f"send it smaller, or raise the parameter {MAX_PIXELS} in config.pbtxt",
            )
        return self._model.prepare([content])

    def _error(self, error: EdgeViTError) -> Any:  # noqa: ANN401
        whose = isinstance(error, (ImageError, DataError, InputError))  # the client's
        code = self._triton.TritonError.INVALID_ARG if whose else self._triton.TritonError.INTERNAL
        said = self._triton.TritonError(f"{error.message} ({error.remedy})", code)
        return self._triton.InferenceResponse(error=said)


def _number(parameters: Mapping[str, str], name: str, default: int) -> int:
    given = parameters.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InputError(f"the parameter {name} is '{given}'", remedy=f"give {name} as a whole number in config.pbtxt")
    return int(given)
