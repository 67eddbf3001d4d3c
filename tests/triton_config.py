"""Reads config.pbtxt with protobuf itself, by the description of it that Triton's own client has."""

import importlib.metadata
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def model_config() -> ModuleType:
    """Return the messages of model_config.proto; the package that has them asks for gRPC, which they do without."""
    pytest.importorskip("google.protobuf", reason="needs protobuf")
    try:
        files = importlib.metadata.files("tritonclient") or ()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs tritonclient: pip install tritonclient[http]")
    place = next(file for file in files if Path(str(file)).name == "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", place.locate())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(text: str) -> Any:
    """Return the ModelConfig that is written as ``text``."""
    from google.protobuf import text_format

    return text_format.Parse(text, model_config().ModelConfig())
