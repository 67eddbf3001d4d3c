"""manifest.json is hostile until it is read: whatever is in it ends in a Manifest or in a BundleError."""

import contextlib
import copy
import io
import json
import os
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgevit.bundle.golden import read_golden
from edgevit.bundle.manifest import SCHEMA_VERSION, Accuracy, File, Manifest, Provenance, Similarity, Variant
from edgevit.bundle.reading import decode_manifest, encode_manifest, locate, logical_path, read_manifest, verified_paths
from edgevit.bundle.store import Bundle
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError
from edgevit.models.spec import GraphSpec, ModelSpec

BASE = Manifest(
    name="base",
    spec=ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=2),
    preprocess=Preprocess(size=(8, 8), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3),
    labels=("a", "b"),
    provenance=Provenance(source="s", weights_sha256="0" * 64, edgevit="0", packages={}, created_at="now"),
    variants=(),
)
CONTENT = encode_manifest(
    msgspec.structs.replace(
        BASE,
        variants=(
            Variant(
                name="float32",
                precision="float32",
                backend="onnxruntime",
                target="any",
                files=(File(path="float32/model.onnx", sha256="0" * 64, bytes=5),),
            ),
        ),
    )
)

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=8).filter(
    lambda word: word[0] not in "-_"
)
files = st.builds(
    File,
    path=st.tuples(words, words).map("/".join),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    bytes=st.integers(0, 1 << 40),
)
variants = st.builds(
    Variant,
    name=words,
    precision=st.sampled_from(["float32", "fp16", "int8"]),
    backend=st.text(max_size=8),
    target=st.text(max_size=8),
    files=st.lists(files, min_size=1, max_size=3).map(tuple),
    settings=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


@given(
    name=st.text(),
    labels=st.tuples(st.text(), st.text()),
    variants=st.lists(variants, max_size=3, unique_by=lambda variant: variant.name).map(tuple),
    extra=st.lists(files, max_size=3).map(tuple),
)
def test_what_is_written_is_read_again(name, labels, variants, extra):
    manifest = msgspec.structs.replace(BASE, name=name, labels=labels, variants=variants, extra=extra)
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff")
@example(b'{"schema_version": 1, "name": "\xff"}')
@example(b'{"schema_version": 1, "name": "\\ud800"}')
@example(b'{"schema_version": 1, "x": ' + b"[" * 100_000)
@example(b'{"schema_version": 1e999}')
@example(b'{"schema_version": -1}')
@example(b"null")
def test_random_bytes_are_refused(content):
    with pytest.raises(BundleError):
        decode_manifest(content)


@given(st.integers(0, len(CONTENT) - 2))
def test_every_truncation_is_refused(length):
    with pytest.raises(BundleError):
        decode_manifest(CONTENT[:length])


@given(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=3))
@settings(max_examples=300)
def test_damaged_bytes_never_end_in_another_error(position, patch):
    with contextlib.suppress(BundleError):
        decode_manifest(CONTENT[:position] + patch + CONTENT[position + len(patch) :])


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list):
        for key, one in enumerate(value):
            yield from leaves(one, (*path, key))
    yield path


PLACES = [path for path in leaves(json.loads(CONTENT)) if path]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(PLACES), json_values)
@settings(max_examples=300)
@example(("spec", "width"), 10**12)
@example(("spec", "heads"), 0)
@example(("spec", "mlp_ratio"), 1e308)
@example(("spec", "image_size"), [0, 0])
@example(("preprocess", "size"), [10**9, 10**9])
@example(("preprocess", "std"), [0, 0, 0])
def test_any_other_value_anywhere_is_read_or_refused(place, value):
    content = json.loads(CONTENT)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        manifest = decode_manifest(json.dumps(content).encode())
    except BundleError:
        return
    assert decode_manifest(encode_manifest(manifest)) == manifest


def changed(**top) -> bytes:
    return json.dumps(json.loads(CONTENT) | top).encode()


def test_messages_name_the_field():
    with pytest.raises(BundleError, match="unknown field `lables`"):
        decode_manifest(changed(lables=["a", "b"]))
    content = json.loads(CONTENT)
    content["variants"][0]["presicion"] = "int8"
    with pytest.raises(BundleError, match=r"`presicion` - at `\$\.variants\[0\]`"):
        decode_manifest(json.dumps(content).encode())
    with pytest.raises(BundleError, match=f"schema version {SCHEMA_VERSION + 1}") as caught:
        decode_manifest(changed(schema_version=SCHEMA_VERSION + 1, something="new"))
    assert "upgrade" in caught.value.remedy
    with pytest.raises(BundleError, match="3 labels for 2 classes"):
        decode_manifest(changed(labels=["a", "b", "c"]))
    with pytest.raises(BundleError, match="same name"):
        decode_manifest(changed(variants=json.loads(CONTENT)["variants"] * 2))


