import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgevit.errors import BundleError, InputError, StorageError
from edgevit.hosts.address import Address
from edgevit.hosts.remembered import forget_host, remember, remembered, wanted


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
    assert [each.name for each in forget_host("orin")] == ["pi"]
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
        forget_host("orni")
    assert "orin" in caught.value.remedy


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 1000, b'{"schema_version": 2, "devices": []}', b'{"schema_version": 1, "x": 1}']
)
def test_a_damaged_file_is_an_error(config, content):
    (config / "devices.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"devices\.json"):
        wanted(["pi"])


def test_names_that_are_given_at_once_are_all_kept(config):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda index: remember(f"pi{index}", f"host{index}"), range(24)))
    assert len(remembered()) == 24


def test_a_link_to_the_file_stays_one(config, tmp_path):
    (tmp_path / "settings").mkdir()
    (config / "devices.json").symlink_to(tmp_path / "settings/names.json")
    (tmp_path / "settings/names.json").write_text('{"schema_version": 1}')
    remember("pi", "host")
    assert (config / "devices.json").is_symlink()
    assert [each.name for each in remembered()] == ["pi"]


@pytest.mark.parametrize("folder", ["x" * 300, "file"])
def test_a_folder_that_cannot_be_is_one_line(config, monkeypatch, folder):
    (config / "file").touch()
    monkeypatch.setenv("EDGEVIT_CONFIG", str(config / folder))
    for call in (remembered, lambda: remember("pi", "host")):
        with pytest.raises((BundleError, StorageError)) as caught:
            call()
        assert "EDGEVIT_CONFIG" in caught.value.remedy


def test_names_and_interpreters_of_the_file_are_looked_at(config):
    for change in ({"name": "\x1b[2J"}, {"python": "-c"}):
        entry = {"name": "pi", "address": "host"} | change
        (config / "devices.json").write_text(json.dumps({"schema_version": 1, "devices": [entry]}))
        with pytest.raises((BundleError, InputError)):
            wanted(["pi"])


def test_a_name_that_no_bundle_keeps_is_refused_before_anything_is_measured():
    with pytest.raises(InputError, match="too long a name"):
        wanted(["x" * 200])
    remember("pi", "x" * 200)
    assert wanted(["pi"])[0].name == "pi"


def test_an_address_in_the_file_that_is_none_is_refused(config):
    entry = {"name": "pi", "address": "-oProxyCommand=touch /tmp/x", "python": None}
    (config / "devices.json").write_text(json.dumps({"schema_version": 1, "devices": [entry]}))
    with pytest.raises(InputError, match="is no host"):
        wanted(["pi"])
