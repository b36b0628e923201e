"""A confirmed regression is profiled: real programs, real perf, real Perfetto, and a program that profiles itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import adbd
import aiohttp
import anyio
import lab
import perfettod
import pytest

from aibenchd.measure import perfetto

MISSING = perfettod.missing()
COMPILED = '#!/bin/sh\nset -e\ngcc -O1 -fno-omit-frame-pointer -fno-inline -x c "$1/bench" -o "$2"\n'
ENGINE = r"""
#include <stdio.h>
#include <time.h>
volatile double sink;
static void convolve(long n) { for (long i = 0; i < n; i++) sink += i; }
static void copy_twice(long n) { for (long i = 0; i < n; i++) sink -= i; }
int main(void) {
    for (int run = 0; run < 20; run++) {
        struct timespec begun, ended;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
        convolve(2000000);
        copy_twice(COPIES);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
        printf("PyTorchObserver {\"type\": \"NET\", \"metric\": \"latency\", \"unit\": \"us\", \"value\": %.3f}\n",
               (ended.tv_sec - begun.tv_sec) * 1e6 + (ended.tv_nsec - begun.tv_nsec) / 1e3);
    }
}
"""
# Writes its profile by itself where it is told to.
OWN = """#!/bin/sh
event='{{"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": {latency}, "name": "Relu"}}'
[ -z "$AIBENCHD_PROFILE" ] || printf '{{"runs": 1, "traceEvents": [%s]}}' "$event" > "$AIBENCHD_PROFILE"
"""


def watched(directory: Path, **first: Any) -> lab.Lab:
    made = lab.make(directory)
    made.configure(verify={"enabled": True})
    made.commit("first", **first)
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])
    return made


async def profile_of(made: lab.Lab) -> dict[str, Any]:
    """The only finding's, once it is there."""
    await made.until("SELECT count(*) FROM profiles WHERE made_at IS NOT NULL", within=120.0)
    found = await made.ctl("finding", "1")
    assert (found["state"], found["verdict"]) == ("open", "regressed")
    return dict(found["profile"])


