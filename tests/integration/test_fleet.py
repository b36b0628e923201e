"""One commit slows several devices: they search for it together. The real daemon, real git, simulated and local devices."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest

# A build whose program is a file of no content, and says what it is like.
SIMULATED = '#!/bin/sh\nset -e\n: > "$2"\ncp "$1/bench" "$(dirname "$2")/simulated.json"\n'
COMMITS = 16
PACE = 0.01  # real seconds for each that a simulated program takes: devices stay in step


def simulated(directory: Path, culprit: int, devices: int = 3) -> lab.Lab:
    """A history pushed at once, one commit of which is 6 % slower on all devices."""
    made = lab.make(directory)
    made.configure(
        devices=[{"name": f"dream-{seed}", "kind": "simulated", "seed": seed, "pace": PACE} for seed in range(devices)],
        verify={"enabled": True, "profile": False},
    )
    for number in range(COMMITS + 1):
        latency = 1000 if number < culprit else 1060
        made.commit(f"commit {number}", bench=json.dumps({"latency": latency, "seconds": 1.0}), build=SIMULATED)
    watch(made)
    return made


def watch(made: lab.Lab) -> None:
    """Only the newest commit is measured, against the first."""
    (chosen,) = made.configuration["repositories"]
    baseline = {"rule": "pinned", "commit": made.commits[0]}
    made.configure(repositories=[chosen | {"start_at": made.commits[0], "backlog": 1, "baseline": baseline}])


async def found_on_all(made: lab.Lab, devices: int) -> dict[str, dict[str, Any]]:
    """The findings by device, once the searches of all have ended with a culprit."""
    await made.until("SELECT count(*) FROM findings WHERE search = 'found'", [(devices,)], within=4 * lab.WAIT)
    return {one["device"]: one for one in (await made.ctl("findings"))["findings"]}


def names(found: dict[str, dict[str, Any]]) -> dict[str, list[list[str]]]:
    return {device: [one["commits"] for one in finding["culprits"]["culprits"]] for device, finding in found.items()}


def searching(made: lab.Lab) -> list[tuple[str, int, float, float]]:
    """Of each device its blocks for the search, and when the first began and the last ended."""
    return made.rows(  # type: ignore[return-value]
        "SELECT e.device, count(*), min(b.started_at), max(b.finished_at) FROM blocks b JOIN experiments e ON e.id = b.experiment"
        " JOIN pairs p ON p.id = e.pair WHERE p.run_type = 'regress' GROUP BY 1 ORDER BY 1"
    )


async def test_devices_search_together_for_the_commit_that_slowed_them_all(tmp_path: Path) -> None:
    made = simulated(tmp_path, culprit=11)
    async with made.daemon():
        found = await found_on_all(made, 3)
        client = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket)]
        page = (await anyio.run_process([*client, "finding", str(found["dream-2"]["id"])])).stdout.decode()
        listed = (await anyio.run_process([*client, "findings"])).stdout.decode()
    assert names(found) == {f"dream-{seed}": [[made.commits[11]]] for seed in range(3)}
    spans = searching(made)
    assert [device for device, *_ in spans] == ["dream-0", "dream-1", "dream-2"]
    assert max(began for *_, began, _ in spans) < min(ended for *_, ended in spans)  # at the same time
    (built,) = made.rows('SELECT count(*), count(DISTINCT "commit") FROM builds')
    assert built[0] == built[1] < COMMITS  # each once, whoever asked for it
    told = {one["device"]: one["culprits"].get("devices", {}) for one in found.values()}
    assert max(map(len, told.values())) == 3
    assert all(own[device] > 0 for device, own in told.items() if own)
    (line,) = [line for line in page.splitlines() if "searched on" in line] or [""]
    assert all(f"dream-{seed} (" in line for seed in range(3)), page
    assert "on 3 devices" in listed


async def test_devices_that_are_killed_in_a_search_go_on_with_it_together(tmp_path: Path) -> None:
    made = simulated(tmp_path, culprit=5)
    for point in ("search.before-commit:2", "search.before-commit:4"):
        async with made.daemon(AIBENCHD_CRASH_AT=point) as process:
            with anyio.fail_after(2 * lab.WAIT):
                await process.wait()
            assert process.returncode == -signal.SIGKILL, point
    async with made.daemon():
        found = await found_on_all(made, 3)
    assert names(found) == {f"dream-{seed}": [[made.commits[5]]] for seed in range(3)}
    assert len(searching(made)) == 3
    pairs = made.rows(
        "SELECT e.device, treatment, control FROM experiments e JOIN pairs p ON p.id = e.pair WHERE run_type = 'regress'"
    )
    assert len(set(pairs)) == len(pairs)  # each asked for once
    (built,) = made.rows('SELECT count(*), count(DISTINCT "commit") FROM builds')
    assert built[0] == built[1]


async def test_devices_that_different_commits_slowed_name_each_its_own(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this machine has one CPU, and each device of a host has CPUs of its own")
    made = lab.make(tmp_path)
    places = {"one": 3, "other": 9}
    made.configure(
        devices=[
            {"name": name, "kind": "local", "cpus": [cpu], "env": {"LAB_DEVICE": name}}
            for name, cpu in zip(places, cpus, strict=False)
        ],
        verify={"enabled": True, "profile": False},
    )
    for number in range(COMMITS - 3):
        cases = (f"{name}) t={108 if number >= at else 100};;" for name, at in places.items())
        prelude = f'#!/bin/sh\ncase "$LAB_DEVICE" in {" ".join(cases)} esac\n'
        body = lab.BENCH.format(latency="t").removeprefix("#!/bin/sh\n").replace("-v seed", '-v t="$t" -v seed')
        made.commit(f"commit {number}", bench=prelude + body)
    watch(made)
    async with made.daemon():
        found = await found_on_all(made, 2)
    assert names(found) == {name: [[made.commits[at]]] for name, at in places.items()}
    assert len(searching(made)) == 2
