"""From a push to verdicts on a machine over SSH, with the real daemon, while it is cut off, frozen, killed and stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import sshd

BLOCKS = "SELECT count(*), count(DISTINCT number), min(number), max(number) + 1 FROM blocks WHERE experiment = {}"
QUICK = {"keepalive": "200ms", "lost_after": "2s"}
# As lab.BENCH, but that it takes a while, so that it can be met at work.
SLOW = lab.BENCH.replace("exec awk", "sleep 0.2; exec awk")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path / "ssh") as made:
        yield made


@pytest.fixture
async def wire(server: sshd.Sshd) -> AsyncIterator[sshd.Wire]:
    async with sshd.Wire(server.port).laid() as laid:
        yield laid


@pytest.fixture
def made(tmp_path: Path, server: sshd.Sshd, wire: sshd.Wire) -> lab.Lab:
    (tmp_path / "lab").mkdir()
    made = lab.make(tmp_path / "lab")
    made.configure(devices=[server.settings(port=wire.port, host_key=server.fingerprint(), **QUICK)])
    made.commit("first", bench=SLOW.format(latency=100))
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])
    return made


async def verdicts(made: lab.Lab, wanted: list[str]) -> None:
    query = "SELECT e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair WHERE p.run_type = 'benchmark' ORDER BY e.id"
    await made.until(query, [(verdict,) for verdict in wanted])


async def blocks_of(made: lab.Lab, experiment: int, least: int) -> None:
    """Wait until an experiment has so many blocks."""
    await made.until(f"SELECT count(*) >= {least} FROM blocks WHERE experiment = {experiment}")


async def alone(made: lab.Lab, server: sshd.Sshd) -> None:
    """Wait until nothing of ours works on the device; a process at its end no longer shows where it works, but is there yet."""

    def working() -> list[str]:
        supervisor = server.supervisor()
        return [*lab.Lab(server.home).processes(), *([f"supervisor {supervisor}"] if lives(supervisor) else [])]

    with anyio.move_on_after(lab.WAIT) as scope:
        while await anyio.to_thread.run_sync(working):
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, working()


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended, though nobody may have asked how yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_a_push_becomes_a_verdict_though_the_device_is_lost_again_and_again(
    made: lab.Lab, server: sshd.Sshd, wire: sshd.Wire
) -> None:
    async with made.daemon():
        await verdicts(made, ["measured"])
        made.commit("slower", bench=SLOW.format(latency=130))
        await blocks_of(made, 2, 1)
        wire.cut()
        await anyio.sleep(0.5)
        wire.mend()
        await blocks_of(made, 2, 3)
        wire.stall()
        await anyio.sleep(3)  # longer than lost_after
        wire.mend()
        await blocks_of(made, 2, 4)
        server.signal(signal.SIGSTOP)
        await anyio.sleep(3)
        server.signal(signal.SIGCONT)
        await blocks_of(made, 2, 5)
        server.stop()
        await anyio.sleep(0.5)
        server.start()
        await verdicts(made, ["measured", "regressed"])
        (device,) = (await made.ctl("devices"))["devices"]
        assert device["kind"] == "ssh"
    for experiment in (1, 2):
        ((count, distinct, first, after_last),) = made.rows(BLOCKS.format(experiment))
        assert count == distinct == after_last - first
    assert made.rows("SELECT count(*) FROM trials WHERE outcome <> 'ok'") == [(0,)]  # what a lost device cut short is no trial
    await alone(made, server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_that_ends_during_a_block_leaves_nothing_on_the_device(
    made: lab.Lab, server: sshd.Sshd, number: signal.Signals
) -> None:
    made.configure(stop_timeout="0s")
    async with made.daemon() as daemon:
        await verdicts(made, ["measured"])
        made.commit("hangs", bench="#!/bin/sh\nsetsid sleep 1000 & echo > begun; wait\n")
        with anyio.fail_after(lab.WAIT):
            while not (server.home / "box" / "work" / "work" / "begun").exists():
                await anyio.sleep(0.02)
        daemon.send_signal(number)
        await daemon.wait()
        await alone(made, server)


async def test_a_device_that_a_reload_removes_ends_its_block_and_nothing_stays_there(made: lab.Lab, server: sshd.Sshd) -> None:
    made.configure(experiment=made.configuration["experiment"] | {"timeout": "3s"})
    async with made.daemon() as daemon:
        await verdicts(made, ["measured"])
        made.commit("hangs", bench="#!/bin/sh\nsetsid sleep 1000 & echo > begun; wait\n")
        with anyio.fail_after(lab.WAIT):
            while not (server.home / "box" / "work" / "work" / "begun").exists():
                await anyio.sleep(0.02)
        made.configure(devices=[{"name": "other", "kind": "local"}])
        daemon.send_signal(signal.SIGHUP)
        await made.until("SELECT count(*) FROM trials WHERE outcome = 'timed out'")
        await alone(made, server)
        with anyio.fail_after(lab.WAIT):  # it is shown until its session has been closed
            while [one["name"] for one in (await made.ctl("devices"))["devices"]] != ["other"]:
                await anyio.sleep(0.05)


async def test_check_tells_what_is_wrong_with_a_device(made: lab.Lab, server: sshd.Sshd) -> None:
    assert await checked(made) == ""
    settings: dict[str, Any] = server.settings()
    made.configure(devices=[settings | {"key_file": str(server.other_key)}])
    assert "devices[0].username: box: " in (said := await checked(made))
    assert "it does not let us in" in said


async def checked(made: lab.Lab) -> str:
    done = await anyio.run_process(
        [sys.executable, "-m", "aibenchd", "check", str(made.config)], check=False, stderr=subprocess.STDOUT
    )
    return done.stdout.decode() if done.returncode else ""
