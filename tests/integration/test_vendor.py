"""From a push to a verdict on a device behind a vendor's tool: an engine that is cross built for Hexagon, run by qemu-hexagon."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import hexagon
import lab
import pytest

pytestmark = hexagon.needed

BUILD = '#!/bin/sh\nset -e\nmake -C "$1" benchmark\ncp "$1/benchmark" "$2"\n'
MOST_BLOCKS = 20  # that figures without noise need for the lab's error rates of 1 in 1,000: 11 to 13, as the coin falls
ENDED = "SELECT verdict FROM experiments ORDER BY id"
OUTCOMES = "SELECT t.outcome FROM trials t JOIN experiments e ON e.id = t.experiment WHERE e.device = 'hexagon'"
HANGS = ('print("backend dsp\\n");', 'print("backend dsp\\n"); for (;;) __asm__ volatile("");')


def make(directory: Path, /, **device: Any) -> lab.Lab:
    """A lab whose one device is a Hexagon; its engine has no revision yet."""
    made = lab.make(directory)
    lab.git(directory, "init", "-q", "-b", "main", str(made.remote))
    shutil.copytree(hexagon.SOURCES, made.remote, dirs_exist_ok=True)
    made.write_specification("net.json", specification(directory))
    made.configure(devices=[hexagon.DEVICE | device], benchmarks=[{"specification": "net.json"}])  # whose device says dsp
    return made


def specification(directory: Path) -> dict[str, Any]:
    weights, given, output = hexagon.write_arrays(directory)
    output.tofile(directory / "golden.bin")
    return {
        "model": {"name": "net", "format": "generic", "files": {"weights": of_file(weights)}},
        "tests": [
            {
                "identifier": "net",
                "metric": "delay",
                "iter": 1,
                "input_files": {"input": of_file(given)},
                "output_files": {
                    "output": {
                        "filename": "output.bin",
                        "format": "raw",
                        "type": "int32",
                        "shape": list(output.shape),
                        "golden": of_file(directory / "golden.bin"),
                        "tolerance": {"max_absolute": 0},
                    }
                },
                "commands": ["{program} {files.weights} {input_files.input} {output_files.output}"],
            }
        ],
    }


def of_file(path: Path) -> dict[str, str]:
    return {"filename": path.name, "location": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def commit(made: lab.Lab, subject: str, old: str = "", new: str = "") -> str:
    """Push one more revision, with ``new`` in place of ``old`` in the network's source."""
    source = (hexagon.SOURCES / "network.c").read_text()
    assert old in source
    (made.remote / "network.c").write_text(source.replace(old, new, 1) if old else source)
    return made.commit(subject, build=BUILD)


def begin(made: lab.Lab) -> None:
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])


async def test_a_push_becomes_a_verdict_in_packets(tmp_path: Path) -> None:
    made = make(tmp_path)
    commit(made, "first")
    begin(made)
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
        commit(made, "three passes", "    rectify();\n", "    rectify();\n    rectify();\n    rectify();\n")
        await made.until(ENDED, [("measured",), ("regressed",)])
        commit(made, "one pass")
        await made.until(ENDED, [("measured",), ("regressed",), ("improved",)])
        commit(made, "other words", "network: not all", "network: by no means all")
        await made.until(ENDED, [("measured",), ("regressed",), ("improved",), ("unchanged",)])
        regressed, improved, unchanged = [await made.ctl("show", str(number)) for number in (2, 3, 4)]
        assert made.rows("SELECT DISTINCT backend FROM trials") == [("dsp",)]
        assert made.rows("SELECT DISTINCT backend FROM experiments") == [("dsp",)]

    slow, fast = packets(regressed)
    assert packets(improved) == (fast, slow)
    assert packets(unchanged) == (fast, fast)
    assert regressed["estimate"] == pytest.approx(slow / fast - 1, rel=1e-9)
    assert improved["estimate"] == pytest.approx(fast / slow - 1, rel=1e-9)
    assert unchanged["estimate"] == 0
    assert max(one["block_count"] for one in (regressed, improved, unchanged)) <= MOST_BLOCKS
    assert of_operator(regressed, "ID_0_convolve") == 0
    assert of_operator(regressed, "ID_1_rectify") == slow - fast


def packets(shown: Any) -> tuple[float, float]:
    """Of treatment and control: the one figure that all blocks of an experiment measured."""
    ((treatment, control),) = {(block["treatment"], block["control"]) for block in shown["blocks"]}
    return treatment, control


def of_operator(shown: Any, name: str) -> float:
    """Packets more in the treatment than in the control, the same in each block."""
    (found,) = (result for result in shown["results"] if result["type"] == name)
    treatment, control = found["treatment"], found["control"]
    assert treatment["stdev"] == control["stdev"] == 0
    return float(treatment["mean"] - control["mean"])


async def test_a_device_with_files_of_its_own_comes_to_the_same(tmp_path: Path) -> None:
    files = {
        "push": ["cp", "-R", "{source}", "{target}"],
        "pull": ["cp", "{source}", "{target}"],
        "remove": ["rm", "-rf", "{target}"],
        "make": ["mkdir", "-p", "{target}"],
        "directory": str(tmp_path / "board"),
    }
    made = make(tmp_path, **files)
    commit(made, "first")
    begin(made)
    async with made.daemon():
        await made.until(ENDED, [("measured",)])
        commit(made, "three passes", "    rectify();\n", "    rectify();\n    rectify();\n    rectify();\n")
        await made.until(ENDED, [("measured",), ("regressed",)])
        regressed = await made.ctl("show", "2")
    slow, fast = packets(regressed)
    assert regressed["estimate"] == pytest.approx(slow / fast - 1, rel=1e-9)


async def test_devices_of_one_lock_take_turns_block_by_block(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.configure(devices=[hexagon.DEVICE | {"name": name, "lock": "hexagon"} for name in ("first", "second")])
    commit(made, "first")
    begin(made)
    async with made.daemon():
        await made.until(ENDED, [("measured",)] * 2)
        commit(made, "three passes", "    rectify();\n", "    rectify();\n    rectify();\n    rectify();\n")
        await made.until(ENDED, [("measured",)] * 2 + [("regressed",)] * 2)
    blocks = made.rows("SELECT min(started_at), max(started_at + seconds) FROM trials GROUP BY experiment, block ORDER BY 1")
    assert len(blocks) > 2 * 8
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(blocks))


async def hanging(made: lab.Lab) -> None:
    """Wait until a program is on the device."""
    with anyio.fail_after(lab.WAIT):
        while not any("qemu-hexagon" in command for command in await anyio.to_thread.run_sync(made.processes)):
            await anyio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_that_ends_in_a_block_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    made = make(tmp_path)
    commit(made, "hangs", *HANGS)
    begin(made)
    made.configure(stop_timeout="100ms")
    async with made.daemon() as process:
        await hanging(made)
        process.send_signal(number)
        await process.wait()
        await made.until_alone()
    assert process.returncode == (0 if number is signal.SIGTERM else -number)


async def test_a_device_that_a_reload_removes_finishes_its_block(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.configure(experiment=made.configuration["experiment"] | {"timeout": "2s"})
    commit(made, "hangs", *HANGS)
    begin(made)
    async with made.daemon() as process:
        await hanging(made)
        made.configure(devices=[hexagon.DEVICE | {"name": "other", "run": ["false", "{command}"]}])
        process.send_signal(signal.SIGHUP)
        await made.until(OUTCOMES, [("timed out",)])
        assert not any("qemu-hexagon" in command for command in await anyio.to_thread.run_sync(made.processes))