MEASURED = {
    "accuracy": {
        "data": "a", "data_sha256": "0" * 64, "images": 4, "top1": 0.5, "top1_ci95": [0.1, 0.9], "top5": None,
        "delta_top1": 0.0, "mcnemar_p": 1.0, "agreement": 1.0, "kl": 0.0, "sqnr_db": 40.0, "max_drop": 0.5,
        "passed": True, "reason": "",
    },
    "latency": {
        "batch": 1, "threads": 1, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "throughput_ips": 900.0,
        "speedup_vs_float32": 1.5, "speedup_ci95": [1.4, 1.6], "rss_mb": 9.0, "cold_start_ms": 9.0, "valid": True,
        "invalid_reason": None,
        "environment": {
            "machine": "m", "cpu": "c", "cpu_features": [], "cores": 1, "os": "o", "python": "3", "packages": {},
            "measured_at": "now",
        },
    },
}  # fmt: skip


def test_an_older_manifest_gains_what_it_could_not_say():
    content = json.loads(changed(schema_version=2))
    content["variants"][0] |= copy.deepcopy(MEASURED)
    manifest = decode_manifest(json.dumps(content).encode())
    latency = manifest.variants[0].latency
    assert (manifest.schema_version, latency.p50_ms) == (SCHEMA_VERSION, 1.0)
    assert (latency.partial, latency.machine, latency.energy, latency.quantiles_ms) == (False, None, None, ())
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("kind", "figure", "value"),
    [
        ("accuracy", "top1_ci95", [-1e308, 1e308]),
        ("accuracy", "agreement", 7.0),
        ("accuracy", "delta_top1", -2.0),
        ("latency", "p50_ms", -1.0),
        ("latency", "p50_ms", None),
        ("latency", "p90_ms", None),
        ("latency", "speedup_ci95", [1.0, 1e308]),
        ("latency", "quantiles_ms", [-1.0]),
        ("latency", "quantiles_ms", [1.0] * 102),
        ("latency", "machine", {"governor": "x" * 129}),
        ("latency", "machine", {"other_load": 2.0}),
    ],
)
def test_figures_that_cannot_be_are_refused(kind, figure, value):
    content = json.loads(CONTENT)
    content["variants"][0] |= copy.deepcopy(MEASURED)
    decode_manifest(json.dumps(content).encode())
    content["variants"][0][kind][figure] = value
    with pytest.raises(BundleError, match=r"variants"):
        decode_manifest(json.dumps(content).encode())


HOSTILE = [
    "/etc/passwd", "../secret", "a/../../secret", "a/..", "..", ".", "", "/", "a//b", "a/", "./a", "~/x", "C:/x", "c:x",
    "a\\b", "..\\secret", "\\\\host\\x", "a\0b", "a\nb", "a\n", ".hidden", "a/.hidden", "a b", "\u202ea","a" * 600,
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_paths_that_lead_elsewhere_are_refused(path, tmp_path):
    (tmp_path / "secret").write_bytes(b"12345")
    bundle = tmp_path / "bundle"
    (bundle / "a").mkdir(parents=True)
    content = json.loads(CONTENT)
    content["variants"][0]["files"][0]["path"] = path
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "b.c", ":", "\0"])).map("".join))
@settings(max_examples=500)
def test_no_path_that_is_read_escapes(path):
    content = json.loads(CONTENT)
    content["variants"][0]["files"][0]["path"] = path
    try:
        manifest = decode_manifest(json.dumps(content).encode())
    except BundleError:
        return
    root = Path("/bundles/one")
    for file in (manifest.variants[0].files[0].path, logical_path(manifest.variants[0].files[0])):
        assert Path(os.path.normpath(root / file)).is_relative_to(root)
        assert os.path.normpath(root / file) == str(root / file)


def test_links_are_refused_wherever_they_lead(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/model.onnx").write_bytes(b"12345")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_bytes(CONTENT)
    (bundle / "float32").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="link"):
        Bundle.open(bundle)
    (bundle / "float32").unlink()
    (bundle / "float32").mkdir()
    for target in (tmp_path / "outside/model.onnx", bundle / "float32/model.onnx"):
        (bundle / "float32/model.onnx").symlink_to(target)
        with pytest.raises(BundleError):
            Bundle.open(bundle)
        (bundle / "float32/model.onnx").unlink()
    os.mkfifo(bundle / "float32/model.onnx")
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle)


