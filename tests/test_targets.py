import itertools
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ENGINES

from edgevit.errors import InputError
from edgevit.quantization.emit import DIALECTS, scheme_of
from edgevit.targets import load_profile, load_target, own_targets, target_names
from edgevit.versions import in_range

TARGET = load_target("x86-onnxruntime")
ROOT = Path(__file__).resolve().parents[1]

PROFILES = {name: load_profile(name) for name in target_names()}
#: Every target that can be named, by all its names.
TARGETS = {
    **{name: load_target(name) for name in PROFILES},
    **{
        f"{name}@{edition}": load_target(f"{name}@{edition}")
        for name, profile in PROFILES.items()
        for edition in profile.edition_names()
    },
}
NVIDIA = {name: target for name, target in TARGETS.items() if target.backend.startswith("tensorrt")}


@pytest.mark.parametrize(
    ("cpuinfo", "bits"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", 8),
        ("processor : 0\nflags\t\t: fpu avx2 avx_vnni\n", 8),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", 7),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", 8),  # no x86
        ("", 8),
    ],
)
def test_weights_take_seven_bits_where_eight_would_overflow(tmp_path, cpuinfo, bits):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert TARGET.weight_bits == "auto"
    assert TARGET.weight_bits_on(tmp_path) == bits
    for fixed in (7, 8):
        assert msgspec.structs.replace(TARGET, weight_bits=fixed).weight_bits_on(tmp_path) == fixed


def test_without_cpuinfo_weights_take_eight_bits(tmp_path):
    assert TARGET.weight_bits_on(tmp_path / "nowhere") == 8


def test_settings_that_are_left_open_have_all_choices_and_prefer_the_first():
    target = msgspec.structs.replace(
        TARGET, settings={"a": "1", "b": "2"}, settings_of={"int8": {"b": "x|y", "c": "3|4"}}
    )
    assert target.choices_for("float32") == [{"a": "1", "b": "2"}]
    assert [tuple(choice.values()) for choice in target.choices_for("int8")] == [
        *(("1", "x", "3"), ("1", "x", "4"), ("1", "y", "3"), ("1", "y", "4"))
    ]
    assert target.settings_for("int8") == target.build_options("int8").settings == {"a": "1", "b": "x", "c": "3"}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_x86_processor_can_be_named_that_is_not_this_one(tmp_path, engine):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("flags : avx512_vnni\n")
    bits = {each: load_target(f"x86-{engine}@{each}").weight_bits_on(tmp_path) for each in ("vnni", "avx2")}
    assert bits == {"vnni": 8, "avx2": 7}


# What ships


