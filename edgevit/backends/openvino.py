"""OpenVINO on the CPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import ANY_DEVICE, BuildOptions, LinearKernel, check_images, join_parts, merge_settings
from edgevit.dependencies import require
from edgevit.errors import BundleError, GraphError, StorageError
from edgevit.files import storage_errors

if TYPE_CHECKING:
    from typing_extensions import Self

#: Layers of the compiled model that multiply by a weight; a MatMul is one only if its second input is constant.
_FULLY_CONNECTED = "FullyConnected"
_WEIGHT_SUFFIXES = (".weight.int8", ".weight.int4", ".weight.float16", ".weight")
_INTEGER_TYPES = ("i8", "u8")
_PRECISION = "INFERENCE_PRECISION_HINT"
_FLOAT_KERNELS = ("_f32", "_bf16", "_f16")
#: What OpenVINO's short names of types begin with, in full.
_TYPES = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint"}


class OpenVINO:
    """Backend for OpenVINO's CPU plugin; its own file format is the IR: ``model.xml`` and ``model.bin``."""

    name = "openvino"
    extra = "openvino"
    #: By itself OpenVINO computes in BF16 on CPUs that can, and calls that float32: the precision is pinned.
    #: It also quantizes activations as they come, where weights alone are integers, unless the group size is 0.
    settings: Mapping[str, str] = {_PRECISION: "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}

    def __init__(self) -> None:
        with _without_telemetry():
            self._engine = require("openvino", extra=self.extra)
        failures = self._engine.frontend
        self._errors = (RuntimeError, failures.GeneralFailure, failures.OpConversionFailure)

    def version(self) -> str:
        """Return OpenVINO's version, such as 2026.4.1."""
        return str(self._engine.get_version()).partition("-")[0]

    def build(self, model: Path, folder: Path, options: BuildOptions = ANY_DEVICE) -> list[Path]:  # noqa: ARG002
        """Convert the ONNX file ``model`` to ``folder/model.xml`` and ``.bin``, with all constants as they are.

        Raises:
            GraphError: if OpenVINO cannot read the model.
            StorageError: if the files cannot be written.

        """
        try:
            converted = self._read(model)
        except self._errors as error:
            raise GraphError(
                f"OpenVINO cannot read {model}: {_reason(error)}", remedy="export or quantize the model again"
            ) from error
        path = folder / "model.xml"
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._engine.save_model(converted, path, compress_to_fp16=False)
            except self._errors as error:  # the same for all that can go wrong with a file
                raise StorageError(
                    f"cannot write {path}: OpenVINO says '{_reason(error)}'",
                    remedy="free some space on that disk, and make the folder writable for you",
                ) from error
        return [path, path.with_suffix(".bin")]

    def open(self, model: Path, *, threads: int, settings: Mapping[str, str]) -> OpenVINOSession:
        """Load and compile an IR or ONNX file, for the latency of one request at a time.

        A processor without BF16 computes in float32, which is more exact, where the settings say bf16: a bundle may
        come from another machine.

        Raises:
            BundleError: if it is missing or damaged, takes more than images, or a setting is unknown or refused.

        """
        properties: dict[str, Any] = merge_settings(self.name, self.settings, settings)
        properties["PERFORMANCE_HINT"] = "LATENCY"
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            core = self._engine.Core()
            if properties[_PRECISION] == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                properties[_PRECISION] = "f32"
            compiled = core.compile_model(self._read(model), "CPU", properties)
        except self._errors as error:
            raise BundleError(
                f"OpenVINO cannot load {model}: {_reason(error)}", remedy="build this variant again"
            ) from error
        return OpenVINOSession(compiled, model)

    def _read(self, model: Path) -> Any:  # noqa: ANN401 - the engine is imported at run time
        """Read a file with the parser for its format; `Core.read_model` tries those of five more on a damaged one."""
        parser = self._engine.frontend.FrontEndManager().load_by_framework("ir" if model.suffix == ".xml" else "onnx")
        return parser.convert(parser.load(model))


class OpenVINOSession:
    """A model that OpenVINO has compiled."""

    def __init__(self, compiled: Any, model: Path) -> None:  # noqa: ANN401
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            raise BundleError(
                f"{model} has {len(compiled.inputs)} inputs and {len(compiled.outputs)} outputs, not one of each",
                remedy="give a model that `edgevit export` or `edgevit quantize` made",
            )
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        shape = compiled.inputs[0].get_partial_shape()
        self._shape = [size.get_length() if size.is_static else None for size in shape]

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of preprocessed images (B, C, H, W)."""
        check_images(images, self._shape)
        self._request.infer([np.ascontiguousarray(images)], share_inputs=True, share_outputs=True)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return logits

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the compiled model.

        With a batch of any size, OpenVINO chooses kernels when it meets a size: one image is run first.
        """
        self.infer(np.zeros([size or 1 for size in self._shape], dtype=np.float32))
        nodes = self._compiled.get_runtime_model().get_ordered_ops()
        return join_parts(_kernel(node) for node in nodes if _is_linear(node))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._request, self._compiled


def _kernel(node: Any) -> LinearKernel:  # noqa: ANN401
    kernel = _info(node, "primitiveType")
    # Where weights alone are integers, OpenVINO calls the precision theirs and the kernel a float one; whether that
    # kernel quantizes the activations as they come, it does not tell.
    integer = _info(node, "runtimePrecision") in _INTEGER_TYPES and not kernel.endswith(_FLOAT_KERNELS)
    return LinearKernel(layer=_layer(node), kernel=kernel, integer=integer, weight=_weight_type(node))


def _weight(node: Any) -> Any:  # noqa: ANN401
    """Return the constant that is, or becomes, the weight of a Linear layer."""
    weight = node.input_value(1).get_node()
    while weight.get_input_size():
        weight = weight.input_value(0).get_node()
    return weight


def _weight_type(node: Any) -> str:  # noqa: ANN401
    short = str(_weight(node).get_output_element_type(0).get_type_name())
    return re.sub(r"\A(f|bf|i|u)(\d+)\Z", lambda match: f"{_TYPES[match[1]]}{match[2]}", short)


def _layer(node: Any) -> str:  # noqa: ANN401
    """Return the name of the Linear layer that a node of the compiled model executes.

    Nodes are renamed, the one behind the model's output for one; constants are not. EdgeViT calls a layer's weight
    ``LAYER.weight``, and ``LAYER.weight.int8`` when it is quantized. With other names, the node's own has to do.
    """
    for suffix in _WEIGHT_SUFFIXES:
        if (name := _weight(node).get_friendly_name()).endswith(suffix):
            return str(name.removesuffix(suffix))
    # What is fused into a layer is listed after it.
    return _info(node, "originalLayersNames").split(",")[0]


def _is_linear(node: Any) -> bool:  # noqa: ANN401
    kind = _info(node, "layerType")
    return kind.startswith(_FULLY_CONNECTED) or (kind == "MatMul" and _is_constant(node.input_value(1).get_node()))


def _is_constant(node: Any) -> bool:  # noqa: ANN401
    """Say whether a node of the compiled model depends on no input of the model."""
    parents = [value.get_node() for value in node.input_values()]
    return all(_is_constant(parent) for parent in parents) if parents else _info(node, "layerType") == "Const"


def _info(node: Any, key: str) -> str:  # noqa: ANN401
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's message that is not empty; those before it name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Make OpenVINO find its telemetry package missing while it is imported, so that it calls out to nobody.

    Importing OpenVINO reports that to its maker, unless the user has opted out with a file in their home; without the
    package it uses a stub instead.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
