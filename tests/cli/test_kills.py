"""A kill at any moment loses nothing that was there before."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: As many as fit into a run of all tests; ``EDGEVIT_KILLS=200 pytest tests/cli/test_kills.py`` takes some minutes.
KILLS = int(os.environ.get("EDGEVIT_KILLS", "5"))


def test_killed_at_random_moments_and_two_at_once(tiny_exported, tiny_quantized, tmp_path):
    seed = os.environ.get("EDGEVIT_KILLS_SEED", "0")
    script = [sys.executable, HERE / "random_kills.py", tiny_exported, tiny_quantized, tmp_path, str(KILLS), seed]
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    done = subprocess.run(
        [str(part) for part in script],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    sys.stdout.write(done.stdout)
    assert sum(each.get("killed", 0) for each in counts.values()) >= KILLS / 2