def test_every_device_that_was_promised_is_there():
    jetsons = ("jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin")
    assert {f"{name}@{release}" for name in jetsons for release in ("6.0", "6.1", "6.2", "7.2")} <= TARGETS.keys()
    others = {"nvidia-ampere", "nvidia-ada", "nvidia-blackwell", "nvidia-hopper", "jetson-thor", "rtx-desktop"}
    assert (
        others | {"x86-openvino", "x86-onnxruntime", "arm64-onnxruntime", "intel-igpu", "intel-npu"} <= TARGETS.keys()
    )


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_says_what_it_must(name):
    target = TARGETS[name]
    assert target.description
    assert len(target.why) > 100
    assert target.dialect in DIALECTS
    assert target.versions
    if target.backend in ENGINES:  # what was tested is served
        pinned = re.search(rf"^{target.backend}==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        assert in_range(pinned[1], target.versions)
    if target.device != "CPU":
        assert target.weight_bits == 8
        assert target.batch
    if target.backend.startswith("tensorrt"):
        assert target.workspace_mb
        assert target.compute_capability or name in ("tensorrt", "tensorrt-legacy")


@pytest.mark.parametrize("name", NVIDIA)
def test_an_nvidia_target_races_fp16_first_in_a_form_that_its_versions_read(name):
    target = NVIDIA[name]
    assert target.precisions[0] == "fp16"
    assert "int8" in target.precisions
    assert scheme_of(target.dialect) == "symmetric"
    if target.backend == "tensorrt":
        legacy = [release for release in ("8.6", "10.3", "10.11") if in_range(release, target.versions)]
        typed = [release for release in ("10.12", "10.13", "10.16", "11.4") if in_range(release, target.versions)]
        assert bool(legacy) != bool(typed)
        assert (target.dialect == "tensorrt-legacy") == bool(legacy)
        assert not in_range("8.5", target.versions)


#: As in NVIDIA's table of compute capabilities.
CAPABILITIES = {
    "jetson-orin-nano": {"8.7"},
    "jetson-orin-nx": {"8.7"},
    "jetson-agx-orin": {"8.7"},
    "jetson-thor": {"11.0"},
    "nvidia-ampere": {"8.0", "8.6"},
    "nvidia-ada": {"8.9"},
    "nvidia-hopper": {"9.0"},
    "nvidia-blackwell": {"10.0", "12.0"},
    "rtx-desktop": {"7.5", "8.6", "8.9", "12.0"},
}


def test_compute_capabilities_are_those_of_the_devices():
    found = {}
    for name, target in NVIDIA.items():
        if target.compute_capability:
            found.setdefault(name.partition("@")[0], set()).add(target.compute_capability)
    assert found == CAPABILITIES


@pytest.mark.parametrize(
    ("release", "engine"), [("7.2", "10.16.1"), ("6.2", "10.3.0"), ("6.1", "10.3.0"), ("6.0", "8.6.2")]
)
def test_a_jetpack_is_served_with_the_tensorrt_that_it_has(release, engine):
    for name in ("jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin"):
        serving = {
            edition
            for edition in PROFILES[name].edition_names()
            if in_range(engine, TARGETS[f"{name}@{edition}"].versions)
        }
        assert release in serving
        assert len({TARGETS[f"{name}@{edition}"].versions for edition in serving}) == 1


def test_a_name_alone_is_the_first_edition():
    assert load_target("jetson-orin-nano") == load_target("jetson-orin-nano@7.2")
    assert load_target("jetson-orin-nano@6.1") == load_target("jetson-orin-nano@6.2")
    assert "JetPack 6.0" in load_target("jetson-orin-nano@6.0").description


def test_variants_that_differ_have_names_that_differ():
    """Of two targets whose variants have one name, files and settings serve each other's engine."""
    for one, other in itertools.combinations(TARGETS.values(), 2):
        precisions = set(one.precisions).intersection(other.precisions)
        for precision in precisions:
            if one.variant_of(precision) == other.variant_of(precision):
                assert (one.backend, one.device, one.dialect) == (other.backend, other.device, other.dialect)
                assert one.compute_capability == other.compute_capability
                assert one.settings_for(precision) == other.settings_for(precision)


def test_openvino_is_told_the_device():
    assert load_target("intel-igpu").settings_for("int8")["DEVICE"] == "GPU"
    assert load_target("intel-npu").settings_for("fp16") == {"DEVICE": "NPU"}
    assert "DEVICE" not in load_target("x86-openvino").settings_for("int8")
    assert load_target("intel-npu").variant_of("int8") == "int8-openvino-npu"
    assert load_target("jetson-orin-nx").variant_of("fp16") == "fp16-tensorrt-sm87"


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("x86_64", {"x86-onnxruntime", "x86-openvino"}),
        ("AMD64", {"x86-onnxruntime", "x86-openvino"}),
        ("aarch64", {"arm64-onnxruntime"}),
        ("arm64", {"arm64-onnxruntime"}),
        ("riscv64", set()),
    ],
)
def test_a_machine_has_targets_of_its_own(machine, names):
    own = own_targets(machine)
    assert set(own) == names
    assert len({target.variant_of("int8") for target in own.values()}) == len(own)


# What a user writes


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("jetson-orin-nano@5.1", "target jetson-orin-nano has no edition '5.1'", "jetson-orin-nano@6.1"),
        ("nvidia-ada@8.9", "target nvidia-ada has no edition '8.9'", "use nvidia-ada"),
        ("jetson-orin-nan@6.1", "there is no target 'jetson-orin-nan'", "jetson-orin-nano"),
        ("jetson", "there is no target 'jetson'", "jetson-orin-nano or jetson-orin-nx or jetson-thor"),
        ("@", "there is no target ''", "jetson-thor"),
    ],
)
def test_a_target_that_there_is_not(name, message, remedy):
    with pytest.raises(InputError) as caught:
        load_target(name)
    assert caught.value.message == message
    assert remedy in caught.value.remedy


OWN = """\
description = "mine"
backend = "tensorrt"
device = "GPU"
dialect = "tensorrt"
precisions = ["fp16", "int8"]
weight_bits = 8
versions = ">=10.12"
batch = { min = 1, opt = 2, max = 4 }
why = "It is what I have."

[[editions]]
names = ["a"]
description = "one"
compute_capability = "8.9"

[[editions]]
names = ["b"]
description = "other"
"""


