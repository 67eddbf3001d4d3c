"""Files of real boards' /sys, /proc, /etc and /var, as far as EdgeViT reads them.

The names of files, their units and their form are those of documentation, not of a board that stood here:

- cpufreq, thermal zones, hwmon, powercap, power_supply, thermal_throttle: the kernel's Documentation/
  (admin-guide/pm/cpufreq.rst, driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst, hwmon/ina3221.rst,
  hwmon/coretemp.rst, hwmon/k10temp.rst, power/powercap/powercap.rst, ABI/testing/sysfs-class-power,
  ABI/testing/sysfs-devices-system-cpu, ABI/testing/sysfs-platform_profile).
- Jetson Orin Nano: NVIDIA's Jetson Linux Developer Guide, "Jetson Orin Nano Series, Orin NX Series and AGX
  Orin Series": power monitors (INA3221 at 0x40 with VDD_IN, VDD_CPU_GPU_CV, VDD_SOC), power modes (nvpmodel), thermal
  zones, over-current throttling (soctherm-oc-event).
- Raspberry Pi 5: Raspberry Pi's documentation of get_throttled; its kernel's raspberrypi-hwmon and firmware drivers.
"""

from pathlib import Path

from edgevit.system import usable_cpus

CPUS = sorted(usable_cpus())


def write(root: Path, files: dict[str, str]) -> Path:
    """Write ``files`` below ``root``, each as the kernel ends it; return ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def cores(khz: int, governor: str, low: int, high: int) -> dict[str, str]:
    """Return cpufreq's files of the cores that this process may use."""
    found = {}
    for cpu in CPUS:
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        found |= {
            f"{folder}/scaling_cur_freq": str(khz),
            f"{folder}/scaling_governor": governor,
            f"{folder}/scaling_min_freq": str(low),
            f"{folder}/scaling_max_freq": str(high),
        }
    return found


def stat(busy: int, steal: int = 0) -> dict[str, str]:
    """Return /proc/stat with so many busy and stolen ticks of each core."""
    lines = [f"cpu{cpu} {busy} 0 0 1000 0 0 0 {steal} 0 0" for cpu in CPUS]
    return {"proc/stat": "\n".join(["cpu  1 1 1 1 1 1 1 1 0 0", *lines, "intr 1"])}


JETSON_ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    **cores(1_728_000, "schedutil", 729_600, 1_728_000),
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": """\
# < POWER_MODEL ID=9 NAME=COMMENT >
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_1 /sys/devices/system/cpu/cpu1/online

< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_A78_0 MAX_FREQ -1

< PM_CONFIG DEFAULT=1 >""",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "47937",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "48843",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal",
    "sys/class/thermal/thermal_zone8/temp": "49062",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "3",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device1/cur_state": "0",
    "sys/class/thermal/cooling_device2/type": "devfreq-17000000.gpu",
    "sys/class/thermal/cooling_device2/cur_state": "0",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5040",
    "sys/class/hwmon/hwmon1/curr1_input": "1200",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "5032",
    "sys/class/hwmon/hwmon1/curr2_input": "400",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in3_input": "5032",
    "sys/class/hwmon/hwmon1/curr3_input": "300",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/in7_input": "9120",
    "sys/class/hwmon/hwmon1/curr4_input": "1900",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "4",
    "sys/class/hwmon/hwmon3/oc3_throt_en": "1",
}

RASPBERRY_PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    **cores(2_400_000, "ondemand", 1_500_000, 2_400_000),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "61950",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal",
    "sys/class/hwmon/hwmon0/temp1_input": "61400",
    "sys/class/hwmon/hwmon1/name": "rp1_adc",
    "sys/class/hwmon/hwmon1/in1_input": "1478",
    "sys/class/hwmon/hwmon2/name": "pwmfan",
    "sys/class/hwmon/hwmon3/name": "rpi_volt",
    "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "0",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0",
}

INTEL_LAPTOP = {
    **cores(3_400_000, "powersave", 400_000, 4_700_000),
    "sys/firmware/acpi/platform_profile": "balanced",
    "sys/class/thermal/thermal_zone0/type": "INT3400 Thermal",
    "sys/class/thermal/thermal_zone0/temp": "20000",
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone1/temp": "71000",
    "sys/class/thermal/thermal_zone2/type": "iwlwifi_1",
    "sys/class/thermal/thermal_zone2/temp": "95000",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "intel_powerclamp",
    "sys/class/thermal/cooling_device1/cur_state": "-1",
    "sys/class/hwmon/hwmon4/name": "coretemp",
    "sys/class/hwmon/hwmon4/temp1_input": "72000",
    "sys/class/hwmon/hwmon4/temp2_input": "70000",
    "sys/class/hwmon/hwmon5/name": "nvme",
    "sys/class/hwmon/hwmon5/temp1_input": "88850",
    "sys/class/hwmon/hwmon6/name": "BAT0",
    "sys/class/hwmon/hwmon6/power1_input": "9500000",
    "sys/class/powercap/intel-rapl/enabled": "1",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262143000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "17",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": "18",
    "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "262143000000",
    "sys/class/powercap/intel-rapl-mmio:0/max_energy_range_uj": "262143328850",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "0",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/BAT0/power_now": "9500000",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "sys/class/power_supply/hidpp_battery_0/status": "Discharging",
    **{f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count": "5" for cpu in CPUS},
    **{f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/package_throttle_count": "6" for cpu in CPUS},
}

AMD_SERVER = {
    **cores(2_450_000, "performance", 1_500_000, 2_450_000),
    "sys/class/hwmon/hwmon0/name": "k10temp",
    "sys/class/hwmon/hwmon0/temp1_label": "Tctl",
    "sys/class/hwmon/hwmon0/temp1_input": "55250",
    "sys/class/hwmon/hwmon1/name": "k10temp",
    "sys/class/hwmon/hwmon1/temp1_label": "Tctl",
    "sys/class/hwmon/hwmon1/temp1_input": "57875",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "65532610987",
    "sys/class/powercap/intel-rapl:1/name": "package-1",
    "sys/class/powercap/intel-rapl:1/energy_uj": "2000000",
    "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "65532610987",
}

BOARDS = {
    "jetson": JETSON_ORIN_NANO,
    "pi": RASPBERRY_PI_5,
    "laptop": INTEL_LAPTOP,
    "server": AMD_SERVER,
}
