"""From a push to a verdict on a phone, through the real adb server; and what a phone, its line and the daemon do meanwhile."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import adbd
import anyio
import lab
import pytest

ENDED = "SELECT verdict FROM experiments ORDER BY id"
BLOCKS = "SELECT count(*), count(DISTINCT number), min(number), max(number) + 1 FROM blocks WHERE experiment = {}"
SLOW = "#!/bin/sh\necho >begun\nsleep 600\n"
BEFORE = ("schedutil", "300000", "1800000")

server, phone = adbd.shared_server, adbd.fresh_phone


def make(directory: Path, server: adbd.Server, phone: adbd.Phone, **device: Any) -> lab.Lab:
    """A lab whose one device is a phone; its engine has no revision yet."""
    made = lab.make(directory)
    keys = {"name": "pixel", "kind": "adb", "address": phone.address, "server_port": server.port, "minimum_free": "1MiB"}
    made.configure(devices=[keys | device], stop_timeout="200ms")
    return made


def begin(made: lab.Lab) -> None:
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])


async def until_shown(made: lab.Lab, state: str) -> dict[str, Any]:
    await made.ready()
    with anyio.move_on_after(lab.WAIT) as scope:
        while True:
            (shown,) = (await made.ctl("devices"))["devices"]
            if shown["state"] == state:
                return dict(shown)
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, (shown, made.log()[-4000:])
    raise AssertionError


async def until_running(made: lab.Lab, phone: adbd.Phone) -> None:
    with anyio.move_on_after(lab.WAIT) as scope:
        while not (phone.directory / "work/work/begun").exists():
            await anyio.sleep(0.02)
    assert not scope.cancelled_caught, made.log()[-4000:]


async def until_still(phone: adbd.Phone) -> None:
    with anyio.move_on_after(lab.WAIT) as scope:
        while phone.processes():
            await anyio.sleep(0.02)
    assert not scope.cancelled_caught, f"left: {phone.processes()}"


async def test_a_push_becomes_a_verdict_on_a_phone(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    made = make(tmp_path, server, phone, screen_off=True)
    made.commit("first")
    begin(made)
    async with made.daemon() as process:
        await made.until(ENDED, [("measured",)])
        made.commit("slower", latency=110)
        await made.until(ENDED, [("measured",), ("regressed",)])
        made.commit("as before", latency=100)
        await made.until(ENDED, [("measured",), ("regressed",), ("improved",)])
        shown = await until_shown(made, "ready")
        assert (shown["os"], shown["abi"]) == ("Android 14", "x86_64")
        assert "Asleep" in (phone.root / "phone/dumpsys/power").read_text()
    assert process.returncode == 0
    assert "Awake" in (phone.root / "phone/dumpsys/power").read_text()
    await until_still(phone)


async def test_a_line_that_drops_again_and_again_costs_blocks_and_no_verdict(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone
) -> None:
    made = make(tmp_path, server, phone)
    made.commit("first")
    begin(made)
    faults = [("sync", "drop"), ("shell", "garbage"), ("shell", "drop"), ("sync", "garbage"), ("shell", "close")]
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
        phone.faults += [adbd.Fault(service, what, 1) for service, what in faults]
        made.commit("slower", latency=110)
        await made.until(ENDED, [("measured",), ("regressed",)], within=2 * lab.WAIT)
    assert phone.faults == []
    ((count, different, first, last),) = made.rows(BLOCKS.format(2))
    assert (different, first, last) == (count, 0, count)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_told_to_stop_or_killed_in_a_block_nothing_stays_on_the_phone(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone, how: signal.Signals
) -> None:
    phone.script("su", adbd.SU)
    wishes = {"frequency": "max", "governor": "performance"}
    made = make(tmp_path, server, phone, conditioning=wishes, stay_awake=True)
    made.commit("first", bench=SLOW)
    async with made.daemon() as process:
        await until_running(made, phone)
        assert phone.frequencies() == ("performance", "1800000", "1800000")
        process.send_signal(how)
        with anyio.fail_after(lab.WAIT):
            assert await process.wait() == (0 if how == signal.SIGTERM else -how)
    await until_still(phone)
    if how == signal.SIGKILL:
        assert phone.frequencies()[0] == "performance"
        (device,) = made.configuration["devices"]
        made.configure(devices=[device | {"conditioning": {}, "stay_awake": False}])
        (phone.directory / "work/work/begun").unlink()
        async with made.daemon():
            await until_running(made, phone)
            assert phone.frequencies() == BEFORE
        await until_still(phone)
    assert phone.frequencies() == BEFORE
    assert list((phone.root / "phone/settings").iterdir()) == []
    assert made.rows("SELECT * FROM undo") == []


async def test_a_reload_in_a_block_that_removes_the_phone_leaves_it_as_it_was(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone
) -> None:
    phone.script("su", adbd.SU)
    made = make(tmp_path, server, phone, conditioning={"frequency": "max", "governor": "performance"})
    made.configure(experiment=made.configuration["experiment"] | {"timeout": "3s"})
    made.commit("first", bench=SLOW)
    async with made.daemon() as process:
        await until_running(made, phone)
        assert phone.frequencies() == ("performance", "1800000", "1800000")
        made.configure(devices=[{"name": "other", "kind": "simulated"}])
        process.send_signal(signal.SIGHUP)
        with anyio.move_on_after(lab.WAIT) as scope:
            while phone.frequencies() != BEFORE:
                await anyio.sleep(0.05)
        assert not scope.cancelled_caught, made.log()[-4000:]
        await until_still(phone)
        of_phone = "SELECT outcome FROM trials t JOIN experiments e ON e.id = t.experiment WHERE e.device <> 'other'"
        assert made.rows(of_phone) == [("timed out",)]  # its block had its time
        await made.until("SELECT count(*) FROM undo", [(0,)])


async def test_a_phone_is_started_anew_before_an_experiment(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    made = make(tmp_path, server, phone, conditioning={"reboot": True})
    made.commit("first")
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
    assert phone.services.count("reboot:") == 1


async def test_a_phone_waits_for_its_key_and_goes_on_by_itself(tmp_path: Path, server: adbd.Server) -> None:
    async with adbd.phone(tmp_path / "phone", trusts=False) as phone:
        made = make(tmp_path, server, phone)
        made.commit("first")
        async with made.daemon():
            shown = await until_shown(made, "lost")
            assert "accept the key on the phone's screen" in shown["reason"]
            phone.trusts = True
            phone.drop()
            await made.until(ENDED, [("measured",)])


async def test_without_a_server_the_daemon_waits_and_starts_none(tmp_path: Path, phone: adbd.Phone) -> None:
    server = adbd.Server(tmp_path)
    made = make(tmp_path, server, phone)
    made.commit("first")
    async with made.daemon():
        shown = await until_shown(made, "lost")
        assert "adb start-server" in shown["reason"]
        assert not [command for command in made.processes() if "adb" in command and "server" in command]
        await anyio.to_thread.run_sync(server.start)
        try:
            await made.until(ENDED, [("measured",)])
            assert server.running
        finally:
            server.stop()


async def test_check_says_what_is_wrong_with_a_phone(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    made = make(tmp_path, server, phone)
    made.commit("first")
    assert await check(made) == (0, "")
    await phone.off()
    code, said = await check(made)
    assert code != 0
    assert "devices[0]" in said
    assert "is the phone on" in said or "is offline" in said


async def check(made: lab.Lab) -> tuple[int, str]:
    done = await anyio.run_process([sys.executable, "-m", "aibenchd", "check", str(made.config)], check=False)
    return done.returncode, done.stderr.decode()


APP = """#!/bin/sh
echo "PyTorchObserver {{\\"type\\": \\"NET\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", \\"values\\": [{latency}]}}"
"""


async def test_an_app_that_got_slower(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    made = make(tmp_path, server, phone)
    app = {"platform": "android", "app": {"package": "org.example.bench", "activity": ".Main"}}
    specification = lab.specification("net")
    made.write_specification("net.json", specification | {"model": specification["model"] | app})
    experiment = {"alpha": 0.4, "beta": 0.4, "min_effect": 0.2, "max_blocks": 8}
    made.configure(experiment=made.configuration["experiment"] | experiment)
    made.commit("first", bench=APP.format(latency=100))
    begin(made)
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
        made.commit("slower", bench=APP.format(latency=150))
        await made.until(ENDED, [("measured",), ("regressed",)], within=2 * lab.WAIT)
    await until_still(phone)


# A build as FAI-PEP has them, with the file beside the package that names the app.
INTENT = """#!/bin/sh
set -e
cp "$1/bench" "$2"
echo '{named}' >"$(dirname "$2")/intent.txt"
"""


async def test_an_app_that_its_build_names_is_handed_the_options_of_the_command(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone
) -> None:
    made = make(tmp_path, server, phone)
    specification = lab.specification("net")
    specification["tests"][0]["commands"] = ["{program} --iter 20 --what '$(reboot); a b'"]
    made.write_specification("net.json", specification)
    named = '{"package": "org.example.bench", "activity": ".Main"}'
    told = f"{APP.format(latency=100)}cat $1 >{phone.root}/told\n"
    made.commit("first", bench=told, build=INTENT.format(named=named))
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
        assert json.loads((phone.root / "told").read_text()) == {"iter": "20", "what": "$(reboot); a b"}
        made.commit("of no app", bench=told, build=INTENT.format(named='{"activity": ".Main"}'))
        query = "SELECT count(*) FROM experiments WHERE reason LIKE '%/intent.txt: expected {\"package\": %: Field required'"
        await made.until(query)
    await until_still(phone)


async def test_what_runs_programs_only_is_not_handed_an_app(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    specification = lab.specification("net")
    app = {"app": {"package": "org.example.bench", "activity": ".Main"}}
    made.write_specification("net.json", specification | {"model": specification["model"] | app})
    made.commit("first")
    async with made.daemon():
        await made.until("SELECT reason FROM experiments", [("org.example.bench is an Android app; this device runs programs",)])
