"""Governor and frequency of CPUs: planned, set and put back, on files such as the kernel's."""

from pathlib import Path
from typing import Any

import pytest

from aibenchd import errors
from aibenchd.devices import base, cpufreq, heat

CPUS = "sys/devices/system/cpu"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three CPUs of 800 to 3,000 MHz; the last is under another governor."""
    for cpu in range(3):
        place = tmp_path / CPUS / f"cpu{cpu}" / "cpufreq"
        place.mkdir(parents=True)
        files = {
            "scaling_available_governors": "performance powersave",
            "scaling_governor": "performance" if cpu == 2 else "powersave",
            "cpuinfo_min_freq": "800000",
            "cpuinfo_max_freq": "3000000",
            "scaling_min_freq": "800000",
            "scaling_max_freq": "3000000",
        }
        for name, text in files.items():
            (place / name).write_text(text)
    return tmp_path


def read(root: Path, name: str) -> list[str]:
    return [(root / CPUS / f"cpu{cpu}" / "cpufreq" / name).read_text() for cpu in range(3)]


async def test_what_is_set_is_put_back(root: Path) -> None:
    names = ("scaling_governor", "scaling_min_freq", "scaling_max_freq")
    before = [read(root, name) for name in names]
    found = cpufreq.changes([0, 1, 2], base.Conditioning(governor="performance", frequency="mid"), heat.Limits(), root)
    assert [change.do["cpus"] for change in found] == [[0, 1], [0, 1, 2]]
    for change in found:
        await cpufreq.apply(change.do, None, root)
        await cpufreq.apply(change.do, None, root)
    assert [read(root, name) for name in names] == [["performance"] * 3, ["1900000"] * 3, ["1900000"] * 3]
    for change in reversed(found):
        await cpufreq.apply(change.undo, None, root)
    assert [read(root, name) for name in names] == before


@pytest.mark.parametrize(("frequency", "kilohertz"), [("min", 800000), ("max", 3000000), ("1200000000", 1200000)])
def test_frequencies_by_name_and_by_number(root: Path, frequency: str, kilohertz: int) -> None:
    (change,) = cpufreq.changes([0], base.Conditioning(frequency=frequency), heat.Limits(), root)
    assert (change.do["least"], change.do["most"]) == (kilohertz, kilohertz)


def test_the_middle_is_one_that_is_offered(root: Path) -> None:
    (root / CPUS / "cpu0/cpufreq/scaling_available_frequencies").write_text("3000000 2000000 800000 ")
    (change,) = cpufreq.changes([0], base.Conditioning(frequency="mid"), heat.Limits(), root)
    assert change.do["most"] == 2000000


def cooling(root: Path, kind: str, state: int) -> None:
    place = root / "sys/class/thermal/cooling_device0"
    place.mkdir(parents=True, exist_ok=True)
    (place / "type").write_text(f"{kind}\n")
    (place / "cur_state").write_text(f"{state}\n")


@pytest.mark.parametrize("kind", ["cpufreq-cpu0", "thermal-cpufreq-3", "Processor"])
async def test_what_heat_has_lowered_is_put_back_as_it_was_set(root: Path, kind: str) -> None:
    limit, wanted, limits = root / CPUS / "cpu0/cpufreq/scaling_max_freq", base.Conditioning(frequency="min"), heat.Limits()
    cooling(root, kind, 2)
    limit.write_text("1200000")
    (change,) = cpufreq.changes([0], wanted, limits, root)
    assert change.undo["most"] == 3000000
    await cpufreq.apply(change.do, None, root)
    await cpufreq.apply(change.undo, None, root)
    assert read(root, "scaling_max_freq") == ["3000000"] * 3

    cooling(root, kind, 0)
    limit.write_text("2000000")  # an administrator's own
    (change,) = cpufreq.changes([0], wanted, limits, root)
    assert change.undo["most"] == 2000000
    cooling(root, kind, 2)
    limit.write_text("1200000")
    (change,) = cpufreq.changes([0], wanted, limits, root)
    assert change.undo["most"] == 2000000


@pytest.mark.parametrize("kind", ["cpufreq-cpu2", "LCD", "Fan", "thermal-devfreq-0"])
def test_a_limit_that_no_heat_of_its_own_has_lowered_is_put_back(root: Path, kind: str) -> None:
    cooling(root, kind, 2)
    (root / CPUS / "cpu0/cpufreq/scaling_max_freq").write_text("2000000")
    (change,) = cpufreq.changes([0], base.Conditioning(frequency="min"), heat.Limits(), root)
    assert change.undo["most"] == 2000000


def test_heat_is_that_of_the_cpus_that_are_set_together(root: Path) -> None:
    cooling(root, "cpufreq-cpu0", 1)
    (root / CPUS / "cpu1/cpufreq/related_cpus").write_text("0 1\n")
    for cpu in (1, 2):
        (root / CPUS / f"cpu{cpu}/cpufreq/scaling_max_freq").write_text("1200000")
    found = cpufreq.changes([1, 2], base.Conditioning(frequency="min"), heat.Limits(), root)
    assert {change.undo["cpus"][0]: change.undo["most"] for change in found} == {1: 3000000, 2: 1200000}


def test_what_is_so_already_is_not_changed(root: Path) -> None:
    assert cpufreq.changes([2], base.Conditioning(governor="performance"), heat.Limits(), root) == []
    assert cpufreq.changes([0, 1, 2], base.Conditioning(), heat.Limits(), root) == []


@pytest.mark.parametrize(
    ("wanted", "cpu", "why"),
    [
        ({"governor": "ondemand"}, 0, "cpu0 has no governor 'ondemand'; it has performance, powersave"),
        ({"frequency": "5000000000"}, 0, "cpu0 runs at 800000000 to 3000000000 Hz, not at 5000000000"),
        ({"frequency": "max"}, 7, "the frequency of cpu7 cannot be set"),
    ],
)
def test_what_cannot_be_had_is_said(root: Path, wanted: dict[str, Any], cpu: int, why: str) -> None:
    with pytest.raises(errors.CommandError, match=why):
        cpufreq.changes([cpu], base.Conditioning(**wanted), heat.Limits(), root)


async def test_a_request_that_is_refused_and_a_helper_that_is_not_there_are_said(root: Path, tmp_path: Path) -> None:
    request = {"verb": "set-governor", "cpus": [0], "governor": "no-such"}
    with pytest.raises(errors.HarnessError, match="set-governor: cpu0 has the governors performance, powersave, not 'no-such'"):
        await cpufreq.apply(request, None, root)
    with pytest.raises(errors.HarnessError, match=r"helper .*absent.sock does not answer.*is its socket unit on"):
        await cpufreq.apply(request, tmp_path / "absent.sock", root)
