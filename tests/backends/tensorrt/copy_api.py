"""Copies from listings of TensorRT's bindings what EdgeViT uses: python copy_api.py FOLDER, with FOLDER/api-*.json."""

import json
import sys
from pathlib import Path

CLASSES = (
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
ENUMS = (
    "BuilderFlag",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DataType",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "TensorIOMode",
)


def used(listing: dict) -> dict:
    """Return what of a listing the classes and enums are that EdgeViT uses."""
    return {
        "version": listing["version"],
        "classes": {name: listing["classes"][name] for name in CLASSES if name in listing["classes"]},
        "enums": {name: listing["enums"][name] for name in ENUMS if name in listing["enums"]},
    }


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("api-*.json")):
        text = json.dumps(used(json.loads(path.read_text())), indent=None, separators=(",", ":"), sort_keys=True)
        (Path(__file__).parent / "api" / path.name).write_text(text + "\n")
