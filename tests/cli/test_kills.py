"""A kill at any moment loses nothing that was there before."""

import json
import os
import sys
from pathlib import Path

#: As many as fit into a run of all tests; ``EDGEVIT_KILLS=200 pytest tests/cli/test_kills.py`` takes some minutes.
KILLS = int(os.environ.get("EDGEVIT_KILLS", "5"))


def test_killed_at_random_moments_and_two_at_once(forked, tiny_exported, tiny_quantized, tmp_path):
    given = tiny_exported, tiny_quantized, tmp_path / "places", KILLS, os.environ.get("EDGEVIT_KILLS_SEED", "0")
    script = Path(__file__).with_name("random_kills.py")
    process = forked(*given, what=script, scratch=tmp_path / "scratch")
    out, err = process.communicate(timeout=7200)
    assert process.returncode == 0, err
    counts = json.loads(out)
    sys.stdout.write(out)
    assert sum(each.get("killed", 0) for each in counts.values()) >= KILLS / 2
