import subprocess
import sys

CODE = """
import sys
from edgevit.cli.load_later import load_later
load_later()
import onnx_ir as ir
assert ir.SymbolicDim("batch") == "batch"
print("sympy.core" in sys.modules)
print(ir.SymbolicDim("batch") * 2 + 1)
print("sympy.core" in sys.modules)
"""


def test_sympy_is_loaded_once_sizes_with_names_are_reckoned_with():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "2*batch + 1", "True"]
