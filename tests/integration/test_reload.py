"""Reload and stop: what did not change is not touched, a block in flight is whole, and a bad file changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import lab
import pytest
import receiver

SLOW = lab.BENCH.replace("exec awk", "sleep 0.15; exec awk")
OTHER = {"name": "other", "kind": "local", "cpus": [0]}


def slow_lab(tmp_path: Path, sink: str = "") -> lab.Lab:
    """A lab whose one device is busy for seconds: a block takes a third of a second."""
    made = lab.make(tmp_path, sink)
    made.configure(devices=[{"name": "host", "kind": "local", "cpus": [max(os.sched_getaffinity(0))]}])
    made.commit("first", bench=SLOW.format(latency=100))
    made.commit("second", bench=SLOW.format(latency=150))
    (repository,) = made.configuration["repositories"]
    made.configure(repositories=[repository | {"start_at": made.commits[0]}])
    return made


async def until_measuring(made: lab.Lab) -> None:
    await made.until("SELECT count(*) > 0 FROM blocks")


async def state_of(made: lab.Lab, name: str) -> str:
    found = (await made.ctl("devices"))["devices"]
    return next(one["state"] for one in found if one["name"] == name)


def whole(made: lab.Lab) -> bool:
    """Whether every experiment's blocks are numbered without a gap, each with all its trials."""
    numbers = made.rows("SELECT e.blocks, count(b.number), max(b.number) + 1 FROM experiments e"
                        " JOIN blocks b ON b.experiment = e.id GROUP BY e.id")  # fmt: skip
    trials = made.rows("SELECT count(*) FROM blocks b WHERE length(b.\"order\") <>"
                       " (SELECT count(*) FROM trials t WHERE t.experiment = b.experiment AND t.block = b.number)")  # fmt: skip
    return all(blocks == count == after for blocks, count, after in numbers) and trials == [(0,)]


