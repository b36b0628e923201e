from pathlib import Path

from aibenchd.devices import host

FILES = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast CPU\nmicrocode\t: 0x1\n\nprocessor\t: 1\nmodel name\t: Fast CPU\n",
    "proc/meminfo": "MemTotal:       1000 kB\nMemFree:        10 kB\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian 12"\n',
    "sys/class/dmi/id/product_name": "Server\n",
    "sys/devices/system/cpu/smt/active": "1\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "sys/devices/system/cpu/cpu1/topology/core_id": "0\n",
}


def host_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_facts_are_read_from_proc_and_sys(tmp_path: Path) -> None:
    facts = host.Host([0, 1], host_of(tmp_path, FILES)).facts()

    assert (
        facts.items()
        >= {
            "model": "Server",
            "cpu": "Fast CPU",
            "microcode": "0x1",
            "smt": "on",
            "turbo": "on",
            "governor": "performance, powersave",
            "memory": "1000 kB",
            "os": "Debian 12",
        }.items()
    )
    assert facts["cores"].startswith("1 (")


def test_governors_are_those_of_the_devices_cpus(tmp_path: Path) -> None:
    assert host.Host([1], host_of(tmp_path, FILES)).facts()["governor"] == "powersave"


def test_the_boost_of_other_drivers_is_turbo_too(tmp_path: Path) -> None:
    assert host.Host([0], host_of(tmp_path, {"sys/devices/system/cpu/cpufreq/boost": "0"})).facts()["turbo"] == "off"


def test_a_board_names_itself_in_its_device_tree(tmp_path: Path) -> None:
    assert host.Host([0], host_of(tmp_path, {"proc/device-tree/model": "Board 3\0"})).facts()["model"] == "Board 3"


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert set(host.Host([0], tmp_path).facts()) == {"kernel", "abi"}


def test_what_can_change_is_read_each_time(tmp_path: Path) -> None:
    this = host.Host([0, 1], host_of(tmp_path, FILES))
    before = this.facts()
    host_of(
        tmp_path,
        {
            "proc/cpuinfo": "model name: another\n",
            "proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 1000 0 -2\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            **{
                f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_{end}_freq": "1200000"
                for cpu in (0, 1)
                for end in ("min", "max")
            },
        },
    )
    assert this.facts() == {**before, "governor": "powersave", "frequency": "1200 MHz", "swap": "/dev/sda2"}


def test_a_core_that_others_share_is_told(tmp_path: Path) -> None:
    topology = {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)
    }
    host_of(tmp_path, topology)
    assert host.Host([0], tmp_path).facts()["siblings"] == "CPU 2 shares the core of CPU 0 and is not among cpus"
    assert "siblings" not in host.Host([0, 2], tmp_path).facts()


def test_the_state_is_of_the_processor(tmp_path: Path) -> None:
    files = {
        "proc/loadavg": "0.25 0.5 0.1 1/2 3\n",
        "sys/class/thermal/thermal_zone0/type": "acpitz",
        "sys/class/thermal/thermal_zone0/temp": "99000",
        "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone1/temp": "61500",
        "sys/class/power_supply/mouse/type": "Battery",
        "sys/class/power_supply/mouse/scope": "Device",
        "sys/class/power_supply/mouse/capacity": "3",
        "sys/class/power_supply/BAT0/type": "Battery",
        "sys/class/power_supply/BAT0/capacity": "80",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200123",
    }
    expected = {"load": "0.25", "temperature": "61.5", "battery": "80", "frequencies": "1200 MHz", "throttled": ""}
    assert host.Host([0], host_of(tmp_path, files)).state() == expected
    host_of(tmp_path, {"sys/class/hwmon/hwmon0/name": "coretemp", "sys/class/hwmon/hwmon0/temp1_input": "70000"})
    assert host.Host([0], tmp_path).state()["temperature"] == "70"


def test_only_new_throttling_is_told(tmp_path: Path) -> None:
    count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    this = host.Host([0], host_of(tmp_path, {count: "7"}))
    assert this.state()["throttled"] == ""
    host_of(tmp_path, {count: "9"})
    assert this.state()["throttled"] == "CPU 0 (core) was throttled 2 times"
    assert this.state()["throttled"] == ""


def test_heat_that_lowers_what_is_held_is_throttling_and_no_other_device(tmp_path: Path) -> None:
    def limits(least: int, most: int) -> Path:
        place = "sys/devices/system/cpu/cpu0/cpufreq"
        return host_of(tmp_path, {f"{place}/scaling_min_freq": str(least), f"{place}/scaling_max_freq": str(most)})

    this = host.Host([0], limits(900000, 900000))
    this.state()  # before it is changed
    limits(1800000, 1800000)
    before = this.facts()
    assert (before["frequency"], this.state()["throttled"]) == ("1800 MHz", "")
    limits(1500000, 1500000)
    assert this.facts() == before
    assert this.state()["throttled"] == "CPU 0 is held at 1500 MHz, no longer at 1800 MHz"
    limits(2000000, 2000000)
    assert this.facts()["frequency"] == "2000 MHz"
    limits(600000, 1800000)
    assert "frequency" not in this.facts()
    limits(1500000, 1500000)
    assert (this.facts()["frequency"], this.state()["throttled"]) == ("1500 MHz", "")


def test_this_host_has_a_load() -> None:
    assert float(host.Host([0]).state()["load"]) >= 0
