"""Damaged files of all kinds: each reads, or ends in an error of EdgeViT's with a remedy, soon and in little memory.

``make test`` runs a few cases of each kind, ``make fuzz`` many (``--fuzz-cases``). What once failed lies in ``seeds/``,
a folder for each kind, and is run each time; a new failure is written there.
"""

import gc
import hashlib
import time
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from mutations import mutated
from targets import Target, targets

from edgevit.errors import EdgeViTError
from edgevit.memory import limited

KINDS = ("image", "manifest", "golden", "onnx", "ir", "safetensors", "pth", "npz", "config", "csv", "target", "recipe",
         "plan", "table", "pack", "card", "labels", "tokenizer", "engine")  # fmt: skip
SEEDS = Path(__file__).parent / "seeds"
MOST_SECONDS = 5.0  # of CPU
MOST_BYTES = 500 << 20


@pytest.fixture(scope="module")
def all_targets(tiny_quantized):
    found = targets(tiny_quantized)
    assert tuple(found) == KINDS
    return found


def read(target: Target, content: bytes, folder: Path) -> None:
    """Read a file with ``content``; what is none of EdgeViT's errors, or takes too long or too much, is a failure."""
    path = folder / target.name
    path.write_bytes(content)
    start = time.process_time()
    try:
        with limited(MOST_BYTES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except EdgeViTError as error:
        refused = error
    else:
        refused = None
    assert refused is None or (refused.message and refused.remedy)
    assert time.process_time() - start < MOST_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_read(all_targets, kind, tmp_path):
    target = all_targets[kind]
    for seed in target.seeds:
        (tmp_path / target.name).write_bytes(seed)
        # A config is one of several kinds, of which not all say how images are prepared; no engine is beside its JSON.
        with suppress(EdgeViTError) if kind in ("config", "engine") else nullcontext():
            target.read(tmp_path / target.name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_once_failed(all_targets, kind, tmp_path):
    kept = sorted((SEEDS / kind).glob("*")) if (SEEDS / kind).is_dir() else []
    for seed in kept:
        read(all_targets[kind], seed.read_bytes(), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_read_or_end_in_our_error(all_targets, kind, tmp_path, request):
    cases = request.config.getoption("--fuzz-cases")
    target = all_targets[kind]
    last = b""

    @settings(
        max_examples=cases,
        derandomize=cases <= SHORT,
        database=None,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(mutated(target.seeds))
    def run(content: bytes) -> None:
        nonlocal last
        last = content
        read(target, content, tmp_path)

    try:
        run()
    except BaseException:
        if cases > SHORT:
            (SEEDS / kind).mkdir(parents=True, exist_ok=True)
            (SEEDS / kind / hashlib.sha256(last).hexdigest()[:16]).write_bytes(last)
        raise
    if cases > SHORT:
        gc.collect()  # what thousands of refused files left


SHORT = 40
