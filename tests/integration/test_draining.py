"""A device that is drained or released: what is told of it then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import lab
import oddhost


async def shown(made: lab.Lab, name: str) -> Any:
    return next(one for one in (await made.ctl("devices"))["devices"] if one["name"] == name)


async def until_shown(made: lab.Lab, name: str, state: str, reason: str = "") -> Any:
    with anyio.fail_after(lab.WAIT):
        while (now := await shown(made, name))["state"] != state or reason not in now["reason"]:
            await anyio.sleep(0.05)
    return now


async def test_a_device_is_draining_until_its_block_is_done_and_then_drained(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    begun, go = tmp_path / "begun", tmp_path / "go"
    waits = f"touch {begun}; while [ ! -e {go} ]; do sleep 0.05; done; exec awk"
    made.commit("first", bench=lab.BENCH.format(latency=100).replace("exec awk", waits))
    async with made.daemon():
        with anyio.fail_after(lab.WAIT):
            while not begun.exists():  # it is shown to be busy before: while what the program needs is laid out
                await anyio.sleep(0.02)
        answer = await made.ctl("drain", "host")
        assert (answer["state"], answer["reason"]) == ("draining", (await shown(made, "host"))["reason"])
        assert "block 0" in answer["reason"]
        go.touch()
        await until_shown(made, "host", "drained")
        assert made.rows("SELECT count(*) FROM blocks") == [(1,)]
        assert (await made.ctl("drain", "host"))["state"] == "drained"
        assert (await made.ctl("undrain", "host"))["state"] == "ready"
        await made.until("SELECT verdict FROM experiments", [("measured",)])


async def test_a_device_in_quarantine_is_shown_to_be_drained_too(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, quarantine_after=2)
    made = machine.lab
    machine.write("fails")
    made.commit("first")
    async with made.daemon(**machine.env):
        await made.ready()
        await until_shown(made, "odd", "quarantined")
        machine.write("lost")  # or it would be out of quarantine by itself, some looks later
        await until_shown(made, "odd", "quarantined", "is lost")
        answer = await made.ctl("drain", "odd")
        assert answer["state"] == "quarantined"
        assert "drained until 'aibenchctl undrain odd'" in answer["reason"]
        machine.write("lost", "again")
        now = await until_shown(made, "odd", "quarantined", "is lost again")
        assert "drained until" in now["reason"]
        assert "drained" not in (await made.ctl("undrain", "odd"))["reason"]


async def test_a_release_says_what_was_and_what_is(tmp_path: Path) -> None:
    machine = oddhost.Machine(tmp_path, quarantine_after=2)
    made = machine.lab
    machine.write("fails")
    made.commit("first")
    async with made.daemon(**machine.env):
        await made.ready()
        await until_shown(made, "odd", "quarantined")
        machine.write("lost")  # or it would be out of quarantine by itself, some looks later
        await until_shown(made, "odd", "quarantined", "is lost")
        answer = await made.ctl("release", "odd")
        assert (answer["released"], answer["was"], answer["state"]) == (True, "quarantined", "connecting")
        machine.remove("fails")
        machine.remove("lost")
        await made.until("SELECT verdict FROM experiments", [("measured",)])
        await until_shown(made, "odd", "ready")
        answer = await made.ctl("release", "odd")
        assert (answer["released"], answer["was"], answer["state"]) == (False, "ready", "ready")