async def test_ten_reloads_during_blocks_lose_none_and_leave_the_others_alone(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = slow_lab(tmp_path, sink.url)
        kept = made.configuration["devices"]
        async with made.daemon() as process:
            await made.ready()
            await until_measuring(made)
            for number in range(10):
                made.configure(devices=kept if number % 2 else [*kept, OTHER])
                good = made.config.read_text()
                made.config.write_text(good + "]")
                process.send_signal(signal.SIGHUP)
                await anyio.sleep(0.1)
                made.config.write_text(good)
                process.send_signal(signal.SIGHUP)
                await anyio.sleep(0.15)
            assert await made.ctl("reload")
            await made.until("SELECT count(*) FROM experiments WHERE state <> 'decided' AND device = 'host'", [(0,)])
            connected = [line for line in made.log().splitlines() if '"state": "connecting"' in line and '"device/host"' in line]
            assert len(connected) == 1, "the session of a device that did not change was opened again"
            with anyio.fail_after(lab.WAIT):  # the other is shown until its last block has ended
                while [one["name"] for one in (await made.ctl("devices"))["devices"]] != ["host"]:
                    await anyio.sleep(0.05)
        assert process.returncode == 0
    assert whole(made)
    assert made.rows("SELECT verdict FROM experiments WHERE device = 'host' ORDER BY id") == [("measured",), ("regressed",)]


async def test_what_waits_for_a_device_that_is_removed_says_so_and_goes_on_with_it(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    kept = made.configuration["devices"]
    async with made.daemon():
        await made.ready()
        await until_measuring(made)
        await made.ctl("pause")
        with anyio.fail_after(lab.WAIT):
            while await state_of(made, "host") != "paused":
                await anyio.sleep(0.05)
        made.configure(devices=[OTHER])
        changes = (await made.ctl("reload"))["changes"]
        (told,) = [change for change in changes if "wait for device host to be configured again: " in change]
        await made.until("SELECT count(*) > 0 FROM experiments WHERE device = 'other'")
        shown = (await made.ctl("experiments", "--device", "host"))["experiments"]
        reasons = [one["reason"] for one in shown if one["state"] in ("waiting", "open")]
        assert told.endswith(f": {len(reasons)}")
        assert all(reason.startswith("device host is not in the configuration any more") for reason in reasons)
        number = next(one["id"] for one in shown if one["state"] in ("waiting", "open"))
        assert "not in the configuration" in (await made.ctl("show", str(number)))["reason"]
        made.configure(devices=kept)
        await made.ctl("reload")
        await made.ctl("resume")
        assert "not in the configuration" not in (await made.ctl("show", str(number)))["reason"]
        await made.until("SELECT verdict FROM experiments WHERE device = 'host' ORDER BY id", [("measured",), ("regressed",)])


async def test_a_device_that_is_removed_during_its_block_is_shown_until_that_has_ended(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    begun, go = tmp_path / "begun", tmp_path / "go"
    waits = f"touch {begun}; while [ ! -e {go} ]; do sleep 0.05; done; exec awk"
    made.commit("first", bench=lab.BENCH.format(latency=100).replace("exec awk", waits))
    async with made.daemon():
        with anyio.fail_after(lab.WAIT):
            while not begun.exists():  # it is shown to be busy before: while what the program needs is laid out
                await anyio.sleep(0.02)
        assert await state_of(made, "host") == "busy"
        made.configure(devices=[OTHER])
        await made.ctl("reload")
        for shown in (await made.ctl("devices"), await made.ctl("status")):
            (row,) = [one for one in shown["devices"] if one["name"] == "host"]
            assert (row["state"], row["experiments"]) == ("leaving", {"open": 1})
            assert row["reason"].endswith("block 0")
        assert "ends its block in flight" in (await made.ctl("show", "1"))["reason"]
        go.touch()
        with anyio.fail_after(lab.WAIT):
            while len((await made.ctl("devices"))["devices"]) > 1:
                await anyio.sleep(0.05)
        assert "it goes on once that has it again" in (await made.ctl("show", "1"))["reason"]
        assert made.rows("SELECT count(*) FROM blocks WHERE experiment = 1") == [(1,)]


async def test_a_broken_file_changes_nothing_and_is_shown(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon() as process:
        await made.ready()
        good = made.config.read_text()
        made.config.write_text(good.replace('"kind": "local"', '"kind": "lokal"'))
        line = 1 + next(number for number, text in enumerate(good.splitlines()) if '"kind": "local"' in text)
        process.send_signal(signal.SIGHUP)
        with anyio.fail_after(lab.WAIT):
            while not (faults := [one for one in (await made.ctl("status"))["faults"] if one["unit"] == "daemon/configuration"]):
                await anyio.sleep(0.05)
        assert "lokal" in faults[0]["reason"]
        assert f"{made.config}:{line}:" in faults[0]["reason"]
        assert any("reload refused" in one and f"{made.config}:{line}:" in one for one in made.log().splitlines())
        with pytest.raises(AssertionError, match="lokal"):
            await made.ctl("reload")
        assert await state_of(made, "host") in ("ready", "busy")
        made.config.write_text(good)
        answer = await made.ctl("reload")
        assert answer["changes"] == []
        assert not [one for one in (await made.ctl("status"))["faults"] if one["unit"] == "daemon/configuration"]


async def test_told_to_stop_during_a_block_it_exits_with_0_and_the_block_is_whole_or_not_there(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon() as process:
        await until_measuring(made)
        await anyio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(lab.WAIT):
            assert await process.wait() == 0
    assert whole(made)
    assert made.processes() == []


async def test_a_block_that_outlasts_the_time_to_stop_is_abandoned(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("hangs", bench=f"#!/bin/sh\ntouch {tmp_path}/began; sleep 600 & wait\n")
    made.configure(stop_timeout="2s")
    async with made.daemon() as process:
        with anyio.fail_after(lab.WAIT):
            while not (tmp_path / "began").exists():
                await anyio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            while "told to stop" not in made.log():
                await anyio.sleep(0.02)
            process.send_signal(signal.SIGHUP)
            assert await process.wait() == 0
    assert made.processes() == []
    assert made.rows("SELECT state, blocks FROM experiments") == [("open", 0)]
    assert made.rows("SELECT count(*) FROM blocks") == [(0,)]


async def test_a_drained_device_whose_settings_change_stays_drained(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon():
        await made.ready()
        await made.ctl("drain", "host")
        (device,) = made.configuration["devices"]
        made.configure(devices=[device | {"cooldown": "10ms"}])
        assert (await made.ctl("reload"))["changes"] == ["device host changed"]
        with anyio.fail_after(lab.WAIT):
            while made.log().count('"state": "connecting"') < 2 or await state_of(made, "host") != "drained":
                await anyio.sleep(0.05)
        blocks = made.rows("SELECT count(*) FROM blocks")
        await anyio.sleep(0.5)
        assert made.rows("SELECT count(*) FROM blocks") == blocks
        await made.ctl("undrain", "host")
        await made.until("SELECT verdict FROM experiments ORDER BY id", [("measured",), ("regressed",)])
    assert whole(made)


async def test_what_cannot_change_while_it_runs_is_refused(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon():
        await made.ready()
        made.configure(state_directory="elsewhere")
        with pytest.raises(AssertionError, match="state_directory cannot change while aibenchd runs; restart it"):
            await made.ctl("reload")
        assert not (tmp_path / "elsewhere").exists()


async def test_the_status_file_pauses(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    flag = tmp_path / "status"
    flag.write_text("0\n")
    made.configure(status_file=str(flag))
    async with made.daemon():
        await made.ready()
        assert (await made.ctl("status"))["paused"]
        await made.until("SELECT count(*) FROM experiments", [(2,)])
        await anyio.sleep(0.5)
        assert made.rows("SELECT state FROM builds") == [("queued",)] * 2
        flag.write_text("1\n")
        await until_measuring(made)


def serve(made: lab.Lab) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aibenchd", "serve", str(made.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=lab.WAIT, check=False)


async def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon() as process:
        await made.ready()
        done = await anyio.to_thread.run_sync(serve, made)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"in use by process {process.pid}" in line


def test_a_faulty_configuration_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    made.configure(experiment={"alpha": 2, "betta": 0.1}, stop_timeout="soon")
    done = serve(made)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for key in ("experiment.alpha", "experiment.betta", "stop_timeout"):
        assert key in done.stderr


async def test_a_bad_specification_keeps_no_lab_down(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    made.write_specification("bad.json", {"model": {"name": "bad"}, "tests": [{"metric": "dellay", "commands": ["{program}"]}]})
    made.configure(benchmarks=[*made.configuration["benchmarks"], {"specification": "bad.json"}])
    async with made.daemon():
        await made.ready()
        (fault,) = (await made.ctl("status"))["faults"]
        assert fault["unit"] == "daemon/specifications"
        assert "bad.json:1:" in fault["reason"]
        made.write_specification("bad.json", lab.specification("mended"))
        with anyio.fail_after(lab.WAIT):
            while (await made.ctl("status"))["faults"]:
                await anyio.sleep(0.1)


def test_a_lab_of_which_no_specification_is_good_is_refused(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    made.write_specification("bad.json", {"model": {"name": "bad"}, "tests": []})
    made.configure(benchmarks=[{"specification": "bad.json"}])
    done = serve(made)
    assert done.returncode == 1
    assert "bad.json" in done.stderr
    assert "Traceback" not in done.stderr
