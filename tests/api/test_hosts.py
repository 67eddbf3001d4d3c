"""What is given here is what the command on the board is given."""

import inspect

import numpy as np
import pytest

import edgevit as public
from edgevit.api.hosts import _inputs
from edgevit.backends.tensorrt.backend import TensorRT
from edgevit.bundle.store import Bundle
from edgevit.cli.app import load_command
from edgevit.errors import InputError
from edgevit.hosts.shipment import built_there, bundle_parcels, names_with_references
from edgevit.progress import SILENT

#: Values of options that are no numbers.
WORDS = {
    "target": "x86-onnxruntime", "recipe": "default", "energy_from": "none", "variants": ["a", "b"],
    "precisions": ["int8"], "token_budgets": ["0.8"], "sweep": True, "strict": True,
}  # fmt: skip
HERE = {"bundle", "data", "labels", "calibration_data", "samples", "root", "hosts", "python", "keep", "progress"}


@pytest.mark.parametrize("step", ["benchmark", "validate", "race"])
def test_every_option_reaches_the_board(step):
    names = inspect.signature(getattr(public, step)).parameters.keys() - HERE
    given = {name: WORDS.get(name, 0.25 if name.startswith(("m", "pre")) else 1) for name in sorted(names)}
    files, options, _ = _inputs(given)
    assert files == ()
    context = load_command(step).make_context(
        step, ["BUNDLE", *(["--data", "x"] if step != "benchmark" else []), *options]
    )
    renamed = {"variants": "variant", "precisions": "precision", "token_budgets": "token_budget"}
    for name, value in given.items():
        found = context.params[renamed.get(name, name)]
        assert found == value or float(found) == value, name


def test_zero_is_given_and_what_was_not_given_is_not():
    assert _inputs({"threads": 0, "thumbnails": 0, "max_drop": None, "strict": False, "variants": ()})[1] == [
        "--threads", "0", "--thumbnails", "0",
    ]  # fmt: skip
    assert _inputs({"precision": 1e-5})[1] == ["--precision", "0.00001"]
    assert _inputs({"max_drop": np.float32(0.5), "batch": np.int64(2)})[1] == ["--max-drop", "0.5", "--batch", "2"]
    assert _inputs({"strict": np.True_, "sweep": np.False_})[1] == ["--strict"]
    with pytest.raises(InputError, match="does not go to another device"):
        _inputs({"recipe": object()})


def test_what_is_compared_with_goes_along(tiny_quantized):
    bundle = Bundle.open(tiny_quantized)
    assert names_with_references(bundle, ["int8-openvino"]) == ("float32", "float32-openvino", "int8-openvino")
    assert names_with_references(bundle, []) == tuple(each.name for each in bundle.manifest.variants)


def test_engines_of_a_device_are_built_there_from_the_calibration_here(quantized):
    def fill(folder):
        (folder / "model.onnx").write_bytes(Bundle.open(quantized).verify_files("float32").read_bytes())
        return [folder / "model.onnx"]

    bundle = Bundle.open(quantized).add_variant(
        "fp16-tensorrt", precision="fp16", backend=TensorRT.name, target="jetson-orin-nano", fill=fill
    )
    assert built_there(bundle.manifest.variants) == (("jetson-orin-nano", "fp16"),)
    names = names_with_references(bundle, ["fp16-tensorrt"])
    for calibration in (False, True):
        manifest, parcels = bundle_parcels(bundle, names, {}, SILENT, calibration=calibration)
        assert any(each.path == "calibration/plan.json" for each in parcels) is calibration
        assert {each.path for each in parcels} == {
            "manifest.json", *(file.path for variant in manifest.variants for file in variant.files),
            *(file.path for file in (*manifest.golden, *manifest.extra)),
        }  # fmt: skip
        assert all(each.latency is None and each.accuracy is None for each in manifest.variants)
