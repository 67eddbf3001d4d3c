"""Write an ONNX file again that takes pixels, and normalises them itself."""

from __future__ import annotations

from pathlib import Path

from edgevit.backends.pixels import to_be_normalised
from edgevit.errors import GraphError


def write_for_pixels(model: Path, path: Path) -> None:
    """Write the ONNX file ``model`` to ``path`` with uint8 pixels (B, H, W, C) as its input.

    Raises:
        GraphError: if the file cannot be read, does not say how its images are normalised, or ``TakePixels`` cannot
            make it do that.

    """
    import onnx  # neither is on every device, which needs none of them for inference
    import onnx_ir as ir

    from edgevit.graph.passes.take_pixels import TakePixels

    try:
        onnx.checker.check_model(str(model))
        graph = ir.serde.from_proto(onnx.load(model, load_external_data=False))
    except (onnx.checker.ValidationError, OSError) as error:
        raise GraphError(
            f"{model} is not a valid ONNX model: {str(error).splitlines()[0]}", remedy="export the model again"
        ) from error
    preprocess = to_be_normalised(graph.metadata_props.get("edgevit.preprocess"), model)
    TakePixels(preprocess)(graph)
    ir.save(graph, path)
