"""What boards send is hostile: figures are taken only as what they should be."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.manifest import Environment
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.errors import HostError
from edgevit.hosts.figures import MOST_BYTES, Diagnosed, Printed, RacePrinted, Verified, measured_device, said

ENVIRONMENT = Environment(
    machine="m", cpu="c", cpu_features=(), cores=4, os="o", python="3", packages={}, measured_at="2026-01-01T00:00:00Z"
)
TIMES = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "throughput_ips"), 5.0)
LATENCY = TIMES | {
    "batch": 1, "threads": 1, "speedup_vs_float32": 1.0, "speedup_ci95": [1.0, 1.0], "rss_mb": 9.0,
    "cold_start_ms": 9.0, "valid": True, "invalid_reason": None, "environment": msgspec.to_builtins(ENVIRONMENT),
}  # fmt: skip


@pytest.fixture(scope="module")
def sent(tiny_exported):
    return Bundle.open(tiny_exported).manifest


@pytest.fixture
def measured(sent):
    """Return a function that takes what a board's manifest says, with changes, for its figures."""

    def take(latency=LATENCY, *, makes=False, more=(), **changes):
        content = json.loads(encode_manifest(sent)) | changes
        content["variants"][0]["latency"] = latency
        content["variants"] += more
        return measured_device("pi", sent, json.dumps(content).encode(), ENVIRONMENT, Verified([]), {}, makes=makes)

    return take


def test_what_was_measured_is_taken(measured):
    (found,) = measured().variants
    assert (found.name, found.latency.p50_ms, found.answers) == ("float32", 5.0, None)
    assert measured(latency=None).variants == ()


@pytest.mark.parametrize(
    "latency",
    [
        LATENCY | {"p50_ms": None}, LATENCY | {"p50_ms": 1e99}, LATENCY | {"p50_ms": -1}, LATENCY | {"p50_ms": "5"},
        LATENCY | {"more": 1}, {}, [], LATENCY | {"batch": 10**400},
        LATENCY | {"operators": [{"operator": "x" * 999, "ms": 1.0}]},
    ],
)  # fmt: skip
def test_times_that_cannot_be_are_refused(measured, latency):
    with pytest.raises(HostError, match="pi answers what cannot be"):
        measured(latency=latency)


def test_another_model_is_refused(measured, sent):
    spec = json.loads(encode_manifest(sent))["spec"]
    with pytest.raises(HostError, match="it measured another model"):
        measured(spec=spec | {"depth": 7})
    with pytest.raises(HostError, match="cannot be"):
        measured(schema_version=99)


def test_figures_of_what_was_not_sent_are_those_of_a_run_that_makes_it(measured, sent):
    (variant,) = json.loads(encode_manifest(sent))["variants"]
    file = {"path": "int8-magic/model.onnx", "sha256": "0" * 64, "bytes": 9}
    other = variant | {"name": "int8-magic", "files": [file], "latency": LATENCY}
    assert len(measured(more=[other], makes=True).variants) == 2
    swapped = variant | {"files": [variant["files"][0] | {"sha256": "0" * 64}]}
    for changes in ({"more": [other]}, {"variants": [swapped]}):
        with pytest.raises(HostError, match="it measured other files than it was sent"):
            measured(**changes)
    with pytest.raises(HostError, match="cannot be"):
        measured(more=[other | {"files": [file | {"bytes": 10**400}]}], makes=True)


def test_more_than_a_bundle_keeps_is_refused(measured):
    reasons = [{"operator": f"{index}", "ms": 1.0} for index in range(4096)]
    many = LATENCY | {"operators": reasons, "invalid_reason": "x" * 10_000, "valid": False}
    (found,) = measured(latency=many).variants
    assert len(found.latency.invalid_reason) == 1024
    environment = LATENCY["environment"] | {"packages": {str(index): "y" * 1000 for index in range(4000)}}
    with pytest.raises(HostError, match="more than a bundle keeps"):
        measured(latency=LATENCY | {"environment": environment})


@pytest.mark.parametrize("kind", [Verified, Diagnosed, Printed, RacePrinted])
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"variants": 1}', b'{"variants": [{"name": 1}]}',
     json.dumps({"variants": [{"name": "x"}] * 999}).encode(), b" " * (MOST_BYTES + 1)],
)  # fmt: skip
def test_what_a_command_there_did_not_print_is_refused(kind, content):
    with pytest.raises(HostError, match="pi answers what cannot be") as caught:
        said(content, kind, "pi")
    assert caught.value.message.isprintable()


texts = st.text(max_size=30)


@given(st.lists(st.builds(dict, name=texts, verdict=texts, reason=texts), max_size=4), st.dictionaries(texts, texts))
def test_texts_that_are_taken_are_printable(variants, left_out):
    try:
        found = said(json.dumps({"variants": variants, "left_out": left_out}).encode(), RacePrinted, "pi")
    except HostError:  # half a surrogate is no JSON in UTF-8
        return
    for text in (*(part for each in found.variants for part in (each.name, each.reason)), *found.left_out.values()):
        assert not set(text) & set("\x1b\x00\x9b\r\n\u202e\u2028")
