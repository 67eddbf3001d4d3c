"""The JSON Schema of ``manifest.json``, for those who read packs in other languages."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from edgevit.bundle.manifest import SCHEMA_VERSION, Manifest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def manifest_schema() -> dict[str, Any]:
    """Return the schema, in draft 2020-12; what fields must say of one another it does not tell.

    It is that of the version that this EdgeViT writes. An older manifest may lack what has a default here.
    """
    found: dict[str, Any] = _portable(msgspec.json.schema(Manifest))
    found["$defs"]["Manifest"]["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {"$schema": _DIALECT, "title": "manifest.json of a bundle of EdgeViT"} | found


def _portable(part: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a part of a schema with ECMAScript's patterns, as JSON Schema asks for, and texts without indent."""
    if isinstance(part, dict):
        return {key: _text(key, value) if isinstance(value, str) else _portable(value) for key, value in part.items()}
    return [_portable(each) for each in part] if isinstance(part, list) else part


def _text(key: str, value: str) -> str:
    if key == "pattern":
        return value.replace(r"\A", "^").replace(r"\Z", "$")
    return inspect.cleandoc(value) if key == "description" else value