def test_a_bundle_reached_through_a_link_is_fine(tmp_path):
    bundle = tmp_path / "bundle"
    (bundle / "float32").mkdir(parents=True)
    (bundle / "manifest.json").write_bytes(CONTENT)
    (bundle / "float32/model.onnx").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(bundle)
    opened = Bundle.open(tmp_path / "link")
    with pytest.raises(BundleError, match="not what the manifest says"):
        verified_paths(opened.path, opened.variant("float32").files)
    assert locate(opened.path, opened.variant("float32").files[0]).read_bytes() == b"12345"


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    with pytest.raises(BundleError, match="there is no bundle"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BundleError, match="not a bundle"):
        read_manifest(file)


def test_an_endless_manifest_is_not_read(tmp_path):
    with (tmp_path / "manifest.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleError, match="too large"):
        read_manifest(tmp_path)


def npy(value: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


GOOD_LOGITS = npy(np.zeros((1, 2), np.float32))


@given(st.binary(max_size=100) | st.integers(0, len(GOOD_LOGITS) - 1).map(lambda length: GOOD_LOGITS[:length]))
@example(npy(np.zeros((1, 2), np.float64)))
@example(npy(np.zeros((2, 1), np.float32)))
@example(npy(np.array([[object(), 1]], dtype=object), allow_pickle=True))
@example(GOOD_LOGITS.replace(b"(1, 2), }", b"(1<<9), }"))
@example(GOOD_LOGITS.replace(b"(1, 2), }      ", b"(1, 99999999), }"))
@example(b"\x80\x04.")
@example(b"PK\x03\x04")
@example(b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000)
def test_damaged_logits_are_refused_without_unpickling(content):
    with tempfile.TemporaryDirectory() as folder:
        image, logits = Path(folder) / "0.png", Path(folder) / "logits.npy"
        Image.new("RGB", (2, 2)).save(image)
        logits.write_bytes(content)
        with pytest.raises(BundleError):
            read_golden([image, logits], classes=2)


@pytest.mark.parametrize("classes", [0, 2])
def test_figures_of_another_kind_of_model_are_refused(classes):
    similarity = Similarity(
        cosine_mean=1.0,
        cosine_p1=1.0,
        cosine_between=0.5,
        recall_at_1=None,
        recall_at_1_ci95=None,
        delta_recall_at_1=None,
        min_cosine=0.99,
    )
    rates = dict.fromkeys(("top1", "top1_ci95", "top5", "delta_top1", "mcnemar_p", "kl", "sqnr_db", "max_drop"))

    def measured(found):
        accuracy = Accuracy(
            **rates, data="d", data_sha256="0" * 64, images=2, agreement=1.0, passed=True, reason="", similarity=found
        )
        variant = msgspec.structs.replace(decode_manifest(CONTENT).variants[0], accuracy=accuracy)
        spec = msgspec.structs.replace(BASE.spec, classes=classes)
        return msgspec.structs.replace(BASE, spec=spec, labels=("a", "b")[:classes], variants=(variant,))

    right, wrong = (None, similarity) if classes else (similarity, None)
    assert decode_manifest(encode_manifest(measured(right))) == measured(right)
    with pytest.raises(BundleError, match="another kind of model"):
        encode_manifest(measured(wrong))


GRAPH = msgspec.structs.replace(
    BASE, spec=None, graph=GraphSpec(image_size=(8, 8), channels=3, classes=2, outputs=2, producer="pytorch")
)


def test_a_model_that_is_known_by_its_graph():
    assert decode_manifest(encode_manifest(GRAPH)) == GRAPH
    assert (GRAPH.model, BASE.model) == (GRAPH.graph, BASE.spec)


def test_manifests_from_before_there_were_such_models_are_read():
    content = json.loads(CONTENT)
    del content["graph"]
    assert decode_manifest(json.dumps(content).encode()) == decode_manifest(CONTENT)


@pytest.mark.parametrize(
    "manifest",
    [
        msgspec.structs.replace(GRAPH, spec=BASE.spec),
        msgspec.structs.replace(GRAPH, graph=None),
        msgspec.structs.replace(GRAPH, labels=("a",)),
        msgspec.structs.replace(GRAPH, preprocess=msgspec.structs.replace(BASE.preprocess, size=(4, 4))),
    ],
)
def test_graphs_that_contradict_the_rest(manifest):
    with pytest.raises(BundleError):
        encode_manifest(manifest)
