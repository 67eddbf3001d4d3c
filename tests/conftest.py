"""Fixtures that all tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real weights and photos that lies beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the weights and photos in {SHARED}, which is not there")
    return SHARED
