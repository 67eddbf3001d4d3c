"""Where energy is read from on boards (tests/boards.py), and what is said where it cannot be."""

import sys

import pytest
from boards import AMD_SERVER, BOARDS, INTEL_LAPTOP, JETSON_ORIN_NANO, RASPBERRY_PI_5, write
from fake_nvml import WHOLE, library

from edgevit.errors import InputError
from edgevit.machine.power import NoSource, source


def read(found):
    return [channel.read() for channel in found.channels]


def test_a_jetson_has_the_rail_of_the_whole_module(tmp_path):
    found = source(root=write(tmp_path, JETSON_ORIN_NANO))
    assert (found.name, found.covers, found.lags) == ("INA3221 VDD_IN", "the whole module", True)
    assert read(found) == pytest.approx([5.040 * 1.200])


def test_an_agx_orin_has_rails_that_are_added_up(tmp_path):
    rails = {"VDD_GPU_SOC": "500", "VDD_CPU_CV": "200", "VIN_SYS_5V0": "700", "NC": "0", "VDDQ_VDD2_1V8AO": "80"}
    files = {"sys/class/hwmon/hwmon1/name": "ina3221", "sys/class/hwmon/hwmon2/name": "ina3221"}
    for place, (label, milliamperes) in enumerate(rails.items()):
        chip, number = f"sys/class/hwmon/hwmon{1 + place // 3}", place % 3 + 1
        files |= {f"{chip}/in{number}_label": label, f"{chip}/in{number}_input": "5000"}
        files |= {f"{chip}/curr{number}_input": milliamperes}
    found = source(root=write(tmp_path, files))
    assert found.covers == "4 rails of the module"
    assert sum(read(found)) == pytest.approx(5 * (0.5 + 0.2 + 0.7 + 0.08))


def test_a_laptop_has_its_packages_and_not_what_is_part_of_them(tmp_path):
    found = source(root=write(tmp_path, INTEL_LAPTOP))
    assert (found.name, found.covers, found.lags) == ("RAPL package-0", "the processor", False)
    assert read(found) == pytest.approx([262_143.0])
    assert found.channels[0].wraps_at == pytest.approx(262_143.328850)


def test_a_server_has_all_packages_and_their_memory(tmp_path):
    memory = {"name": "dram", "energy_uj": "3000000", "max_energy_range_uj": "65532610987"}
    files = AMD_SERVER | {f"sys/class/powercap/intel-rapl:0:0/{name}": text for name, text in memory.items()}
    found = source(root=write(tmp_path, files))
    assert (found.name, found.covers) == ("RAPL package-0, dram, package-1", "the processor and its memory")
    assert read(found) == pytest.approx([1.0, 3.0, 2.0])


def test_counters_that_only_root_may_read_are_said_with_what_to_type(tmp_path):
    root = write(tmp_path, AMD_SERVER)
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.unlink()
    counter.mkdir()  # which nobody reads as a file, not even root
    with pytest.raises(NoSource, match=r"only root may: sudo chmod a\+r .*/intel-rapl:\*/energy_uj"):
        source(root=root)
    with pytest.raises(InputError, match=r"no energy from 'rapl': .* cannot be read"):
        source("rapl", root=root)


@pytest.mark.parametrize("root", ["pi", "nothing"])
def test_a_board_without_a_sensor_has_no_energy(tmp_path, root):
    write(tmp_path, BOARDS.get(root, {}))
    with pytest.raises(NoSource, match="no RAPL counters"):
        source(root=tmp_path)


def test_it_need_not_be_measured(tmp_path):
    with pytest.raises(NoSource, match="it was not asked for"):
        source("none", root=write(tmp_path, JETSON_ORIN_NANO))


