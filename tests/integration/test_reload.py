"""Reload and stop: what did not change is not touched, a block in flight is whole, and a bad file changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import lab
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
                process.send_signal(signal.SIGHUP)
                await anyio.sleep(0.25)
            await made.until("SELECT count(*) FROM experiments WHERE state <> 'decided' AND device = 'host'", [(0,)])
            connected = [line for line in made.log().splitlines() if '"state": "connecting"' in line and '"device/host"' in line]
            assert len(connected) == 1, "the session of a device that did not change was opened again"
            assert [one["name"] for one in (await made.ctl("devices"))["devices"]] == ["host"]
        assert process.returncode == 0
    assert whole(made)
    assert made.rows("SELECT verdict FROM experiments WHERE device = 'host' ORDER BY id") == [("measured",), ("regressed",)]


async def test_a_broken_file_changes_nothing_and_is_shown(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    async with made.daemon() as process:
        await made.ready()
        good = made.config.read_text()
        made.config.write_text(good.replace('"kind": "local"', '"kind": "lokal"'))
        process.send_signal(signal.SIGHUP)
        with anyio.fail_after(lab.WAIT):
            while not (faults := [one for one in (await made.ctl("status"))["faults"] if one["unit"] == "daemon/configuration"]):
                await anyio.sleep(0.05)
        assert "lokal" in faults[0]["reason"]
        assert f"{made.config}:" in faults[0]["reason"]
        assert "reload refused" in made.log()
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
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split()
    assert left == []


async def test_the_status_file_pauses(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    flag = tmp_path / "status"
    flag.write_text("0\n")
    made.configure(status_file=str(flag))
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM experiments WHERE state = 'open'", [(2,)])
        assert (await made.ctl("status"))["paused"]
        assert made.rows("SELECT count(*) FROM blocks") == [(0,)]
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
        assert f"in use by process {process.pid}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_faulty_configuration_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    made = slow_lab(tmp_path)
    made.configure(experiment={"alpha": 2, "betta": 0.1}, stop_timeout="soon")
    done = serve(made)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for key in ("experiment.alpha", "experiment.betta", "stop_timeout"):
        assert key in done.stderr
