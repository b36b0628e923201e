"""From a push to verdicts on simulated devices, whose truth is known."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import anyio
import lab

# A build whose program is a file of no content, and says what it is like.
BUILD = '#!/bin/sh\nset -e\n: > "$2"\ncp "$1/bench" "$(dirname "$2")/simulated.json"\n'
COUNTED = "SELECT count(*), count(DISTINCT number), min(number), max(number) + 1 FROM blocks"


def make(directory: Path, **device: Any) -> lab.Lab:
    made = lab.make(directory)
    made.configure(devices=[{"name": f"dream-{seed}", "kind": "simulated", "seed": seed} | device for seed in range(3)])
    return made


def commit(made: lab.Lab, subject: str, **truth: Any) -> str:
    return made.commit(subject, bench=json.dumps(truth), build=BUILD)


def begin(made: lab.Lab) -> None:
    (chosen,) = made.configuration["repositories"]
    baseline = {"rule": "pinned", "commit": made.commits[0]}
    made.configure(repositories=[chosen | {"start_at": made.commits[0], "baseline": baseline}])


def verdicts(made: lab.Lab, commit: str) -> str:
    return (
        "SELECT e.device, e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair"
        f" WHERE p.run_type = 'benchmark' AND p.treatment = '{commit}' ORDER BY 1"
    )


def on_all(verdict: str) -> list[tuple[str, str]]:
    return [(f"dream-{seed}", verdict) for seed in range(3)]


async def test_verdicts_are_the_truth_whatever_the_device_does_meanwhile(tmp_path: Path) -> None:
    heat = {"throttles_at": 40, "slowdown": 1.3}
    made = make(tmp_path, drift=0.5, heat=heat, program={"seconds": 30, "noise": 0.01})
    commit(made, "first", latency=1000)
    same = commit(made, "another program, as quick", latency=1000, samples=9)
    slower = commit(made, "slower", latency=1060)
    faster = commit(made, "faster", latency=930)
    broken = commit(made, "broken", fails=1)
    begin(made)
    async with made.daemon():
        await made.until(verdicts(made, broken), on_all("broken"))
        await made.until(verdicts(made, faster), on_all("improved"))
        await made.until(verdicts(made, slower), on_all("regressed"))
        await made.until(verdicts(made, same), on_all("unchanged"))
        shown = {device["name"]: device for device in (await made.ctl("devices"))["devices"]}
    assert set(shown) == {"dream-0", "dream-1", "dream-2"}
    ((levels,),) = made.rows("SELECT count(*) FROM blocks WHERE control > 1250")
    assert levels > 0  # it did throttle


async def test_what_was_interrupted_by_a_lost_device_goes_on_at_its_block(tmp_path: Path) -> None:
    made = make(tmp_path, pace=1e-4, away="100s", program={"loses": 0.05, "hangs": 0.05, "latency": 1000})
    commit(made, "first")
    slower = commit(made, "slower", latency=1050)
    begin(made)
    async with made.daemon():
        await made.until(verdicts(made, slower), on_all("regressed"))
    assert "lost during a run" in made.log() or "does not answer" in made.log()
    for device, _ in on_all(""):
        query = f"{COUNTED} WHERE experiment = (SELECT max(id) FROM experiments WHERE device = '{device}')"
        ((count, different, first, last),) = made.rows(query)
        assert (different, first, last) == (count, 0, count)  # each block once, none left out


async def test_an_experiment_survives_the_daemon_and_draws_anew(tmp_path: Path) -> None:
    made = make(tmp_path, pace=1e-3)
    commit(made, "first", latency=1000)
    same = commit(made, "another program, as quick", latency=1000, samples=9)
    begin(made)
    async with made.daemon() as process:
        await made.until("SELECT count(*) > 10 FROM blocks")
        process.kill()
    async with made.daemon():
        await made.until(verdicts(made, same), on_all("unchanged"))
    ((count, different),) = made.rows("SELECT count(*), count(DISTINCT treatment) FROM blocks")
    assert count == different


async def test_a_device_that_a_reload_removes_in_a_block_finishes_it_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    dream = {"name": "dream", "kind": "simulated", "pace": 1, "conditioning": {"frequency": "min"}}
    made.configure(devices=[dream])
    begun, go = tmp_path / "begun", tmp_path / "go"
    specification = lab.specification("net")
    waits = f"touch {begun}; while [ ! -e {go} ]; do sleep 0.05; done"
    specification["tests"][0]["preprocess"] = {"commands": [waits]}
    made.write_specification("net.json", specification)
    commit(made, "first", latency=1000, seconds=1)
    begin(made)
    held = tmp_path / "state/devices/dream/memory.json"
    async with made.daemon() as process:
        with anyio.fail_after(lab.WAIT):
            while not begun.exists():
                await anyio.sleep(0.02)
        assert json.loads(held.read_text())["frequency"] == 1_000_000_000
        made.configure(devices=[{"name": "other", "kind": "simulated"}], benchmarks=[])
        process.send_signal(signal.SIGHUP)
        await until_shown(made, {"dream": "leaving", "other": "ready"})
        go.touch()
        await until_shown(made, {"other": "ready"})
        assert json.loads(held.read_text())["frequency"] == 0
        assert made.rows("SELECT count(*) FROM undo") == [(0,)]
        of_dream = (
            "SELECT e.state, e.blocks, count(b.number), e.verdict FROM experiments e LEFT JOIN blocks b ON b.experiment = e.id"
        )
        of_dream += " WHERE e.device = 'dream' GROUP BY e.id"
        assert made.rows(of_dream) == [("open", 1, 1, None)]  # the one in flight, whole
        made.configure(devices=[dream | {"pace": 0}], benchmarks=[{"specification": "net.json"}])
        process.send_signal(signal.SIGHUP)
        await made.until(of_dream, [("decided", 2, 2, "measured")])
    assert made.rows(COUNTED + " WHERE experiment = (SELECT id FROM experiments WHERE device = 'dream')") == [(2, 2, 0, 2)]


async def until_shown(made: lab.Lab, wanted: dict[str, str]) -> None:
    """Wait until these devices are shown, in these states."""
    await made.ready()
    with anyio.move_on_after(lab.WAIT) as scope:
        while (found := {one["name"]: one["state"] for one in (await made.ctl("devices"))["devices"]}) != wanted:
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, (found, made.log()[-4000:])


async def test_a_program_that_always_loses_its_device_is_not_run_for_ever(tmp_path: Path) -> None:
    made = make(tmp_path, quarantine_after=2)
    commit(made, "first", latency=1000)
    deadly = commit(made, "deadly", loses=1)
    begin(made)
    async with made.daemon():
        await made.until(verdicts(made, deadly), on_all("broken"), within=2 * lab.WAIT)
        slower = commit(made, "slower", latency=1060)
        await made.until(verdicts(made, slower), on_all("regressed"))  # the devices go on
    found = made.rows(
        "SELECT e.reason, count(*), count(DISTINCT x.block) FROM experiments e JOIN exclusions x ON x.experiment = e.id"
        " WHERE e.verdict = 'broken' AND x.arm = 'treatment' AND x.cause = 'device lost' GROUP BY e.id"
    )
    said = (
        "the device was lost 2 times in a row while the treatment's program ran; at last: dream-{}: simulated: lost during a run"
    )
    assert sorted(found) == [(said.format(seed), 2, 1) for seed in range(3)]
