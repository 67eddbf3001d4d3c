"""Builds export/web with npm, its page too, and asks a process of Node."""

import base64
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from once import kept, made

SOURCES = Path(__file__).resolve().parents[1] / "export" / "web"


def install(folder):
    """Install what package-lock.json names."""
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(SOURCES / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the packages here: {done.stderr[-300:]}")


def build(packages, folder):
    """Compile, with the ``packages`` that were installed."""
    for name in ("package.json", "package-lock.json", "tsconfig.json", "src", "page", "tools"):
        copy = shutil.copytree if (SOURCES / name).is_dir() else shutil.copyfile
        copy(SOURCES / name, folder / name)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    for script in ("build", "page"):
        done = subprocess.run(["npm", "run", script], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def built(tmp_path_factory):
    """Return the folder where it was built, once for all tests; skip where that is not possible."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node 18 or later, with npm")
    tools = [subprocess.check_output([tool, "--version"], text=True) for tool in ("node", "npm")]
    asked = [SOURCES / "package.json", SOURCES / "package-lock.json"]
    packages = made(kept(tmp_path_factory, "web", asked, (), *tools), "packages", install)
    sources = [path for path in sorted(SOURCES.rglob("*")) if path.is_file() and "node_modules" not in path.parts]
    shelf = kept(tmp_path_factory, "web-built", [Path(__file__), *sources], (), *tools, str(packages))
    return made(shelf, "web", partial(build, packages))


def script(folder, code, *arguments):
    """Run a module that imports what was built, and return what it prints as JSON."""
    command = ["node", "--expose-gc", "--input-type=module", "-e", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Node:
    """A process of Node that answers."""

    def __init__(self, folder):
        command = ["node", "tools/answer.mjs"]
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, pixels, form="rgb", **request):
        height, width = pixels.shape[:2]
        image = {"width": width, "height": height, "format": form} | request.pop("image", {})
        image["data"] = base64.b64encode(pixels.tobytes()).decode()
        self._process.stdin.write(json.dumps({"image": image, **request}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, errors
