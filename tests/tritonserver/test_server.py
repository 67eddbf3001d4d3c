"""A repository on a real Triton server, asked by Triton's own client over HTTP and gRPC."""

import hashlib
import io
import json
import struct
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import triton_host
from msgspec.structs import replace
from PIL import Image

import edgevit as public
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.runtime import load

REASON = triton_host.missing_reason()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or "")]
MODELS = ("vit", "int8", "dense", "embedding")


@pytest.fixture(scope="module")
def bundles(tiny_quantized, tiny_dense, tiny_embedding):
    return {
        "vit": (tiny_quantized, "float32"),
        "int8": (tiny_quantized, "int8-onnxruntime"),
        "dense": (tiny_dense, "float32"),
        "embedding": (tiny_embedding, "float32"),
    }


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repositories")
    for name, (bundle, variant) in bundles.items():
        public.pack(bundle, folder / name, format="triton", name=name, variants=[variant])
    work = tmp_path_factory.mktemp("triton")
    with triton_host.triton(work, [folder / name for name in MODELS], MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return files of photos in several sizes and formats."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for seed, (size, form) in enumerate((((30, 41), "png"), ((16, 16), "jpg"), ((200, 90), "bmp"))):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        paths.append(folder / f"{seed}.{form}")
        Image.fromarray(pixels).save(paths[-1])
    return [str(path) for path in paths]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_runtimes(server, bundles, photos, protocol, name, tmp_path):
    bundle, variant = bundles[name]
    with load(bundle, variant=variant, threads=1) as model:
        images = model.prepare(photos)
        expected = model.outputs_batch(photos)
    np.save(tmp_path / "images.npy", images)
    prepared, files = server.ask(
        protocol,
        {"model": name, "inputs": {"images": str(tmp_path / "images.npy")}},
        {"model": name, "inputs": {"files": photos}},
    )
    for found in (prepared, files):
        assert found.keys() == expected.keys()
        for output, wanted in expected.items():
            np.testing.assert_allclose(found[output], wanted, atol=1e-5 if name != "int8" else 1e-2)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_triton_knows_the_labels(server, bundles, photos, protocol):
    (found,) = server.ask(protocol, {"model": "vit", "inputs": {"files": photos}, "classes": 1})
    with load(bundles["vit"][0], variant="float32", threads=1) as model:
        best = [each[0] for each in model.predict_batch(photos, top=1)]
    assert [text.split(":")[1:] for text in found["logits"]] == [[str(each.index), each.label] for each in best]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bad_requests_are_the_clients_fault_and_say_why(server, photos, protocol, tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 6000, 6000, 8, 2, 0, 0, 0)
    large = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    large += struct.pack(">I", 0) + b"IDAT" + bytes(4)
    for name, content in (("text", b"no image"), ("empty", b""), ("large", large)):
        (tmp_path / name).write_bytes(content)
    images = np.zeros((1, 3, 16, 16), np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "nan.npy", np.where(images == 0, np.nan, images))
    np.save(tmp_path / "small.npy", images[:, :, :8])
    np.save(tmp_path / "many.npy", np.zeros((9, 3, 16, 16), np.float32))

    def asked(**inputs):
        return {"model": "vit", "inputs": inputs}

    problems = [
        (asked(files=[str(tmp_path / "text")]), "is not an image"),
        (asked(files=[str(tmp_path / "empty")]), "image"),
        (asked(files=[str(tmp_path / "large")]), "36000000 pixels"),
        (asked(images=str(tmp_path / "images.npy"), files=photos[:1]), "either images or files"),
        (asked(images=str(tmp_path / "nan.npy")), "finite"),
        (asked(images=str(tmp_path / "small.npy")), "shape"),
        (asked(images=str(tmp_path / "many.npy")), "batch"),
        (asked(), "0 inputs"),
    ]
    *said, good = server.ask(protocol, *(each for each, _ in problems), asked(files=photos[:1]))
    for found, (_, problem) in zip(said, problems, strict=True):
        assert problem in found["error"], found
        assert ("400" if protocol == "http" else "INVALID_ARGUMENT") in found["error"], found
    assert "logits" in good


def test_requests_that_go_together_get_their_own_answers(server, bundles):
    random = np.random.default_rng(0)
    images = random.normal(size=(64, 3, 16, 16)).astype(np.float32)

    def ask(number):
        tensor = {
            "name": "images",
            "datatype": "FP32",
            "shape": [1, 3, 16, 16],
            "data": images[number].ravel().tolist(),
        }
        body = json.dumps({"inputs": [tensor]}).encode()
        address = f"http://{server.addresses['http']}/v2/models/vit/infer"
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as response:
            return json.load(response)["outputs"][0]["data"]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(64)))
    with load(bundles["vit"][0], variant="float32", threads=1) as model:
        np.testing.assert_allclose(found, model.infer(images), atol=1e-5)


def test_a_pack_that_answers_otherwise_is_refused_when_it_is_loaded(exported, tmp_path):
    bundle = Bundle.open(exported)
    *images, file = bundle.manifest.golden
    path = exported / file.path
    logits = io.BytesIO()
    np.save(logits, np.load(path) + 1)
    path.write_bytes(logits.getvalue())
    changed = replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    (exported / "manifest.json").write_bytes(encode_manifest(replace(bundle.manifest, golden=(*images, changed))))
    public.pack(exported, tmp_path / "models", format="triton", name="vit")
    (tmp_path / "work").mkdir()
    with (
        pytest.raises(triton_host.Refused, match="answers to the golden images otherwise"),
        triton_host.triton(tmp_path / "work", [tmp_path / "models"], ["vit"]),
    ):
        pytest.fail("it was loaded")


def test_a_damaged_pack_is_refused_when_it_is_loaded(exported, tmp_path):
    public.pack(exported, tmp_path / "models", format="triton", name="vit")
    pack = tmp_path / "models/vit/1/model.edgevit.zip"
    content = bytearray(pack.read_bytes())
    content[content.index(b"float32/model.onnx") + 20_000] ^= 1
    pack.write_bytes(content)
    (tmp_path / "work").mkdir()
    with (
        pytest.raises(triton_host.Refused, match="damaged"),
        triton_host.triton(tmp_path / "work", [tmp_path / "models"], ["vit"]),
    ):
        pytest.fail("it was loaded")