def test_a_chip_is_named_where_one_was_added(tmp_path):
    added = {"name": "ina226", "power1_input": "5250000", "in1_input": "5000", "curr1_input": "1050"}
    files = RASPBERRY_PI_5 | {f"sys/class/hwmon/hwmon7/{name}": text for name, text in added.items()}
    root = write(tmp_path, files)
    found = source("ina226", root=root)
    assert (found.name, found.covers, found.lags) == ("ina226", "what it is wired to", True)
    assert read(found) == [5.25]
    with pytest.raises(InputError, match="no hwmon chip is called so") as caught:
        source("ina219", root=root)
    assert "ina226" in caught.value.remedy
    with pytest.raises(InputError, match="neither power nor energy"):
        source("rp1_adc", root=root)


def test_of_several_sensors_one_must_be_named(tmp_path):
    """A power supply's, for one: what goes in is not added to what comes out."""
    supply = {"name": "psu", "power1_label": "pin", "power1_input": "9", "power2_label": "pout1", "power2_input": "8"}
    root = write(tmp_path, {f"sys/class/hwmon/hwmon7/{name}": text for name, text in supply.items()})
    with pytest.raises(InputError, match=r"several sensors, name one: .*power1_input, .*power2_input"):
        source("psu", root=root)
    assert read(source(str(root / "sys/class/hwmon/hwmon7/power1_input"))) == pytest.approx([9e-6])


@pytest.mark.parametrize(
    ("name", "text", "value", "lags"),
    [
        ("power1_input", "5250000", 5.25, True),
        ("power2_average", "5250000", 5.25, True),
        ("energy3_input", "7000000", 7.0, False),
        ("energy_uj", "7000000", 7.0, False),
        ("curr1_input", "1500", 7.5, True),
    ],
)
def test_a_sensors_file_says_by_its_name_what_it_gives(tmp_path, name, text, value, lags):
    write(tmp_path, {name: text, "in1_input": "5000"})
    found = source(str(tmp_path / name))
    assert (found.name, found.lags) == (str(tmp_path / name), lags)
    assert read(found) == pytest.approx([value])


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("temp1_input", "5", "not that of a sensor of power"),
        ("power1_input", "many", "no number"),
        ("power1_input", "9" * 30, "no number"),
        ("curr2_input", "5", "gives no voltage"),
        ("nothing/here", None, "no number"),
    ],
)
def test_a_file_that_is_no_sensor_is_refused(tmp_path, name, text, why):
    if text is not None:
        write(tmp_path, {name: text})
    with pytest.raises(InputError, match=why) as caught:
        source(str(tmp_path / name))
    assert "--energy-from" in caught.value.remedy


def test_what_is_no_file_is_not_read():
    with pytest.raises(InputError, match="no number"):
        source("/dev/zero")


def test_a_battery_tells_what_flows_out_of_it(tmp_path):
    root = write(tmp_path, INTEL_LAPTOP)
    assert read(source("battery", root=root)) == [9.5]
    place = "sys/class/power_supply/BAT0"
    (root / place / "power_now").unlink()
    write(root, {f"{place}/current_now": "-800000", f"{place}/voltage_now": "11500000"})
    assert read(source("battery", root=root)) == pytest.approx([9.2])
    write(root, {f"{place}/status": "Charging"})
    with pytest.raises(InputError, match="BAT0 is not discharging"):
        source("battery", root=root)


def test_a_gpu_is_added_to_what_the_processor_takes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(**WHOLE))
    root = write(tmp_path, AMD_SERVER)
    found = source(gpu=True, root=root)
    assert (found.name, found.covers) == ("RAPL package-0, package-1 + NVML", "the processor + 2 NVIDIA GPUs")
    assert read(found) == pytest.approx([1.0, 2.0, 1234.5, 1234.5])
    assert source(root=root).covers == "the processor"
    assert source(gpu=True, root=tmp_path / "nothing").covers == "2 NVIDIA GPUs"


def test_the_processor_alone_is_not_taken_for_a_gpu_that_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoSource, match="NVML finds no NVIDIA GPU"):
        source(gpu=True, root=write(tmp_path, AMD_SERVER))
