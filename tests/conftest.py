"""Fixtures that all tests share."""

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings
from oracles import import_timm

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples in each run, and no time limits: a slow machine is no defect.
settings.register_profile("edgevit", deadline=None, derandomize=True)
settings.load_profile("edgevit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write the parts of docs/ that tests generate")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real weights and photos that lies beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the weights and photos in {SHARED}, which is not there")
    return SHARED


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """Return timm, the reference for a ViT's weights and logits; it needs no torchvision here."""
    return import_timm()
