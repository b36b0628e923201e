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
    facts = host.facts([0, 1], host_of(tmp_path, FILES))

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
    assert host.facts([1], host_of(tmp_path, FILES))["governor"] == "powersave"


def test_the_boost_of_other_drivers_is_turbo_too(tmp_path: Path) -> None:
    assert host.facts([0], host_of(tmp_path, {"sys/devices/system/cpu/cpufreq/boost": "0"}))["turbo"] == "off"


def test_a_board_names_itself_in_its_device_tree(tmp_path: Path) -> None:
    assert host.facts([0], host_of(tmp_path, {"proc/device-tree/model": "Board 3\0"}))["model"] == "Board 3"


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert set(host.facts([0], tmp_path)) == {"kernel", "abi"}
