"""Writes docs/manifest.schema.json, which a test holds against the code: python tests/make_manifest_schema.py."""

import json
from pathlib import Path

from edgevit.bundle.schema import manifest_schema

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "manifest.schema.json"


def content() -> str:
    """Return what the file must be."""
    return json.dumps(manifest_schema(), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(content(), encoding="utf-8")
