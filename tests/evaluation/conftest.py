"""What tests of measuring share."""

import subprocess

import pytest


@pytest.fixture(autouse=True)
def workers_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers as users' benchmarks do, which the other tests fork; see forked_workers.py."""
    monkeypatch.setattr("edgevit.evaluation.worker_process.subprocess", subprocess)
