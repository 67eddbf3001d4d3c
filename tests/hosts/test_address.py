import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.hosts.address import Address, address_of


@pytest.mark.parametrize(
    ("text", "address", "device"),
    [
        ("pi", Address("pi"), "pi"),
        ("ubuntu@10.0.0.7", Address("10.0.0.7", "ubuntu"), "10.0.0.7"),
        ("jetson@orin.local:2222", Address("orin.local", "jetson", 2222), "orin.local:2222"),
        ("root@[fe80::1]:22", Address("fe80::1", "root", 22), "v6-fe80::1:22"),
        ("[::1]", Address("::1"), "v6-::1"),
        ("pi@[fe80::1%eth0.5]:22", Address("fe80::1%eth0.5", "pi", 22), "v6-fe80::1-eth0.5:22"),
    ],
)
def test_addresses_are_read_and_written_back(text, address, device):
    assert address_of(text) == address
    assert str(address) == text
    assert address.device == device


@pytest.mark.parametrize(
    "text",
    [
        "", "-oProxyCommand=x", "user@-oProxyCommand=x", "-l@host", "@host", "user@", "host:", "host:0", "host:65536",
        "a b", "host\n", "host;reboot", "$(reboot)", "[fe80]", "[::1",
        "[fe80::1%]", "[fe80::1%-o]", "[fe80::1%a b]", "user@host@host", "ssh://host", "h" * 300,
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(text):
    with pytest.raises(InputError) as caught:
        address_of(text)
    assert "USER@HOST" in caught.value.remedy or "port" in caught.value.remedy


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_or_a_command(text):
    try:
        found = address_of(text)
    except InputError:
        return
    assert address_of(str(found)) == found
    for part in (found.host, found.user or "x"):
        assert not part.startswith("-")
        assert not set(part) & set(" \t\n;&|$`'\"\\<>()*?!#~=%@/")