@pytest.mark.parametrize(
    ("line", "text", "problem"),
    [
        (4, 'dialect = "onnxruntime"', "tensorrt does not take 'onnxruntime': use tensorrt or tensorrt-legacy"),
        (4, 'dialect = "tensorrt-legacy"', None),
        (3, 'device = "CPU"', 'tensorrt runs on no CPU: use device = "GPU"'),
        (3, 'device = "DLA"', "a DLA does not run MatMul, of which a Vision Transformer is made"),
        (5, 'precisions = ["int4-weights"]', "tensorrt cannot have int4-weights: use fp16, int8"),
        (5, 'precisions = ["int8", "int8"]', "a precision is named twice"),
        (5, "precisions = []", "precisions: expected `array` of length >= 1"),
        (6, "weight_bits = 6", "there is no '6'"),
        (6, 'weight_bits = "auto"', '"auto" looks at an x86 processor: write 8'),
        (7, 'versions = "10.12"', "'10.12' is no range of versions"),
        (7, 'versions = ">=10.3"', "dialect 'tensorrt' is for TensorRT 10.12 and later, and this has 10.3 in it"),
        (8, "batch = { min = 3, opt = 2, max = 4 }", "a batch of 3 to 4 images has no 2 in it"),
        (8, "batch = { min = 1, opt = 2, mux = 4 }", "there is no key 'mux' in batch"),
        (8, "batch = { min = 0 }", "batch.min: expected `int` >= 1"),
        (8, 'settings = { DEVICE = "CPU" }', "the setting DEVICE is CPU, and the key device GPU"),
        (8, 'settings = { contexts = "9" }', "TensorRT has no '9' for the setting 'contexts': use one of 1, 2, 3, 4"),
        (8, 'settings = { context = "2" }', "tensorrt has no setting 'context': use device, hardware_compatibility"),
        (8, 'settings = { device = "dla" }', "a DLA does not run MatMul, of which a Vision Transformer is made"),
        (8, 'settings_of.int8 = { rebuild = "maybe" }', "TensorRT has no 'maybe' for the setting 'rebuild'"),
        (14, 'compute_capability = "sm89"', "editions[0].compute_capability: this is not how it is written"),
        (14, 'versions = ">=10.11"', "dialect 'tensorrt' is for TensorRT 10.12 and later, and this has 10.11 in it"),
        (17, 'names = ["a"]', "there are two editions 'a'"),
        (17, 'names = ["B"]', "editions[1].names[0]: this is not how it is written"),
        (18, 'settings = { a = "b" }', "there is no key 'settings' in editions[1]"),
    ],
)
def test_a_wrong_line_of_an_own_profile_is_named(tmp_path, line, text, problem):
    lines = OWN.split("\n")
    path = tmp_path / "own.toml"
    path.write_text("\n".join([*lines[: line - 1], text, *lines[line:]]))
    with pytest.raises(InputError) as caught:
        load_target(str(path))
    where = f"{path}, line {line}: " if problem else f"{path}, line 7: dialect 'tensorrt-legacy' is for TensorRT 8.6 to"
    assert caught.value.message.startswith(where + (problem or ""))


SETTINGS = """\
description = "mine"
backend = "{backend}"
dialect = "{backend}"
precisions = ["float32", "int8-dynamic"]
why = "It is what I have."

[settings_of.float32]
{right}

[settings_of.int8-dynamic]
{right}
{wrong}
"""


@pytest.mark.parametrize(
    ("backend", "right", "wrong", "problem"),
    [
        (
            "openvino",
            'INFERENCE_PRECISION_HINT = "f32|bf16"',
            'CACHE = "yes"',
            "setting CACHE cannot be 'yes': use on or",
        ),
        ("openvino", 'CACHE = "on"', 'NUM_STREAMS = "1|many"', "setting NUM_STREAMS cannot be 'many'"),
        ("openvino", 'CACHE = "on"', 'NUM_STREAM = "1"', "openvino has no setting 'NUM_STREAM'"),
        ("onnxruntime", "", 'images = "two-by-two"', "onnxruntime's setting images cannot be 'two-by-two'"),
    ],
)
def test_the_line_of_a_wrong_setting_is_named(tmp_path, backend, right, wrong, problem):
    path = tmp_path / "own.toml"
    path.write_text(SETTINGS.format(backend=backend, right=right, wrong=wrong))
    with pytest.raises(InputError) as caught:
        load_target(str(path))
    assert caught.value.message.startswith(f"{path}, line 12: ")
    assert problem in caught.value.message
    path.write_text(SETTINGS.format(backend=backend, right=right, wrong=""))
    load_target(str(path))


def test_an_own_profile_that_is_right_is_read(tmp_path):
    path = tmp_path / "own@home.toml"
    path.write_text(OWN)
    target = load_target(str(path))
    assert (target.compute_capability, target.build_options("int8").batch.max) == ("8.9", 4)


@given(
    backend=st.sampled_from(["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]),
    dialect=st.sampled_from(list(DIALECTS)),
    device=st.sampled_from(["CPU", "GPU", "NPU"]),
    most=st.integers(1, 3),
)
def test_what_is_accepted_fits_together(tmp_path_factory, backend, dialect, device, most):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(
        f'description = "d"\nbackend = "{backend}"\ndialect = "{dialect}"\ndevice = "{device}"\nweight_bits = 8\n'
        f'precisions = ["int8"]\nwhy = "w"\nbatch = {{ max = {most} }}\n'
    )
    nvidia = backend.startswith("tensorrt")
    fits = nvidia == dialect.startswith("tensorrt") and dialect in (backend, "portable", "tensorrt", "tensorrt-legacy")
    fits &= (backend, dialect) != ("tensorrt-rtx", "tensorrt-legacy")
    fits &= device == "GPU" if nvidia else device == "CPU" or backend == "openvino"
    fits &= device != "NPU" or most == 1
    try:
        load_target(str(path))
    except InputError:
        assert not fits
    else:
        assert fits
