"""Devices that are waited for, changed and put back, found to be others, and given up for a while: with the real daemon."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import lab
import oddhost
import pytest

HOT = "sys/class/thermal/thermal_zone0/temp"
SLOW = "#!/bin/sh\nsleep 600\n"
MEASURED = "SELECT count(*) FROM experiments WHERE verdict IS NOT NULL"
BLOCKS = "SELECT count(*), count(DISTINCT number), min(number), max(number) + 1 FROM blocks WHERE experiment = {}"
# Of a program that makes its device another in its third run.
CHANGES = """#!/bin/sh
echo run >> "$ODD/runs-{latency}"
if [ {latency}-$(wc -l < "$ODD/runs-{latency}") = 110-3 ]; then printf performance > "$ODD/{file}"; fi
echo 'PyTorchObserver {{"type": "NET", "metric": "latency", "unit": "us", "values": [{latency}]}}'
"""


async def until(true: Callable[[], bool], made: lab.Lab) -> None:
    with anyio.move_on_after(lab.WAIT) as scope:
        while not true():
            await anyio.sleep(0.02)
    assert not scope.cancelled_caught, made.log()[-4000:]


async def until_shown(made: lab.Lab, state: str, name: str = "odd") -> dict[str, Any]:
    """Wait until a device is in a state; what is said of it then."""
    await made.ready()
    with anyio.move_on_after(lab.WAIT) as scope:
        while True:
            devices: dict[str, dict[str, Any]] = {one["name"]: one for one in (await made.ctl("devices"))["devices"]}
            if devices[name]["state"] == state:
                return devices[name]
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, (devices, made.log()[-4000:])
    raise AssertionError


async def faults(made: lab.Lab) -> dict[str, str]:
    return {one["unit"]: one["reason"] for one in (await made.ctl("status"))["faults"]}


def connections(made: lab.Lab) -> int:
    """How often the odd device was connected to, or was tried to be."""
    return sum('"state": "connecting"' in row and '"device/odd"' in row for row in made.log().splitlines())


async def test_a_meter_that_tells_nothing_is_a_hazard(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    (host,) = made.configuration["devices"]
    made.configure(devices=[host | {"meter": {"kind": "battery"}}])  # which no tests' host has a gauge of
    async with made.daemon():
        shown = await until_shown(made, "ready", host["name"])
        at = shown["hazards"].index("energy not metered")
        assert shown["advice"][at].startswith("the device does not tell its battery's charge and voltage; give it another meter")


async def test_a_hot_device_is_waited_for_and_what_was_changed_on_it_is_put_back(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"max_temperature": 70, "governor": "performance", "frequency": "mid"})
    made = machine.lab
    made.commit("first")
    machine.write(HOT, "81000")
    async with made.daemon(**machine.env) as process:
        shown = await until_shown(made, "waiting")
        assert (shown["reason"], shown["fault"]) == ("81 °C, begins at 70 or below", False)
        assert machine.governor == "performance"
        assert made.rows("SELECT count(*) FROM blocks") == [(0,)]
        machine.write(HOT, "65000")
        await made.until(MEASURED)
        shown = await until_shown(made, "ready")
        assert machine.read(f"{oddhost.CPUFREQ}/scaling_min_freq") == "1900000"
        assert (shown["health"], shown["hazards"]) == ("good", ["turbo on"])
        assert "no_turbo" in shown["advice"][0]
        assert shown["abi"]
        assert shown["last_block"]["experiment"] == 1
    assert process.returncode == 0
    assert machine.governor == "powersave"
    assert machine.read(f"{oddhost.CPUFREQ}/scaling_max_freq") == "3000000"
    assert made.rows("SELECT * FROM undo") == []
    ((facts, conditions),) = made.rows(
        "SELECT DISTINCT f.facts, b.conditions FROM blocks b JOIN fingerprints f ON f.id = b.fingerprint WHERE b.stratum = 0"
    )
    assert json.loads(facts)["governor"] == "performance"
    assert json.loads(facts)["frequency"] == "1900 MHz"
    assert [json.loads(conditions)[when]["temperature"] for when in ("before", "after")] == ["65", "65"]
    assert made.log().count('"hazard": "turbo on"') == 1


async def test_a_device_that_does_not_cool_is_a_fault_and_others_go_on(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"max_temperature": 70, "max_wait": "300ms"})
    made = machine.lab
    made.configure(devices=[*made.configuration["devices"], {"name": "other", "kind": "simulated"}])
    made.commit("first")
    machine.write(HOT, "81000")
    async with made.daemon(**machine.env):
        await made.until("SELECT verdict FROM experiments WHERE device = 'other'", [("measured",)])
        for found in ("81", "82"):  # it is looked at again and again, and stays a fault meanwhile
            machine.write(HOT, f"{found}000")
            told = f"{found} °C, begins at 70 or below; so for 0.3 s or more"
            with anyio.fail_after(lab.WAIT):
                while told not in (await faults(made)).get("device/odd", ""):
                    await anyio.sleep(0.05)
        machine.write(HOT, "60000")
        await made.until(MEASURED, [(2,)])
    assert connections(made) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_told_to_stop_or_killed_in_a_block_nothing_stays_changed(tmp_path: Path, how: signal.Signals) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"governor": "performance"})
    made = machine.lab
    made.configure(stop_timeout="200ms")
    made.commit("first", bench=SLOW)
    async with made.daemon(**machine.env) as process:
        await until_shown(made, "busy")
        assert machine.governor == "performance"
        assert len(made.rows("SELECT * FROM undo")) == 1
        process.send_signal(how)
        with anyio.fail_after(lab.WAIT):
            assert await process.wait() == (0 if how == signal.SIGTERM else -how)
    await made.until_alone()
    if how == signal.SIGKILL:
        assert machine.governor == "performance"
        machine.configure()  # it is put back also where the configuration asks for nothing any more
        async with made.daemon(**machine.env):
            await until_shown(made, "busy")
            assert machine.governor == "powersave"
        await made.until_alone()
    assert machine.governor == "powersave"
    assert made.rows("SELECT * FROM undo") == []


async def test_drained_a_device_is_as_it_was_found(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"governor": "performance"})
    made = machine.lab
    async with made.daemon(**machine.env):
        await until_shown(made, "ready")
        await until(lambda: machine.governor == "performance", made)
        await made.ctl("drain", "odd")
        await until(lambda: machine.governor == "powersave", made)
        await made.until("SELECT count(*) FROM undo", [(0,)])  # it is struck off once it has been undone
        await made.ctl("undrain", "odd")
        await until(lambda: machine.governor == "performance", made)
    assert machine.governor == "powersave"


async def test_what_cannot_be_undone_is_shown_and_undone_later(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"governor": "performance"})
    made, offered = machine.lab, f"{oddhost.CPUFREQ}/scaling_available_governors"
    async with made.daemon(**machine.env):
        await until_shown(made, "ready")
        machine.write(offered, "performance")
        await made.ctl("drain", "odd")
        with anyio.fail_after(lab.WAIT):
            while "device/odd/undo" not in await faults(made):
                await anyio.sleep(0.05)
        assert "not 'powersave'; it is tried again" in (await faults(made))["device/odd/undo"]
    assert machine.governor == "performance"
    assert len(made.rows("SELECT * FROM undo")) == 1
    machine.write(offered, "performance powersave")
    machine.configure()
    async with made.daemon(**machine.env):
        await until_shown(made, "ready")
        await until(lambda: machine.governor == "powersave", made)
        assert "device/odd/undo" not in await faults(made)
    assert made.rows("SELECT * FROM undo") == []


async def test_a_device_that_cannot_be_had_as_configured_skips_nothing(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"governor": "ondemand"})
    made = machine.lab
    made.commit("first")
    async with made.daemon(**machine.env):
        shown = await until_shown(made, "waiting")
        assert "no governor 'ondemand'; it has performance, powersave" in shown["reason"]
        machine.write(f"{oddhost.CPUFREQ}/scaling_available_governors", "ondemand powersave")
        await made.until(MEASURED)


async def test_a_block_during_which_the_device_changed_does_not_count(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path)
    made, governor = machine.lab, f"{oddhost.CPUFREQ}/scaling_governor"
    for latency in (100, 110):
        made.commit(f"takes {latency}", bench=CHANGES.format(file=governor, latency=latency))
        if latency == 100:
            (repository,) = made.configuration["repositories"]
            made.configure(repositories=[repository | {"start_at": made.commits[0]}])
    async with made.daemon(**machine.env) as process:
        await made.until("SELECT verdict FROM experiments WHERE id = 2", [("regressed",)])
        shown = await made.ctl("show", "2")
        assert process.returncode is None
    assert {(one["cause"], one["arm"]) for one in shown["excluded"]} <= {
        ("device changed", "treatment"),
        ("device changed", "control"),
    }
    excluded = made.rows("SELECT experiment, block, count(*), min(reason) FROM exclusions GROUP BY experiment, block")
    ((experiment, block, trials, reason),) = excluded
    assert (experiment, block, trials) == (2, 2, 2)
    assert "governor: powersave, now performance" in reason
    ((count, different, first, last),) = made.rows(BLOCKS.format(2))
    assert (different, first, last) == (count, 0, count)
    strata = made.rows(f"SELECT number, stratum FROM blocks WHERE experiment = {experiment}")
    assert all((number >= block) == bool(stratum) for number, stratum in strata)


async def test_a_device_that_changes_between_blocks_begins_a_stratum(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path)
    made = machine.lab
    made.configure(experiment=made.configuration["experiment"] | {"arms": 1, "blocks": 6})
    waits = 'echo run >> "$ODD/runs"; while [ $(wc -l < "$ODD/runs") -gt 2 ] && [ ! -e "$ODD/go" ]; do sleep 0.05; done; exec awk'
    made.commit("first", bench=lab.BENCH.format(latency=100).replace("exec awk", waits))
    async with made.daemon(**machine.env):
        await made.until("SELECT count(*) > 1 FROM blocks")
        await made.ctl("pause")
        machine.write("go")
        await until_shown(made, "paused")
        machine.write(f"{oddhost.CPUFREQ}/scaling_governor", "performance")
        await made.ctl("resume")
        await made.until(MEASURED)
        shown = await made.ctl("show", "1")
    strata = [one["stratum"] for one in shown["blocks"]]
    assert strata == sorted(strata)
    assert set(strata) == {0, 1}
    governors = {one["stratum"]: shown["fingerprints"][str(one["fingerprint"])]["governor"] for one in shown["blocks"]}
    assert governors == {0: "powersave", 1: "performance"}
    assert made.rows("SELECT * FROM exclusions") == []


async def test_a_device_that_fails_again_and_again_is_only_probed_until_it_is_well_or_released(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, quarantine_after=2)
    made = machine.lab
    made.configure(devices=[*made.configuration["devices"], {"name": "other", "kind": "simulated"}])
    machine.write("fails")
    made.commit("first")
    async with made.daemon(**machine.env):
        shown = await until_shown(made, "quarantined")
        assert shown["fault"]
        assert shown["health"] == "2 failures in a row"
        assert "odd: the test says that it fails" in shown["reason"]
        assert "aibenchctl release odd" in shown["reason"]
        assert (await faults(made)).keys() >= {"device/odd"}
        await made.until("SELECT verdict FROM experiments WHERE device = 'other'", [("measured",)])
        machine.write("lost")
        machine.remove("fails")
        with anyio.fail_after(lab.WAIT):
            while "is lost" not in (await until_shown(made, "quarantined"))["reason"]:
                await anyio.sleep(0.05)
        machine.remove("lost")
        await made.until(MEASURED, [(2,)])  # it came back by itself
        with anyio.fail_after(lab.WAIT):
            while (await until_shown(made, "ready"))["health"] != "good":
                await anyio.sleep(0.05)
        machine.write("fails")
        made.commit("second", latency=150)
        await until_shown(made, "quarantined")
        machine.remove("fails")
        await made.ctl("release", "odd")
        await made.until("SELECT count(*) FROM experiments WHERE device = 'odd' AND verdict IS NOT NULL", [(2,)])
    assert made.rows("SELECT DISTINCT cause FROM exclusions") == [("harness at fault",)]


async def test_a_device_that_is_away_for_a_while_is_lost_and_is_not_given_up(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, quarantine_after=2)
    made = machine.lab
    machine.write("lost")
    made.commit("first")
    async with made.daemon(**machine.env):
        await until(lambda: connections(made) > 3, made)
        machine.remove("lost")
        await made.until(MEASURED)
    assert "quarantined" not in made.log()


async def test_a_device_is_rebooted_before_an_experiments_first_block(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    device = {"name": "dream", "kind": "simulated", "conditioning": {"reboot": True, "frequency": "min"}}
    made.configure(devices=[device])
    made.commit("first")
    memory = tmp_path / "state" / "devices" / "dream" / "memory.json"
    async with made.daemon():
        await made.until(MEASURED)
        assert json.loads(memory.read_bytes())["frequency"] == 1_000_000_000  # set again after the reboot
        assert made.rows("SELECT count(*) FROM undo") == [(1,)]
        assert made.log().count("rebooted") == 1
    assert json.loads(memory.read_bytes())["frequency"] == 0
    assert made.rows("SELECT * FROM undo") == []


async def test_a_device_is_warmed_up_before_an_experiments_first_block(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.configure(devices=[{"name": "here", "kind": "local", "conditioning": {"warm_up": 3}}])
    runs = tmp_path / "runs"
    made.commit("first", bench=lab.BENCH.format(latency=100).replace("exec awk", f"echo run >> {runs}; exec awk"))
    async with made.daemon():
        await made.until(MEASURED)
    ((counted,),) = made.rows("SELECT count(*) FROM trials")
    assert counted > 0
    assert runs.read_text().count("run") == counted + 3
    assert made.rows("SELECT * FROM exclusions") == []


async def test_what_runs_here_around_another_devices_programs_waits_for_those_who_measure_here(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    marks = tmp_path / "marks"
    work = f'date +"{{}} %s.%N begins" >> {marks}; sleep 0.2; date +"{{}} %s.%N ends" >> {marks}'
    test = {"identifier": "net", "metric": "delay", "iter": 1, "commands": ["{program}"], "preprocess": {"commands": []}}
    test["preprocess"] = {"commands": [work.format("around", "around")]}
    made.write_specification("around.json", {"model": {"name": "net", "format": "generic"}, "tests": [test]})
    bench = lab.BENCH.format(latency=100).replace("exec awk", f"{work.format('here', 'here')}; exec awk")
    made.configure(
        devices=[{"name": "here", "kind": "local"}, {"name": "there", "kind": "simulated"}],
        benchmarks=[
            {"specification": "net.json", "devices": {"names": ["here"]}},
            {"specification": "around.json", "devices": {"names": ["there"]}},
        ],
        experiment=made.configuration["experiment"] | {"arms": 1, "blocks": 6},
    )
    made.commit("first", bench=bench)
    async with made.daemon():
        await made.until(MEASURED, [(2,)])
    spans: dict[str, list[list[float]]] = {"here": [], "around": []}
    for line in sorted(marks.read_text().splitlines(), key=lambda line: line.split()[1]):
        who, when, what = line.split()
        if what == "begins":
            spans[who].append([float(when)])
        else:
            spans[who][-1].append(float(when))
    assert all(len(found) >= 6 for found in spans.values())
    assert not any(one[0] < other[1] and other[0] < one[1] for one in spans["here"] for other in spans["around"])


async def test_a_device_is_chosen_by_what_it_turned_out_to_be(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.configure(
        devices=[{"name": "here", "kind": "local"}, {"name": "dream", "kind": "simulated"}],
        benchmarks=[{"specification": "net.json", "devices": {"hashes": ["dream", "gone"]}}],
    )
    made.commit("first")
    assert await check(made) == ""  # nobody knows yet what they are
    async with made.daemon():
        await made.until("SELECT device, verdict FROM experiments", [("dream", "measured")])
        assert "no device turned out to be gone yet" in (await faults(made))["selection/0"]
        shown = {one["name"]: one for one in (await made.ctl("devices"))["devices"]}
        assert shown["dream"]["hash"] == "dream"
        assert shown["here"]["fingerprint"]["kernel"]
    assert "benchmarks[0].devices: no device turned out to be gone; 'aibenchctl devices' shows" in await check(made)
    made.configure(benchmarks=[{"specification": "net.json", "devices": {"hashes": ["dream"]}}])
    assert await check(made) == ""


async def check(made: lab.Lab) -> str:
    """What is wrong, as a person is told; empty where nothing is."""
    done = await anyio.run_process([sys.executable, "-m", "aibenchd", "check", str(made.config)], check=False)
    return done.stdout.decode() + done.stderr.decode() if done.returncode else ""


async def test_what_was_left_changed_on_a_device_that_is_gone_is_shown(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, conditioning={"governor": "performance"})
    made = machine.lab
    async with made.daemon(**machine.env) as process:
        await until(lambda: machine.governor == "performance", made)
        process.kill()
        await process.wait()
    made.configure(devices=[{"name": "other", "kind": "simulated"}])
    async with made.daemon(**machine.env):
        await made.ready()
        assert "not in the configuration any more" in (await faults(made))["device/odd/undo"]


async def test_a_device_that_is_lost_now_and_then_ends_no_experiment(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, quarantine_after=3)
    made = machine.lab
    made.configure(experiment=made.configuration["experiment"] | {"arms": 1, "blocks": 3})
    machine.write("slips", "xx")  # no program of it ran
    machine.write("loses", "xx-xx-x-")
    made.commit("first")
    async with made.daemon(**machine.env):
        await made.until("SELECT verdict FROM experiments", [("measured",)], within=2 * lab.WAIT)
    assert made.rows("SELECT count(*), count(DISTINCT block) FROM exclusions WHERE cause = 'device lost'") == [(5, 3)]
