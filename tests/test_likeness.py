from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.manifest import Precision
from edgevit.errors import InputError
from edgevit.likeness import OPTIONS_ELSEWHERE, PRECISIONS_ELSEWHERE, alike, devices_like, nearest
from edgevit.targets import load_target, target_names

PRECISIONS = get_args(Precision)
VARIANTS = ["float32", "int8-onnxruntime", "int8-openvino", "fp16-openvino"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("fp32", "float32"),
        ("FP32", "float32"),
        ("INT8", "int8"),
        ("int8-static", "int8"),
        ("int8_static", "int8"),
        ("bf16", "fp16 or float32"),
        ("half", "fp16"),
        ("w8a8", "int8"),
        ("INT8 dynamic", "int8-dynamic"),
        ("int8-dynamc", "int8-dynamic"),
        ("int4", "int4-weights"),
        ("e4m3", "fp8"),
        ("int16", "int8"),
    ],
)
def test_a_precision_as_others_call_it(typed, meant):
    assert nearest(typed, PRECISIONS, PRECISIONS_ELSEWHERE) == f"use {meant}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("int8", ["int8-onnxruntime", "int8-openvino"]),
        ("INT8", ["int8-onnxruntime", "int8-openvino"]),
        ("openvino", ["int8-openvino", "fp16-openvino"]),
        ("fp32", ["float32"]),
        ("bf16", ["fp16-openvino", "float32"]),
        ("int8_openvino", ["int8-openvino"]),
        ("zebra", []),
        ("", []),
    ],
)
def test_a_variant_by_a_part_of_its_name(typed, meant):
    assert alike(typed, VARIANTS, PRECISIONS_ELSEWHERE) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("orin", ["jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx"]),
        ("raspberrypi", ["arm64-onnxruntime"]),
        ("raspberry-pi-4", ["arm64-onnxruntime"]),
        ("rasberry-pi", ["arm64-onnxruntime"]),
        ("rasberry pi 5", ["arm64-onnxruntime"]),
        ("rpi5", ["arm64-onnxruntime"]),
        ("rpi4", ["arm64-onnxruntime"]),
        ("rtx4090", ["nvidia-ada", "rtx-desktop@ada"]),
        ("RTX 4070 Ti", ["nvidia-ada", "rtx-desktop@ada"]),
        ("rtx3060", ["nvidia-ampere", "rtx-desktop@ampere"]),
        ("rtx2080", ["rtx-desktop@turing"]),
        ("a100", ["nvidia-ampere"]),
        ("a10", ["nvidia-ampere@8.6"]),
        ("h100", ["nvidia-hopper"]),
        ("jetson-nano", ["jetson-orin-nano"]),
        ("x86", ["x86-onnxruntime", "x86-openvino"]),
        ("Jetson-Thor", ["jetson-thor"]),
        ("npu", ["intel-npu"]),
        ("x86-openvini", ["x86-openvino"]),
    ],
)
def test_a_target_by_what_people_call_the_device(typed, meant):
    with pytest.raises(InputError) as error:
        load_target(typed)
    assert error.value.remedy == f"use {' or '.join(meant)}; edgevit targets lists all"
    for name in meant:
        load_target(name)


def test_a_target_like_none_brings_all():
    with pytest.raises(InputError) as error:
        load_target("zebra")
    assert all(name in error.value.remedy for name in target_names())


def test_what_others_call_a_thing_is_written_as_it_is_compared():
    for name in (*PRECISIONS_ELSEWHERE, *OPTIONS_ELSEWHERE):
        assert name == name.lower()
        assert "_" not in name
    assert {name for names in PRECISIONS_ELSEWHERE.values() for name in names} <= set(PRECISIONS)


@given(st.text(), st.lists(st.text(min_size=1), unique=True))
def test_only_what_is_known_is_ever_said(name, known):
    assert set(alike(name, known, PRECISIONS_ELSEWHERE)) <= set(known)
    assert set(devices_like(name, dict.fromkeys(known, name), {})) <= set(known)
