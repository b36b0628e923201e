"""From a push to verdicts on two GPUs of a machine over SSH, with the real daemon and a stand-in of nvidia-smi."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import lab
import nvidiasmi
import pytest
import sshd

# As lab.BENCH, but that it fails where it sees another GPU than one of ours, where that is not held at 1980 MHz, and where
# its sibling is at work.
BENCH = lab.BENCH.replace(
    "exec awk",
    'case "$CUDA_VISIBLE_DEVICES" in GPU-*-58f2-*) ;; *) exit 7;; esac\n'
    '[ "$(cat {machine}/locked-$CUDA_VISIBLE_DEVICES)" = 1980 ] || exit 8\n'
    "mkdir {machine}/busy || exit 9\nsleep 0.05\nrmdir {machine}/busy\n"
    'echo "$AIBENCHD_DEVICE $CUDA_VISIBLE_DEVICES" >> {machine}/seen\nexec awk',
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path / "ssh") as made:
        yield made


VERDICTS = "SELECT e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair WHERE p.run_type = 'benchmark' ORDER BY e.id"


async def test_a_push_becomes_a_verdict_on_each_gpu_of_a_machine(tmp_path: Path, server: sshd.Sshd) -> None:
    machine = nvidiasmi.Machine(tmp_path / "bin")
    machine.tell(processes=["4711, Xorg"])
    (tmp_path / "lab").mkdir()
    made = lab.make(tmp_path / "lab")
    own = {"kind": "ssh-gpu", "lock": "board", "conditioning": {"frequency": "max"}}
    cards = {
        name: {"gpu": gpu, "env": machine.env | {"AIBENCHD_DEVICE": name}}
        for name, gpu in (("g0", "0"), ("g1", nvidiasmi.SECOND))
    }
    made.configure(devices=[server.settings(name) | own | card for name, card in cards.items()])
    made.commit("first", bench=BENCH.format(latency=100, machine=machine.directory))
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])
    async with made.daemon():
        await made.until(VERDICTS, [("measured",)] * 2)
        made.commit("slower", bench=BENCH.format(latency=130, machine=machine.directory))
        await made.until(VERDICTS, [("measured",)] * 2 + [("regressed",)] * 2, within=3 * lab.WAIT)
        devices = {one["name"]: one for one in (await made.ctl("devices"))["devices"]}
        assert {name: one["kind"] for name, one in devices.items()} == dict.fromkeys(cards, "ssh-gpu")
        assert {name: one["hash"] for name, one in devices.items()} == {"g0": nvidiasmi.FIRST, "g1": nvidiasmi.SECOND}
        assert all("GPU shared" in one["hazards"] for one in devices.values()), devices
    assert made.rows("SELECT count(*) FROM trials WHERE outcome <> 'ok'") == [(0,)]
    seen = set((machine.directory / "seen").read_text().splitlines())
    assert seen == {f"g0 {nvidiasmi.FIRST}", f"g1 {nvidiasmi.SECOND}"}
    assert [machine.locked(uuid) for uuid in (nvidiasmi.FIRST, nvidiasmi.SECOND)] == ["", ""]  # as they were found


async def test_after_sigkill_during_a_block_the_next_daemon_lets_the_clocks_go(tmp_path: Path, server: sshd.Sshd) -> None:
    machine = nvidiasmi.Machine(tmp_path / "bin")
    (tmp_path / "lab").mkdir()
    made = lab.make(tmp_path / "lab")
    keys = server.settings("g0") | {"kind": "ssh-gpu", "gpu": "0", "env": machine.env}
    made.configure(devices=[keys | {"conditioning": {"frequency": "min"}}])
    made.commit("hangs", bench=f"#!/bin/sh\necho > {machine.directory}/begun\nexec sleep 1000\n")
    async with made.daemon() as daemon:
        with anyio.fail_after(lab.WAIT):
            while not (machine.directory / "begun").exists():
                await anyio.sleep(0.02)
        assert machine.locked(nvidiasmi.FIRST) == "345"
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
    await lab.Lab(server.home).until_alone()
    assert machine.locked(nvidiasmi.FIRST) == "345"
    made.configure(devices=[keys])
    made.commit("works")
    async with made.daemon():
        with anyio.fail_after(lab.WAIT):
            while machine.locked(nvidiasmi.FIRST):
                await anyio.sleep(0.02)


async def test_a_gpu_that_a_reload_removes_in_a_block_ends_it_and_its_clocks_are_let_go(
    tmp_path: Path, server: sshd.Sshd
) -> None:
    machine = nvidiasmi.Machine(tmp_path / "bin")
    (tmp_path / "lab").mkdir()
    made = lab.make(tmp_path / "lab")
    keys = server.settings("g0") | {"kind": "ssh-gpu", "gpu": "0", "env": machine.env, "conditioning": {"frequency": "min"}}
    made.configure(devices=[keys], experiment=made.configuration["experiment"] | {"timeout": "3s"})
    made.commit("hangs", bench=f"#!/bin/sh\nsetsid sleep 1000 & echo > {machine.directory}/begun; wait\n")
    async with made.daemon() as daemon:
        with anyio.fail_after(lab.WAIT):
            while not (machine.directory / "begun").exists():
                await anyio.sleep(0.02)
        assert machine.locked(nvidiasmi.FIRST) == "345"
        made.configure(devices=[{"name": "other", "kind": "simulated"}])
        daemon.send_signal(signal.SIGHUP)
        of_gpu = "SELECT outcome FROM trials t JOIN experiments e ON e.id = t.experiment WHERE e.device = 'g0'"
        await made.until(of_gpu, [("timed out",)])  # its block had its time
        await made.until("SELECT count(*) FROM undo", [(0,)])
        assert machine.locked(nvidiasmi.FIRST) == ""
        with anyio.fail_after(lab.WAIT):
            while [one["name"] for one in (await made.ctl("devices"))["devices"]] != ["other"]:
                await anyio.sleep(0.05)
        await lab.Lab(server.home).until_alone()


async def test_clocks_that_are_refused_leave_nothing_to_undo(tmp_path: Path, server: sshd.Sshd) -> None:
    machine = nvidiasmi.Machine(tmp_path / "bin")
    machine.tell(root=True)  # as in a container, whose root is none
    (tmp_path / "lab").mkdir()
    made = lab.make(tmp_path / "lab")
    keys = {"kind": "ssh-gpu", "gpu": "0", "env": machine.env, "conditioning": {"frequency": "min"}}
    made.configure(devices=[server.settings("g0") | keys])
    async with made.daemon():
        await made.ready()
        with anyio.fail_after(lab.WAIT):
            while "clocks cannot be locked" not in (await made.ctl("devices"))["devices"][0]["reason"]:
                await anyio.sleep(0.02)
        await made.until("SELECT count(*) FROM undo", [(0,)])  # but while it is tried again
        assert not [one for one in (await made.ctl("status"))["faults"] if one["unit"] == "device/g0/undo"]
        machine.tell(root=False)
        with anyio.fail_after(lab.WAIT):
            while machine.locked(nvidiasmi.FIRST) != "345":
                await anyio.sleep(0.02)
    assert made.rows("SELECT * FROM undo") == []
    assert machine.locked(nvidiasmi.FIRST) == ""
