"""``edgevit doctor`` and ``edgevit targets`` as a user meets them."""

import sys

import pytest

from edgevit import __version__
from edgevit.backends import available_backends
from edgevit.targets import target_names


@pytest.mark.slow  # it imports torch, as users' does
def test_doctor_says_what_works_here(edgevit):
    done = edgevit("doctor", "--json")
    assert done.code == 0
    said = done.data()
    works = {(engine["name"], engine["device"]): engine for engine in said["engines"]}
    for name in ("onnxruntime", "openvino"):
        assert works[name, "CPU"]["runs"] == (name in available_backends())
    assert {target["name"].partition("@")[0] for target in said["targets"]} == set(target_names())
    assert said["machine"]["environment"]["python"] == sys.version.split()[0]
    assert said["machine"]["disk_free_mb"] > 0
    assert all(command["works"] for command in said["commands"])


def test_doctor_without_any_engine_ends_with_3_and_says_what_to_type(edgevit, monkeypatch, tmp_path):
    """All that is optional is taken away from the processes that try it, as on a fresh machine."""
    site = "import sys\nfor name in {!r}: sys.modules[name] = None\n"
    modules = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "onnx", "onnx_ir", "jinja2")
    (tmp_path / "sitecustomize.py").write_text(site.format(modules))
    monkeypatch.syspath_prepend(tmp_path)
    done = edgevit("doctor")
    assert done.code == 3
    assert f"EdgeViT {__version__}, Python" in done.out
    for extra in ("onnxruntime", "openvino", "train", "quantize", "report"):
        assert f"pip install -e '.[{extra}]'" in done.out
    assert "Traceback" not in done.out + done.err
    assert done.out.count("│ no ") >= len(target_names())


def test_one_engine_is_tried_alone(edgevit):
    done = edgevit("doctor", "--engine", "onnxruntime", "--json")
    assert done.code == 0
    found = done.data()
    assert [each["name"] for each in found["engines"]] == ["onnxruntime"]
    assert (found["commands"], found["targets"]) == ([], [])
    done = edgevit("doctor", "--engine", "onnxruntim")
    assert done.code == 2
    assert "no backend 'onnxruntim'" in done.failure()[0]


def test_targets_are_listed_in_groups(edgevit):
    out = edgevit("targets").out
    groups = ["onnxruntime on the CPU", "openvino on the NPU", "tensorrt on the GPU", "tensorrt-rtx on the GPU"]
    assert [out.index(group) for group in groups] == sorted(out.index(group) for group in groups)
    assert "@7.2 @6.2 @6.1 @6.0" in out


def test_one_target_is_shown_with_its_reasons(edgevit):
    done = edgevit("targets", "jetson-orin-nano@6.1")
    assert done.code == 0
    for part in ("JetPack 6.1 and 6.2", "tensorrt >=10.3,<10.12", "tensorrt-legacy", "8.7", "no FP8", "@7.2: JetPack"):
        assert part in done.out
    assert "1 to 8 images, tuned for 1" in done.out
    assert "any number of images" in edgevit("targets", "x86-openvino").out
    said = edgevit("targets", "jetson-orin-nano@6.1", "--json").data()
    assert (said["target"]["dialect"], said["target"]["workspace_mb"]) == ("tensorrt-legacy", 1024)
    assert [edition["names"] for edition in said["editions"]] == [["7.2"], ["6.2", "6.1"], ["6.0"]]


def test_an_own_file_is_shown_or_its_line_named(edgevit, tmp_path):
    path = tmp_path / "mine.toml"
    lines = [
        'description = "mine"',
        'backend = "openvino"',
        'dialect = "openvino"',
        'precisions = ["int8"]',
        'why = "w"',
    ]
    path.write_text("\n".join(lines))
    assert "mine" in edgevit("targets", path).out
    path.write_text("\n".join([*lines[:3], 'precisons = ["int8"]', *lines[4:]]))
    done = edgevit("targets", path)
    assert done.code == 2
    assert done.failure() == (f"{path}, line 4: there is no key 'precisons'", "use precisions")


@pytest.mark.parametrize("name", ["jetson-orin-nano@5.1", "jetsn-orin-nano", "nowhere.toml"])
def test_no_such_target(edgevit, name):
    done = edgevit("targets", name)
    assert done.code == 2
    assert done.failure()[1]


def test_a_build_for_a_device_that_is_not_here_says_how_to_get_it(edgevit, quantized):
    done = edgevit("build", quantized, "--target", "intel-npu", "--precision", "int8")
    if done.code == 0:
        pytest.skip("this machine has an NPU")
    assert done.code == 3
    message, remedy = done.failure()
    assert message.startswith("OpenVINO finds no NPU here, but CPU")
    assert "intel-npu-driver" in remedy


def test_a_build_with_another_version_says_both(edgevit, quantized, tmp_path):
    path = tmp_path / "old.toml"
    path.write_text(
        'description = "d"\nbackend = "openvino"\ndialect = "openvino"\nprecisions = ["float32", "int8"]\n'
        'versions = ">=2020.1,<2021"\nwhy = "w"\n'
    )
    done = edgevit("build", quantized, "--target", path, "--precision", "int8")
    assert done.code == 3
    message, remedy = done.failure()
    assert message.startswith(f"target {path} is for openvino >=2020.1,<2021, and this is 20")
    assert remedy == 'pip install "openvino>=2020.1,<2021"'


def test_without_a_precision_the_targets_first_is_built(edgevit, exported):
    done = edgevit("build", exported, "--target", "x86-onnxruntime", "--json")
    assert done.code == 0
    assert [variant["name"] for variant in done.data()["variants"]] == ["float32-onnxruntime"]


def test_a_bundle_that_lacks_the_precision_says_which_command_adds_it(edgevit, exported):
    done = edgevit("build", exported, "--target", "jetson-orin-nano@6.1", "--precision", "int8")
    assert done.code == 2
    message, remedy = done.failure()
    assert "has not been calibrated for int8" in message
    assert remedy == f"edgevit quantize {exported} --dialect tensorrt-legacy --data IMAGES"
