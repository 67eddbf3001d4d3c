"""What is loaded only to find the tests: nothing that takes seconds, where the tests do not all need it."""

import subprocess
import sys

#: Folders whose tests need torch here and there, if at all.
FOLDERS = ("backends", "bundle", "cli", "data", "evaluation", "fuzz", "report", "runtime", "stages")
#: What is all about torch or OpenVINO in them.
LEFT_OUT = (
    *("cli/test_train.py", "cli/test_train_tokens.py", "stages/test_recovery.py", "stages/test_float_layers.py"),
    "backends/test_openvino_arm64.py",
)

CODE = """
import sys, pytest
code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]])
print("loaded", *(name for name in ("torch", "timm", "transformers", "openvino") if name in sys.modules))
sys.exit(code)
"""


def test_finding_tests_that_need_no_torch_does_not_load_it(request):
    tests = request.config.rootpath / "tests"
    arguments = [*(str(tests / name) for name in FOLDERS), *(f"--ignore={tests / name}" for name in LEFT_OUT)]
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=request.config.rootpath)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"
    assert "::test_" in done.stdout
