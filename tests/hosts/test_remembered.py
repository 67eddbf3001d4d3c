import json

import pytest

from edgevit.errors import BundleError, InputError
from edgevit.hosts.address import Address
from edgevit.hosts.remembered import forget, remember, remembered, wanted


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CONFIG", str(tmp_path))
    return tmp_path


def test_names_stand_for_addresses(config):
    remember("orin", "jetson@10.0.0.7:2222", "/opt/venv/bin/python")
    remember("pi", "pi@raspberrypi.local")
    assert [each.name for each in remembered()] == ["orin", "pi"]
    orin, other, plain = wanted(["orin", "root@host", "pi"])
    assert (orin.name, orin.address, orin.python) == (
        "orin",
        Address("10.0.0.7", "jetson", 2222),
        "/opt/venv/bin/python",
    )
    assert (other.name, other.address, other.python) == ("host", Address("host", "root"), None)
    assert plain.python is None
    assert wanted(["orin"], "python3.12")[0].python == "python3.12"
    remember("pi", "pi@10.0.0.9")
    assert wanted(["pi"])[0].address == Address("10.0.0.9", "pi")
    assert [each.name for each in forget("orin")] == ["pi"]
    assert wanted(["orin"])[0].address == Address("orin")
    assert [path.name for path in config.iterdir()] == ["devices.json"]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a@b", "a:b", "../x", "x" * 65, "\x1b[31m"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(InputError):
        remember(name, "host")
    assert remembered() == ()


@pytest.mark.parametrize("python", ["", "-c", "a\nb", "x" * 5000])
def test_what_can_be_no_interpreter_is_refused(python):
    with pytest.raises(InputError, match="no path of a Python"):
        wanted(["host"], python)


def test_a_host_is_measured_on_once():
    remember("pi", "pi@raspberrypi.local")
    with pytest.raises(InputError, match="given twice"):
        wanted(["a", "b", "a"])
    with pytest.raises(InputError, match="given twice"):
        wanted(["pi", "pi@raspberrypi.local"])


def test_a_name_that_is_not_there_brings_the_closest():
    remember("orin", "jetson@10.0.0.7")
    with pytest.raises(InputError) as caught:
        forget("orni")
    assert "orin" in caught.value.remedy


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 1000, b'{"schema_version": 2, "devices": []}', b'{"schema_version": 1, "x": 1}']
)
def test_a_damaged_file_is_an_error(config, content):
    (config / "devices.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"devices\.json"):
        wanted(["pi"])


def test_an_address_in_the_file_that_is_none_is_refused(config):
    entry = {"name": "pi", "address": "-oProxyCommand=touch /tmp/x", "python": None}
    (config / "devices.json").write_text(json.dumps({"schema_version": 1, "devices": [entry]}))
    with pytest.raises(InputError, match="is no host"):
        wanted(["pi"])
