"""A small bundle whose model is any bytes: the store does not look inside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevit.bundle.manifest import Accuracy, Environment, Kernels, Latency, Provenance
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import ModelSpec

SPEC = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=3)
PREPROCESS = Preprocess(size=(8, 8), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
PROVENANCE = Provenance(
    source="test", weights_sha256="0" * 64, edgevit="0", packages={"torch": "2"}, created_at="2026-01-01T00:00:00Z"
)
ACCURACY = Accuracy(
    data="shapes",
    data_sha256="1" * 64,
    images=100,
    top1=0.9,
    top1_ci95=(0.8, 0.95),
    top5=1.0,
    delta_top1=-0.01,
    mcnemar_p=0.5,
    agreement=0.98,
    kl=0.001,
    sqnr_db=22.0,
    max_drop=1.0,
    passed=True,
    reason="top-1 fell 1.00 points, 1 allowed",
)
LATENCY = Latency(
    batch=1,
    threads=2,
    p50_ms=2.0,
    p90_ms=2.1,
    p99_ms=2.2,
    throughput_ips=500.0,
    speedup_vs_float32=2.0,
    speedup_ci95=(1.9, 2.1),
    rss_mb=100.0,
    cold_start_ms=50.0,
    valid=True,
    invalid_reason=None,
    environment=Environment(
        machine="m",
        cpu="c",
        cpu_features=("avx2",),
        cores=2,
        os="linux",
        python="3.11",
        packages={},
        measured_at="2026-01-01T00:00:00Z",
    ),
)
KERNELS = Kernels(linears=5, integer_linears=5, float_linears=())


def as_message(content: bytes) -> bytes:
    """Return as many bytes that are read as an ONNX file with one unknown field; ``content`` fills it."""
    size = len(content) - 3
    return bytes([15 << 3 | 2, size & 0x7F | 0x80, size >> 7]) + content[3:]


def make_bundle(
    path: Path, model: bytes = b"float32 model" * 100, *, existing: Existing = "refuse", beside: Path | None = None
) -> Bundle:
    source = (beside or path).parent / f"source{len(model)}.onnx"
    if not source.exists():
        source.write_bytes(as_message(model))
    noise = np.random.default_rng(len(model)).integers(0, 256, (2, 10, 12, 3), dtype=np.uint8)
    return Bundle.create(
        path,
        name="test",
        spec=SPEC,
        preprocess=PREPROCESS,
        labels=("a", "b", "c"),
        provenance=PROVENANCE,
        backend="onnxruntime",
        float32=source,
        golden_images=[Image.fromarray(pixels) for pixels in noise],
        golden_logits=np.arange(6, dtype=np.float32).reshape(2, 3),
        existing=existing,
    )


def add_int8(bundle: Bundle, content: bytes) -> Bundle:
    """Add a variant of two files."""

    def fill(folder: Path) -> list[Path]:
        (folder / "model.bin").write_bytes(content * 50)
        (folder / "model.xml").write_bytes(b"<net>" + content + b"</net>")
        return [folder / "model.xml"]

    return bundle.add_variant(
        "int8-openvino", precision="int8", backend="openvino", target="x86", settings={"HINT": "f32"}, fill=fill
    )


def add_report(bundle: Bundle, content: bytes) -> Bundle:
    def fill(folder: Path) -> list[Path]:
        (folder / "report.json").write_bytes(content)
        (folder / "index.html").write_bytes(content * 2)
        return [folder / "index.html"]

    return bundle.add_extra("report", fill)


@pytest.fixture(name="make_bundle")
def make_bundle_fixture() -> Callable[..., Bundle]:
    return make_bundle


@pytest.fixture(name="add_int8")
def add_int8_fixture() -> Callable[[Bundle, bytes], Bundle]:
    return add_int8


@pytest.fixture(name="add_report")
def add_report_fixture() -> Callable[[Bundle, bytes], Bundle]:
    return add_report


@pytest.fixture(name="measured")
def measured_fixture() -> dict[str, Any]:
    return {"accuracy": ACCURACY, "latency": LATENCY, "kernels": KERNELS}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "test.edgevit")
