import pytest


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CONFIG", str(tmp_path))


def test_devices_are_remembered_and_forgotten(edgevit):
    assert "no device has a name yet" in edgevit("devices").out
    assert edgevit("devices", "add", "orin", "jetson@10.0.0.7:2222", "--python", "/opt/v/bin/python").code == 0
    assert edgevit("devices", "add", "pi", "pi@raspberrypi.local", "--json").data() == {
        "devices": [
            {"name": "orin", "address": "jetson@10.0.0.7:2222", "python": "/opt/v/bin/python"},
            {"name": "pi", "address": "pi@raspberrypi.local", "python": None},
        ]
    }
    assert "raspberrypi.local" in edgevit("devices").out
    assert [each["name"] for each in edgevit("devices", "remove", "pi", "--json").data()["devices"]] == ["orin"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ad", "pi", "host"], "knows no 'ad'"),
        (["add", "pi"], "is missing"),
        (["add"], "is missing"),
        (["add", "pi", "--", "-oProxyCommand=x"], "is no host"),
        (["add", "a b", "host"], "cannot name a device"),
        (["add", "pi", "host", "--python", ""], "--python is empty"),
        (["remove"], "too little"),
        (["remove", "pi", "host"], "too much"),
        (["remove", "pi"], "no device is called"),
        (["list", "pi"], "too much"),
        (["list", "--python", "x"], "too much"),
    ],
)
def test_what_cannot_be_meant_is_one_line(edgevit, arguments, said):
    done = edgevit("devices", *arguments)
    assert done.code == 2
    assert said in done.failure()[0]
