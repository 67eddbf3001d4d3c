"""Results print in a few lines, whatever they hold: of models with many layers, variants and classes, too."""

import dataclasses
import inspect
import shutil
import typing
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from tiny import SHAPES

import edgevit as public
from edgevit.bundle.manifest import DeviceVariant, LimitEvidence, MeasuredDevice
from edgevit.errors import DataError
from edgevit.mobile.hand_over import HandOver, Input
from edgevit.runtime import AsyncModel, Model
from edgevit.stages.hand_over_result import HandOverResult
from edgevit.stages.host_result import HostResult
from edgevit.stages.pack_video import VideoResult
from edgevit.stages.race_result import Entrant, Flip, RaceResult

FEW_LINES = 1500
ONNXRUNTIME = ["int8-onnxruntime"]


def device_of(bundle):
    """Return what another device would have measured of the bundle's INT8."""
    own = bundle.variant(*ONNXRUNTIME)
    file = own.files[0]
    seen = DeviceVariant(
        name=own.name,
        precision=own.precision,
        backend=own.backend,
        target="x86-onnxruntime",
        sha256=file.sha256,
        bytes=file.bytes,
        accuracy=own.accuracy,
        latency=own.latency,
        kernels=own.kernels,
    )
    return MeasuredDevice(name="pi", environment=own.latency.environment, edgevit="0.2.0", variants=(seen,))


def folders_of(folder, bundle):
    """Return what the other formats of packs give, whose converters are not needed for it."""
    manifest = bundle.manifest
    content = HandOver(
        format="ncnn",
        name=manifest.name,
        edgevit="0.2.0",
        tools={"ncnn": "1.0"},
        weights_sha256="a" * 64,
        float32_sha256="b" * 64,
        license=None,
        rewrites=(),
        calibration=None,
        input=Input(shape=(1, 3, 16, 16), preprocess=manifest.preprocess),
        labels=manifest.labels,
        activation="softmax",
        outputs=(),
        models=(),
    )
    video = VideoResult(path=folder, format="deepstream", bytes=9, variants=("float32",), license=None, notes=("a",))
    return HandOverResult(path=folder, content=content, notes=("a note",)), video


@pytest.fixture(scope="module")
def results(tiny_quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    place = shutil.copytree(tiny_quantized, folder / "tiny.edgevit")
    built = public.quantize(place, data=SHAPES, dialect="onnxruntime", sensitivity=True)
    validated = public.validate(place, data=SHAPES, variants=ONNXRUNTIME)
    benchmarked = public.benchmark(place, variants=["float32", *ONNXRUNTIME], duration=0.2)
    bundle = benchmarked.bundle
    device = device_of(bundle)
    host = HostResult(
        name="pi",
        address="me@pi",
        device=device,
        names=tuple(ONNXRUNTIME),
        left_out={"float16": "its values are too large"},
        problem=DataError("there are no images", remedy="give some"),
    )
    evidence = LimitEvidence(limit="max-drop 1", word="not shown", reason="too few images")
    flip = Flip(image="a.png", float32="cat", variant="dog")
    entrant = Entrant(name=ONNXRUNTIME[0], precision="int8", p50_ms=1.5, evidence=(evidence,), flips=(flip,))
    race = RaceResult(
        bundle=bundle,
        target="x86-onnxruntime",
        data="shapes",
        images=9,
        entrants=(entrant,),
        winner=None,
        left_out={"float16": "its values are too large"},
    )
    return [
        built,
        validated,
        benchmarked,
        race,
        entrant,
        host,
        device,
        *device.variants,
        *validated.accuracies.values(),
        *validated.details.values(),
        *benchmarked.latencies.values(),
        bundle.manifest,
        bundle.manifest.provenance,
        public.pack(place, folder / "tiny.zip"),
        public.pack(place, folder / "triton", format="triton"),
        *folders_of(folder, bundle),
        folders_of(folder, bundle)[0].content,
        public.predict(place, [np.zeros((16, 16, 3), np.uint8)]),
        public.verify(place),
        public.export("fashion-micro", folder / "micro.edgevit"),
    ]


def grown(result):
    """Return ``result`` with a hundred of everything of which it has some."""
    struct = isinstance(result, msgspec.Struct)
    names = result.__struct_fields__ if struct else [each.name for each in dataclasses.fields(result)]
    found = {name: getattr(result, name) for name in names}
    many = {name: value * 100 for name, value in found.items() if isinstance(value, tuple)}
    for name, value in found.items():
        if isinstance(value, Mapping):
            many[name] = {f"{key} {index}": each for key, each in value.items() for index in range(100)}
            many[name] = {key: each * 100 if isinstance(each, tuple) else each for key, each in many[name].items()}
    return (msgspec.structs if struct else dataclasses).replace(result, **many)


def test_whatever_a_public_function_returns_is_tried(results):
    functions = [each for name in public.__all__ if inspect.isfunction(each := getattr(public, name))]
    returned = {typing.get_type_hints(function)["return"] for function in functions}
    returned = {kind for each in returned for kind in typing.get_args(each) or (each,)}
    assert returned - {Model, AsyncModel} <= {type(each) for each in results}


def test_results_print_in_a_few_lines(results):
    printed = {type(each).__name__: repr(grown(each)) for each in results}
    assert {name: text for name, text in printed.items() if len(text) > FEW_LINES or "\n" in text} == {}
    assert all(text.startswith(f"{name}(") for name, text in printed.items())


def test_what_is_printed_says_the_most_important(results):
    built, validated = results[:2]
    assert f"names=('{ONNXRUNTIME[0]}'" in repr(built)
    assert "LayerSensitivity(layer=" in repr(built)
    assert "bundle=<Bundle " in repr(validated)
    device = next(each for each in results if isinstance(each, MeasuredDevice))
    assert repr(device).startswith("MeasuredDevice(name='pi', environment=Environment(")
