"""docs/manifest.schema.json, judged by the jsonschema package."""

import json

import jsonschema
import pytest
from make_manifest_schema import SCHEMA, content

from edgevit.bundle.store import Bundle


def test_the_schema_in_docs_is_that_of_the_code():
    assert SCHEMA.read_text(encoding="utf-8") == content(), "run: python tests/make_manifest_schema.py"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_manifests_are_valid_by_it(validator, tiny_quantized, tiny_dense, tiny_embedding):
    for bundle in (tiny_quantized, tiny_dense, tiny_embedding):
        validator.validate(json.loads((bundle / "manifest.json").read_bytes()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 99),
        (("variants", 0, "files", 0, "path"), "../../etc/passwd"),
        (("variants", 0, "files", 0, "sha256"), "short"),
        (("variants", 0, "precision"), "int3"),
        (("labels",), "cat"),
        (("more",), 1),
    ],
)
def test_it_refuses_what_the_code_refuses(validator, tiny_quantized, place, value):
    manifest = json.loads((tiny_quantized / "manifest.json").read_bytes())
    part = manifest
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(manifest)
    (broken := tiny_quantized.parent / "broken").mkdir(exist_ok=True)
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match=r"manifest\.json is not valid|schema version"):
        Bundle.open(broken)