def perf_works() -> bool:
    return (
        bool(shutil.which("perf")) and subprocess.run(["perf", "stat", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not (shutil.which("gcc") and perf_works()), reason="no gcc, or no perf that may count (Debian: linux-perf)")
async def test_perf_names_the_function_that_a_commit_added(tmp_path: Path) -> None:
    made = watched(tmp_path, bench=ENGINE.replace("COPIES", "0"), build=COMPILED)
    made.configure(experiment={"min_effect": 0.2, "max_blocks": 60})
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("copies its input", bench=ENGINE.replace("COPIES", "2000000"), build=COMPILED)
        profile = await profile_of(made)
        assert (profile["profiler"], profile["per"], profile["reason"]) == ("perf", "process", "")
        first = profile["rows"][0]
        assert first["name"].startswith("copy_twice (")
        assert first["control"] == 0
        assert first["change"] > 0
        for file in profile["files"].values():
            assert (made.directory / "state" / file).stat().st_size
        (experiment,) = [one for one in (await made.ctl("finding", "1"))["experiments"] if one["run_type"] == "profile"]
        assert (experiment["verdict"], experiment["id"]) == ("measured", profile["experiment"])
        status = await made.ctl("status")
        assert status["verdicts"]["profiled"] == 1


async def test_a_program_that_profiles_itself_is_believed(tmp_path: Path) -> None:
    made = watched(tmp_path, bench=OWN.format(latency=100) + lab.BENCH.format(latency=100).removeprefix("#!/bin/sh\n"))
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("slower", bench=OWN.format(latency=130) + lab.BENCH.format(latency=130).removeprefix("#!/bin/sh\n"))
        profile = await profile_of(made)
        assert (profile["profiler"], profile["per"]) == ("the program's own profiler", "run")
        assert profile["rows"] == [
            {"name": "Relu", "treatment": 130.0, "control": 100.0, "change": 30.0, "within": 0.0, "told": True}
        ]
        assert made.rows("SELECT count(*) FROM outbox WHERE json_extract(payload, '$.run_type') = 'profile'") == [(0,)]


async def test_a_simulated_device_says_that_it_has_no_profile(tmp_path: Path) -> None:
    build = '#!/bin/sh\nset -e\n: > "$2"\ncp "$1/bench" "$(dirname "$2")/simulated.json"\n'
    made = watched(tmp_path, bench='{"latency": 1000}', build=build)
    made.configure(devices=[{"name": "dream", "kind": "simulated"}])
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("slower", bench='{"latency": 1100}', build=build)
        profile = await profile_of(made)
        shown = await made.ctl("show", str(profile["experiment"]))
    assert profile["reason"] == "the device is simulated: no program runs on it that could be profiled"
    assert "rows" not in profile
    assert (shown["state"], shown["blocks"]) == ("skipped", [])


async def test_where_there_is_no_profiler_it_is_said(tmp_path: Path) -> None:
    made = watched(tmp_path)
    made.configure(devices=[made.configuration["devices"][0] | {"env": {"PATH": str(tmp_path / "bin")}}])
    (tmp_path / "bin").mkdir()
    for name in ("awk", "od", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("slower", latency=130)
        profile = await profile_of(made)
        assert "there is no perf on the device" in profile["reason"]
        assert "rows" not in profile


async def test_a_phone_that_was_opened_to_profilers_is_closed_again_after_a_crash_and_a_loss(tmp_path: Path) -> None:
    (tmp_path / "adb").mkdir()
    with adbd.server(tmp_path / "adb") as server:
        async with adbd.phone(tmp_path / "phone") as phone:
            set_to = tmp_path / "set"
            phone.script("perf", "exit 127")
            phone.script("perfetto", "exit 127")
            phone.script("simpleperf", f"echo >>{tmp_path}/begun; sleep 600")
            phone.script("setprop", f'{adbd.SETPROP}; echo "$2" >>{set_to}')
            phone.set(**{"security.perf_harden": "1"})
            made = watched(tmp_path)
            keys = {"name": "pixel", "kind": "adb", "address": phone.address, "server_port": server.port, "minimum_free": "1MiB"}
            made.configure(devices=[keys])
            async with made.daemon() as process:
                await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
                made.commit("slower", latency=130)
                await until_rows(tmp_path / "begun", 1)
                assert made.rows("SELECT json_extract(action, '$.value') FROM undo") == [("1",)]
                process.kill()
                await process.wait()
            assert set_to.read_text().split() == ["0"]
            async with made.daemon():
                await until_rows(tmp_path / "begun", 2)
                assert set_to.read_text().split() == ["0", "1", "0"]
                phone.drop()
                await until_rows(tmp_path / "begun", 3)
                assert set_to.read_text().split() == ["0", "1", "0", "1", "0"]
            assert set_to.read_text().split()[-1] == "1"
            assert made.rows("SELECT * FROM undo") == []


async def until_rows(file: Path, count: int) -> None:
    with anyio.fail_after(2 * lab.WAIT):
        while not file.exists() or len(file.read_text().splitlines()) < count:
            await anyio.sleep(0.05)


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
async def test_on_a_phone_perfetto_traces_both_arms_and_the_traces_can_be_fetched(tmp_path: Path) -> None:
    (tmp_path / "adb").mkdir()
    with adbd.server(tmp_path / "adb") as server:
        async with adbd.phone(tmp_path / "phone") as phone:
            for name in ("perf", "simpleperf"):  # this host's are not the phone's
                phone.script(name, "exit 127")
            made = watched(tmp_path)
            keys = {"name": "pixel", "kind": "adb", "address": phone.address, "server_port": server.port, "minimum_free": "1MiB"}
            made.configure(devices=[keys])
            with perfettod.on(phone):
                async with made.daemon():
                    await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
                    made.commit("slower", latency=130)
                    profile = await profile_of(made)
                    fetched = {arm: await fetch(made, file) for arm, file in profile["files"].items()}
            assert (profile["reason"], profile["profiler"], profile["unread"]) == ("", "Perfetto scheduling", [])
            rows = {row["name"]: row for row in profile["rows"]}
            for arm, trace in fetched.items():
                assert rows[perfetto.RUNNING][arm] > 0
                assert trace == (made.directory / "state" / profile["files"][arm]).read_bytes()
            assert [path.name for path in (phone.root / "data/misc").rglob("*") if path.is_file()] == []


async def fetch(made: lab.Lab, file: str) -> bytes:
    """One of the files that a profile names, as the dashboard links to it."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(made.socket))) as client,
        client.get(f"http://aibenchd/v1/{file}") as reply,
    ):
        assert reply.status == 200
        return await reply.read()
