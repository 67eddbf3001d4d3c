"""A bundle's manifest with every kind of variant, made up, for the tests of the report."""

import msgspec

from edgevit.bundle.manifest import (
    Accuracy,
    Environment,
    File,
    Kernels,
    Latency,
    Manifest,
    Provenance,
    Similarity,
    TokenMerging,
    Variant,
)
from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import PRESETS

PLACE = Environment(
    machine="x86_64",
    cpu="Intel(R) Xeon(R) Processor",
    cpu_features=("avx2", "avx512f", "avx512_vnni", "amx_int8"),
    cores=2,
    os="Debian GNU/Linux 12 (bookworm), Linux 6.1.0",
    python="3.11.7",
    packages={"edgevit": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    measured_at="2026-01-02T03:04:05+00:00",
)


def accuracy(**changes):
    fields = {
        "data": "fashion-mnist",
        "data_sha256": "d" * 64,
        "images": 10_000,
        "top1": 0.9187,
        "top1_ci95": (0.9132, 0.9239),
        "top5": 0.9978,
        "delta_top1": -0.0012,
        "mcnemar_p": 0.234,
        "agreement": 0.9891,
        "kl": 0.0031,
        "sqnr_db": 22.2,
        "max_drop": 0.5,
        "passed": True,
        "reason": "top-1 fell 0.12 points, 0.5 allowed",
    }
    return Accuracy(**{**fields, **changes})


REFERENCE = accuracy(
    top1=0.9199,
    top1_ci95=(0.9144, 0.9251),
    delta_top1=0.0,
    mcnemar_p=1.0,
    agreement=1.0,
    kl=0.0,
    sqnr_db=None,
    reason="top-1 did not change",
)


FIGURES = (
    *("p50_ms", "p90_ms", "p99_ms", "throughput_ips", "speedup_vs_float32", "speedup_ci95", "rss_mb"),
    "cold_start_ms",
)


def crashed(reason):
    figures = msgspec.structs.asdict(latency())
    return Latency(**{**figures, **dict.fromkeys(FIGURES), "valid": False, "invalid_reason": reason})


def latency(p50_ms=0.71, speedup=1.83, **changes):
    fields = {
        "batch": 1,
        "threads": 2,
        "p50_ms": p50_ms,
        "p90_ms": p50_ms * 1.08,
        "p99_ms": p50_ms * 1.4,
        "throughput_ips": 980 / p50_ms,
        "speedup_vs_float32": speedup,
        "speedup_ci95": (speedup * 0.98, speedup * 1.02) if speedup != 1 else (1.0, 1.0),
        "rss_mb": 93.4,
        "cold_start_ms": 412.0,
        "valid": True,
        "invalid_reason": None,
        "environment": PLACE,
    }
    return Latency(**{**fields, **changes})


def variant(name, precision, backend, **changes):
    megabytes = 4.93 if precision == "float32" else 1.38
    fields = {
        "name": name,
        "precision": precision,
        "backend": backend,
        "target": "cpu",
        "files": (File(path=f"{name}/model.onnx", sha256="a" * 64, bytes=int(megabytes * 1e6)),),
        "kernels": Kernels(linears=25, integer_linears=25 if precision == "int8" else 0, float_linears=()),
    }
    return Variant(**{**fields, **changes})


def manifest(*variants, name="fashion"):
    spec = PRESETS["vit-micro"]
    return Manifest(
        name=name,
        spec=spec,
        preprocess=Preprocess(size=(28, 28), resize=None, mean=(0.286,), std=(0.353,), channel_order="L"),
        labels=("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        provenance=Provenance(
            source="vit-micro-fashion-mnist",
            weights_sha256="c" * 64,
            edgevit="0.1.0",
            packages={"torch": "2.13.0", "onnx": "1.23.2"},
            created_at="2026-01-02T02:00:00+00:00",
        ),
        variants=variants,
        golden=(File(path="golden/0.png", sha256="e" * 64, bytes=512),),
        extra=(File(path="calibration/table.npz", sha256="f" * 64, bytes=9001),),
    )


FULL = manifest(
    variant("float32-onnxruntime", "float32", "onnxruntime", accuracy=REFERENCE, latency=latency(1.31, 1.0)),
    variant("int8-onnxruntime", "int8", "onnxruntime", accuracy=accuracy(), latency=latency(0.71, 1.83)),
    variant(
        "float32-openvino",
        "float32",
        "openvino",
        accuracy=REFERENCE,
        latency=latency(1.12, 1.0),
        settings={"INFERENCE_PRECISION_HINT": "f32"},
    ),
    variant(
        "int8-openvino",
        "int8",
        "openvino",
        accuracy=accuracy(
            top1=0.9193, top1_ci95=(0.9138, 0.9245), delta_top1=-0.0006, mcnemar_p=0.51, agreement=0.9923
        ),
        latency=latency(0.52, 2.15),
        settings={"INFERENCE_PRECISION_HINT": "f32"},
    ),
)

#: ``FULL`` with merged tokens: two budgets of one engine, not in their order, and one of the other.
MERGED = manifest(
    *FULL.variants,
    *(
        variant(
            f"int8-{backend}-tokens{round(100 * budget)}",
            "int8",
            backend,
            accuracy=accuracy(top1=top1, top1_ci95=(top1 - 0.005, top1 + 0.005), delta_top1=top1 - 0.9199),
            latency=latency(p50_ms, (1.12 if backend == "openvino" else 1.31) / p50_ms),
            token_merging=TokenMerging(budget=budget, share=budget + 0.004, schedule=(0, 0, merged, merged, merged, 0)),
        )
        for backend, budget, merged, p50_ms, top1 in (
            ("openvino", 0.6, 9, 0.37, 0.9111),
            ("openvino", 0.8, 4, 0.44, 0.9171),
            ("onnxruntime", 0.7, 6, 0.66, 0.9142),
        )
    ),
)


def similarity(**changes):
    fields = {
        "cosine_mean": 0.99567,
        "cosine_p1": 0.98123,
        "cosine_between": 0.31415,
        "recall_at_1": 0.8421,
        "recall_at_1_ci95": (0.8348, 0.8491),
        "delta_recall_at_1": -0.0031,
        "min_cosine": 0.99,
    }
    return Similarity(**{**fields, **changes})


def embedding_accuracy(**changes):
    classes = ("top1", "top1_ci95", "top5", "delta_top1", "mcnemar_p", "kl", "max_drop")
    reason = "mean cosine 0.9956 with float32"
    return accuracy(
        **{**dict.fromkeys(classes), "reason": reason, "agreement": 0.9012, "similarity": similarity(), **changes}
    )


_FOUND = manifest(
    variant(
        "float32",
        "float32",
        "onnxruntime",
        accuracy=embedding_accuracy(
            agreement=1.0, similarity=similarity(cosine_mean=1.0, cosine_p1=1.0, delta_recall_at_1=0.0)
        ),
        latency=latency(1.31, 1.0),
    ),
    variant("int8-onnxruntime", "int8", "onnxruntime", accuracy=embedding_accuracy(), latency=latency(0.71, 1.83)),
    variant("int8-new", "int8", "openvino", kernels=None),
)
EMBEDDING = msgspec.structs.replace(_FOUND, spec=msgspec.structs.replace(_FOUND.spec, classes=0), labels=())

TROUBLED = manifest(
    variant("float32-onnxruntime", "float32", "onnxruntime", accuracy=REFERENCE, latency=latency(1.31, 1.0)),
    variant(
        "int8-onnxruntime",
        "int8",
        "onnxruntime",
        accuracy=accuracy(
            top1=0.9011,
            top1_ci95=(0.8951, 0.9068),
            delta_top1=-0.0188,
            mcnemar_p=1e-9,
            passed=False,
            reason="top-1 fell 1.88 points, 0.5 allowed",
        ),
        latency=latency(0.71, 1.83),
    ),
    variant(
        "fp16-onnxruntime",
        "fp16",
        "onnxruntime",
        accuracy=accuracy(top1=0.9198, top1_ci95=(0.9143, 0.9250), delta_top1=-0.0001, mcnemar_p=1.0, kl=4e-6),
        latency=latency(1.62, 0.81),
    ),
    variant(
        "int8-openvino",
        "int8",
        "openvino",
        accuracy=accuracy(),
        kernels=Kernels(linears=25, integer_linears=22, float_linears=("a", "b", "c")),
        latency=latency(1.09, 1.2),
    ),
    variant(
        "int8-noisy",
        "int8",
        "onnxruntime",
        accuracy=accuracy(),
        latency=latency(
            0.8,
            1.6,
            valid=False,
            invalid_reason="other processes took 31 % of the cores' time, more than 10 %; times drifted: the "
            "interquartile range of block medians is 27 %, more than 20 %",
        ),
    ),
    variant(
        "int8-crashed",
        "int8",
        "tensorrt",
        accuracy=accuracy(kl=None, sqnr_db=None, passed=True),
        kernels=None,
        latency=crashed("the worker was ended by signal 9 (Killed), perhaps for want of memory"),
    ),
    variant("int8-new", "int8", "onnxruntime", kernels=None),
)
