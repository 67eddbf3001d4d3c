"""Runs the tests of what a device has on the other Pythons of this machine, each with an environment of its own.

``make test-pythons`` calls it. Pythons are looked for on the PATH and among pyenv's. The small models that the tests
run are made once, by this Python, which has torch, and read by all (``tests/once.py``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
MINORS = (10, 11, 12, 13, 14)
TESTS = ("tests/runtime", "tests/server", *(f"tests/bundle/test_{name}.py" for name in ("pack", "schema", "store")))
#: What they need beside EdgeViT with these extras.
EXTRAS = "onnxruntime,openvino,quantize,sign,serve"
PACKAGES = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "httpx", "jsonschema", "tritonclient[http]")


def pythons() -> Iterator[tuple[str, Path]]:
    """Yield the versions, such as 3.13, that are there but for this Python's, with a program for each."""
    for minor in MINORS:
        if minor == sys.version_info.minor:
            continue
        name = f"python3.{minor}"
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        found = [Path(each) for each in (shutil.which(name),) if each] + sorted(pyenv.glob(f"3.{minor}.*/bin/{name}"))
        for program in found:
            done = subprocess.run([program, "-c", "import ensurepip, venv"], capture_output=True)
            if done.returncode == 0:  # pyenv's shims are there for versions that are not
                yield f"3.{minor}", program
                break


def environment(version: str, program: Path, folder: Path) -> Path:
    """Return the Python of an environment with EdgeViT and what the tests need, made if it is not there."""
    place = folder / version
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        subprocess.run([program, "-m", "venv", "--clear", place], check=True)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", "constraints.txt", "-e", f".[{EXTRAS}]", *PACKAGES], check=True, cwd=CHECKOUT)
        (place / "ready").touch()
    return python


def say(message: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the tests on each Python; return 1 if one fails, 0 if all pass or there is none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the environments are made")
    parser.add_argument("--ends", action="store_true", help="only the oldest and the newest")
    arguments = parser.parse_args()
    found = list(pythons())
    if not found:
        say("no other Python from 3.10 to 3.14 is on this machine: nothing was tested")
        return 0
    chosen = list({found[0][0]: found[0], found[-1][0]: found[-1]}.values()) if arguments.ends else found
    shelf = Path(os.environ.get("EDGEVIT_SHELF", arguments.folder / "shelf")).resolve()
    settings = os.environ | {"EDGEVIT_SHELF": str(shelf), "OMP_NUM_THREADS": "1"}
    command = ["-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_shelf.py"], check=True, cwd=CHECKOUT, env=settings
    )
    failed = []
    for version, program in chosen:
        say(f"Python {version}")
        python = environment(version, program, arguments.folder)
        if subprocess.run([python, *command, *TESTS], cwd=CHECKOUT, env=settings).returncode:
            failed.append(version)
    if failed:
        say(f"failed on Python {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
