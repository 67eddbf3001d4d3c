"""A board whose Python is for ARM64, in an emulation, with EDGEVIT_ARM64_ROOT as tests/backends have it."""

import json
import os
from pathlib import Path

import pytest

from edgevit.bundle.store import Bundle
from edgevit.hosts import environment, running
from edgevit.hosts.running import RemoteCommand
from edgevit.hosts.sending import lay_out, parcel, send
from edgevit.hosts.shipment import BUNDLE, bundle_parcels
from edgevit.hosts.wheel import write_wheel
from edgevit.progress import SILENT

ROOT = os.environ.get("EDGEVIT_ARM64_ROOT")
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def emulated(board, monkeypatch):
    """Return the path of a Python for ARM64 on the board, which calls itself aarch64."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from arm64_root import PROCESSOR, Failed, Root

    try:
        root = Root.at(Path(ROOT or ""))
    except Failed as error:
        pytest.skip(str(error))
    (python,) = root.tree.glob("usr/bin/python3.[0-9][0-9]")
    board.tool("uname", "echo aarch64")
    board.tool(
        "arm64-python",
        f'export PYTHONPATH="$PYTHONPATH:{root.wheels}" OMP_NUM_THREADS=1\n'
        f'exec {root.emulator} -cpu {PROCESSOR} -L {root.tree} {python} "$@"',
    )
    return str(board.tools / "arm64-python")


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.skipif(ROOT is None, reason="EDGEVIT_ARM64_ROOT names no folder that scripts/check_arm64.py has made")
def test_an_arm64_board_gives_the_validated_answers(tiny_quantized, board, connected, emulated, tmp_path):
    names = ["float32", "float32-onnxruntime", "int8-onnxruntime"]
    _, parcels = bundle_parcels(Bundle.open(tiny_quantized), names, {}, SILENT)
    wheel = parcel("edgevit.whl", write_wheel(tmp_path).read_bytes())
    with connected(python=emulated) as link:
        environment.check_board(link, ("aarch64",), "this test", own_python=False)
        assert (link.machine, link.facts.executable, link.facts.bits) == ("aarch64", emulated, 64)
        send(link, [wheel, *parcels], SILENT)
        lay_out(link, BUNDLE, parcels)
        runtime = environment.prepare(link, wheel, (), own_python=False, say=connected.notes.append)
        machine = RemoteCommand((runtime.python, "-c", "import platform; print(platform.machine())"), "machine")
        verify = RemoteCommand((runtime.python, "-m", "edgevit", "verify", BUNDLE, "--json"), "verify.json")
        ended = running.run_commands(link, [machine, verify], runtime.environment, connected.notes.append)
        assert ended.codes == (0, 0), ended.said
        assert running.read_remote(link, "machine", 100) == b"aarch64\n"
        found = json.loads(running.read_remote(link, "verify.json", 1 << 20))
        assert {each["name"]: each["status"] for each in found["variants"]} == dict.fromkeys(names, "as exported")
        assert link.clean() is None
    assert board.left() == []
