"""A device with one of the engines: what runs there is measured, and what does not is named."""

import json

import pytest
from tiny import SHAPES

from edgevit import backends
from edgevit.bundle.store import Bundle
from edgevit.cli.app import run as edgevit
from edgevit.errors import MissingDependencyError

OTHERS = {"onnxruntime": "openvino", "openvino": "onnxruntime"}
COMMANDS = {
    "validate": ["validate", "--data", SHAPES, "--max-drop", "100"],
    "benchmark": ["benchmark", "--duration", "0.02"],
}


def without(engine, monkeypatch):
    """Let ``engine`` be one that is not installed."""
    real = backends.get_backend

    def get_backend(name):
        if name == engine:
            raise MissingDependencyError(
                f"the Python package '{name}' is not installed", remedy=f"pip install -e '.[{name}]'"
            )
        return real(name)

    monkeypatch.setattr(backends, "get_backend", get_backend)


def command(name, bundle, *more):
    first, *rest = COMMANDS[name]
    return edgevit([first, str(bundle), *rest, *more])


@pytest.mark.parametrize("missing", OTHERS)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_runs_is_measured_and_the_rest_is_named(quantized, monkeypatch, capfd, name, missing):
    without(missing, monkeypatch)
    assert command(name, quantized, "--json") == 0
    out, err = capfd.readouterr()
    measured = {each["name"] for each in json.loads(out)["variants"]}
    every = {variant.name: variant.backend for variant in Bundle.open(quantized).manifest.variants}
    assert measured == {each for each, backend in every.items() if backend != missing}
    for each in every.keys() - measured:
        assert f"Leaving out {each}: the Python package '{missing}' is not installed" in err
    assert f"pip install -e '.[{missing}]'" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_asked_for_by_name_it_is_an_error(quantized, monkeypatch, capfd, name):
    without("openvino", monkeypatch)
    assert command(name, quantized, "--variant", "int8-openvino") == 3
    assert "try: pip install -e '.[openvino]'" in capfd.readouterr().err
