"""A new model file, backend or device is measured with no one asking; what cannot be is said; two cells can be compared."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import lab

# As many microseconds as the backend that it is asked for says, fast or anything else; it states which one that was.
ASKED = """case "$1" in fast) latency=50;; *) latency=100;; esac
[ -z "$1" ] || echo 'PyTorchObserver {{"type": "NET", "metric": "backend", "info_string": "'$1'"}}'
exec awk -v latency=$latency"""
BENCH = lab.BENCH.replace("exec awk", ASKED)
BY_BACKEND = BENCH.format(latency="latency")


def model(name: str, **more: Any) -> dict[str, Any]:
    """A model file with one test of it."""
    test = {"identifier": name, "metric": "delay", "iter": 1, "commands": ["{program} {backend}"]}
    return {"model": {"name": name, "format": "generic", **more}, "tests": [test]}


def make(directory: Path, build: str = lab.BUILD, **selection: Any) -> lab.Lab:
    """A lab that measures whatever lies in ``models``, where there is one model."""
    made = lab.make(directory)
    (directory / "models").mkdir()
    made.write_specification("models/net.json", model("net"))
    made.configure(benchmarks=[{"specification": "models"} | selection])
    made.commit("first", bench=BY_BACKEND, build=build)
    return made


async def matrix(made: lab.Lab) -> dict[tuple[str, str], dict[str, Any]]:
    """The cells by row and column."""
    return {(cell["row"], cell["column"]): cell for cell in (await made.ctl("coverage"))["coverage"]}


async def until(made: lab.Lab, states: dict[tuple[str, str], str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Wait until the matrix is this; its cells."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with anyio.move_on_after(lab.WAIT) as scope:
        while True:
            found = await matrix(made)
            if {key: cell["state"] for key, cell in found.items()} == states:
                break
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, f"{found}; {made.log()[-4000:]}"
    return found


async def faults(made: lab.Lab) -> list[tuple[str, str]]:
    return [(fault["unit"], fault["reason"]) for fault in (await made.ctl("status"))["faults"]]


async def client(made: lab.Lab, *words: str) -> tuple[int, str, str]:
    argv = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket), *words]
    done = await anyio.run_process(argv, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_model_file_that_is_dropped_is_measured_at_once_and_then_with_every_commit(tmp_path: Path) -> None:
    made = make(tmp_path)
    async with made.daemon():
        await made.ready()
        await until(made, {("net", "generic@host"): "measured"})
        (tmp_path / "models" / "deep").mkdir()
        (tmp_path / "models" / "deep" / "more.yaml").write_text(json.dumps(model("more")))
        cells = await until(made, {("net", "generic@host"): "measured", ("more", "generic@host"): "measured"})
        figure = cells["more", "generic@host"]["measured"]
        assert (figure["key"], figure["unit"], figure["processes"]) == ("NET latency", "us", 2)
        assert 99 < figure["low"] <= figure["median"] <= figure["high"] < 101
        assert cells["more", "generic@host"]["commit"] == made.commits[0]
        assert made.rows("SELECT identifier, control_build FROM experiments ORDER BY id") == [("net", None), ("more", None)]
        slower = made.commit("slower", bench=BY_BACKEND.replace("=100", "=150"))
        query = (
            "SELECT e.identifier, e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair WHERE p.treatment = '{}' ORDER BY 1"
        )
        await made.until(query.format(slower), [("more", "regressed"), ("net", "regressed")])
        cells = await matrix(made)
        assert all(149 < cell["measured"]["median"] < 151 and cell["commit"] == slower for cell in cells.values())
        # One that is gone is shown no more.
        (tmp_path / "models" / "net.json").unlink()
        await until(made, {("more", "generic@host"): "measured"})


async def test_a_file_that_is_bad_changes_no_other_and_is_shown_until_it_is_mended(tmp_path: Path) -> None:
    made = make(tmp_path)
    async with made.daemon():
        await made.ready()
        await until(made, {("net", "generic@host"): "measured"})
        bad = tmp_path / "models" / "bad.json"
        bad.write_text('{"model": ')
        made.write_specification("models/good.json", model("good"))
        with anyio.fail_after(lab.WAIT):
            while not (shown := await faults(made)):
                await anyio.sleep(0.05)
        ((unit, reason),) = shown
        assert unit == "daemon/specifications"
        assert reason.startswith(f"{bad}:1:")
        await until(made, {(name, "generic@host"): "measured" for name in ("net", "good")})
        before = (tmp_path / "models" / "good.json").read_text()
        (tmp_path / "models" / "good.json").write_text(before[:-1])
        with anyio.fail_after(lab.WAIT):
            while "good.json" not in (await faults(made))[0][1]:
                await anyio.sleep(0.05)
        assert set(await matrix(made)) == {("net", "generic@host"), ("good", "generic@host")}  # as it was before
        (tmp_path / "models" / "good.json").write_text(before)
        bad.write_text(json.dumps(model("mended")))
        await until(made, {(name, "generic@host"): "measured" for name in ("net", "good", "mended")})
        assert await faults(made) == []


async def test_a_backend_fills_its_column_after_sighup_and_what_is_impossible_says_why(tmp_path: Path) -> None:
    made = make(tmp_path, backends=["fast", "slow"])
    made.write_specification("models/lost.json", model("lost", framework="caffe2"))
    (host,) = made.configuration["devices"]
    made.configure(devices=[host | {"backends": ["fast"]}])
    lost = {("lost", "caffe2@host"): "impossible"}
    async with made.daemon() as process:
        await made.ready()
        cells = await until(made, lost | {("net", "generic@host/fast"): "measured", ("net", "generic@host/slow"): "impossible"})
        assert cells["net", "generic@host/slow"]["reason"] == "host does not offer slow, only fast"
        assert cells["lost", "caffe2@host"]["reason"] == "no repository builds caffe2 programs"
        assert made.rows("SELECT backend FROM experiments") == [("fast",)]
        code, text, _ = await client(made, "coverage")
        assert code == 0
        assert re.search(r"net +(49|50)(\.\d)? us ±\d\.\d% \d+s\n", text)
        assert "impossible  generic@host/slow  net     host does not offer slow, only fast" in text
        made.configure(devices=[host | {"backends": ["fast", "slow"]}])
        process.send_signal(signal.SIGHUP)
        cells = await until(made, lost | {("net", "generic@host/fast"): "measured", ("net", "generic@host/slow"): "measured"})
        assert [column for (_, column), cell in cells.items() if cell["fastest"]] == ["generic@host/fast"]
        assert made.rows("SELECT backend, control_build FROM experiments ORDER BY id") == [("fast", None), ("slow", None)]


async def test_a_device_s_misspelt_backend_is_a_fault_until_it_is_mended_and_nothing_else_is_measured(tmp_path: Path) -> None:
    made = make(tmp_path)
    (engine,), (host,) = made.configuration["repositories"], made.configuration["devices"]
    made.write_specification("models/net.json", model("net", framework="glow"))
    made.configure(repositories=[engine | {"framework": "glow"}], devices=[host | {"backends": ["cpuu"]}])
    async with made.daemon() as process:
        await made.ready()
        cells = await until(made, {("net", "glow@host/cpuu"): "impossible"})
        assert cells["net", "glow@host/cpuu"]["reason"] == "glow cannot be asked for cpuu: it knows cpu"
        said = "'cpuu' is no backend of glow, and nothing else runs there; did you mean 'cpu'?"
        assert await faults(made) == [("backends/host", said)]
        made.configure(devices=[host | {"backends": ["cpu"]}])
        process.send_signal(signal.SIGHUP)
        with anyio.fail_after(lab.WAIT):
            while ("backends/host", said) in await faults(made):
                await anyio.sleep(0.05)
        assert made.rows("SELECT DISTINCT backend FROM experiments WHERE backend != 'cpu'") == []


async def test_two_cells_of_a_device_are_compared_interleaved_and_regress_no_commit(tmp_path: Path) -> None:
    made = make(tmp_path, backends=["fast", "slow"])
    async with made.daemon():
        await made.ready()
        await until(made, {("net", f"generic@host/{name}"): "measured" for name in ("fast", "slow")})
        assert (await client(made, "compare", "net", "host/fast", "generic@host/slow", "--wait"))[0] == 0
        code, text, _ = await client(made, "compare", "net", "engine@host/slow", "host/fast", "--wait")
        assert code == 1
        assert text.endswith(": 1 slower\n")
        ((number,),) = made.rows(
            "SELECT e.id FROM experiments e JOIN pairs p ON p.id = e.pair WHERE run_type = 'compare' ORDER BY 1 DESC LIMIT 1"
        )
        shown = await made.ctl("show", str(number))
        assert 0.9 < shown["estimate"] < 1.1
        assert {block["order"] for block in shown["blocks"]} <= {"TC", "CT"}
        assert (shown["design"]["backend"], shown["design"]["control"]["backend"]) == ("slow", "fast")
        assert "control runs    generic fast" in (await client(made, "show", str(number)))[1]
        assert (await made.ctl("findings"))["findings"] == []
        await until(made, {("net", f"generic@host/{name}"): "measured" for name in ("fast", "slow")})


async def test_cells_of_two_repositories_are_compared_each_by_its_newest_build(tmp_path: Path) -> None:
    made = make(tmp_path)
    (tmp_path / "other").mkdir()
    other = lab.make(tmp_path / "other")
    fork = other.commit("fork", latency=200)
    (engine,) = made.configuration["repositories"]
    made.configure(repositories=[engine, engine | {"name": "fork", "url": str(other.remote)}])
    async with made.daemon():
        await made.ready()
        cells = await until(made, {("net", "engine@host"): "measured", ("net", "fork@host"): "measured"})
        assert cells["net", "engine@host"]["fastest"]
        assert (await client(made, "compare", "net", "fork@host", "engine@host", "--wait"))[0] == 1
        ((treatment, control),) = made.rows("SELECT treatment, control FROM pairs WHERE run_type = 'compare'")
        assert (treatment, control) == (fork, made.commits[0])
        for words, error in (
            (("net", "fork@host", "fork@host"), "both are the cell generic@host of fork"),
            (("nett", "host", "host"), "there is no model 'nett'; there is net"),
            (("net", "phone", "host"), "net has no cell 'phone'"),
        ):
            code, _, said = await client(made, "compare", *words)
            assert code == 3
            assert error in said


async def test_cells_of_two_devices_are_measured_each_by_itself(tmp_path: Path) -> None:
    made = make(tmp_path)
    devices = [
        {"name": name, "kind": "simulated", "program": {"latency": latency}} for name, latency in (("old", 3e-3), ("new", 2e-3))
    ]
    made.configure(devices=devices)
    async with made.daemon():
        await made.ready()
        await until(made, {("net", f"generic@{name}"): "measured" for name in ("old", "new")})
        code, text, _ = await client(made, "compare", "net", "old", "new", "--wait")
        assert code == 1
        (one,) = (await made.ctl("request", "1"))["apart"]
        assert (one["devices"], one["processes"], one["verdict"]) == (["old", "new"], [10, 10], "regressed")
        assert one["low"] < 0.5 < one["high"] < 0.6
        assert "net: old against new: slower +" in text
        assert "99.9 %, of 10 and 10 processes, each by itself" in text
        assert (await client(made, "compare", "net", "new", "old", "--wait"))[0] == 0
        assert (await made.ctl("findings"))["findings"] == []


async def test_nothing_is_compared_before_it_is_built(tmp_path: Path) -> None:
    made = make(tmp_path, build="#!/bin/sh\nexit 1\n", backends=["fast", "slow"])
    async with made.daemon():
        await made.ready()
        cells = await until(made, {("net", f"generic@host/{name}"): "skipped" for name in ("fast", "slow")})
        assert {cell["reason"] for cell in cells.values()} == {"the treatment does not build"}
        code, _, said = await client(made, "compare", "net", "host/fast", "host/slow")
        assert code == 3
        shows = f"'aibenchctl -s {made.socket} builds' shows what there is"
        assert f"no revision of engine is built for generic/host yet; {shows}" in said
