import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "safetensors", "typer", "matplotlib", "jinja2")
CODE = f"""
import sys, edgevit.runtime
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def test_importing_the_runtime_imports_no_engine_and_no_training_library():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
