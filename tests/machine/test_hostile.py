"""Whatever files say, reading them is no crash: sensors break, and kernels differ."""

from contextlib import suppress

import pytest
from boards import BOARDS, CPUS, INTEL_LAPTOP, JETSON_ORIN_NANO, RASPBERRY_PI_5, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.machine.gpus import Gpus
from edgevit.machine.power import NAMES, NoSource, source
from edgevit.machine.state import state
from edgevit.machine.throttling import throttling

FILES = sorted({*JETSON_ORIN_NANO, *RASPBERRY_PI_5, *INTEL_LAPTOP})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(BOARDS)), st.dictionaries(st.sampled_from(FILES), st.binary(max_size=40), max_size=4))
@example("laptop", {"sys/class/power_supply/BAT0/power_now": b"9" * 5000})
@example("jetson", {"sys/class/thermal/cooling_device1/cur_state": b"9" * 5000})
@example("jetson", {"sys/class/hwmon/hwmon1/curr1_input": "٣".encode(), "etc/nvpmodel.conf": b"\xff\x00"})
def test_no_file_is_a_crash(tmp_path_factory, board, changes):
    root = write(tmp_path_factory.mktemp("board"), BOARDS[board])
    for name, content in changes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    found = state(CPUS, root)
    assert found.temperature_c is None or -60 < found.temperature_c < 200
    throttling(CPUS, root)
    Gpus(root).readings()
    for name in NAMES:
        with suppress(NoSource, InputError):
            values = [channel.read() for channel in source(name, root=root).channels]
            assert all(value is None or isinstance(value, float) for value in values)


@pytest.mark.parametrize("name", FILES)
def test_no_missing_file_is_a_crash(tmp_path, name):
    for board in (JETSON_ORIN_NANO, RASPBERRY_PI_5, INTEL_LAPTOP):
        if name in board:
            root = write(tmp_path, {each: text for each, text in board.items() if each != name})
            state(CPUS, root)
            throttling(CPUS, root)
            with suppress(NoSource):
                source(root=root)
