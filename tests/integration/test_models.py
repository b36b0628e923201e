"""Model files on their way to a trial, in the real daemon: generated, downloaded, pushed, shown, let go."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from pathlib import Path

import anyio
import fileserver
import lab

from aibenchd import digests

WEIGHTS = bytes(300_000)
BENCH = """#!/bin/sh
set -e
test "$(cat "$1/weights")" = made
test "$(wc -c < "$2")" = 300000
echo 'PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "values": [100.0, 100.1]}'
"""
MAKE = "import os, sys; os.mkdir(sys.argv[-1]); open(sys.argv[-1] + '/weights', 'w').write(sys.argv[1])"


async def until_idle(made: lab.Lab) -> None:
    await made.until("SELECT verdict FROM experiments", [("measured",)])


async def test_a_trial_gets_files_from_programs_and_from_the_network(tmp_path: Path) -> None:
    made, served = lab.make(tmp_path), fileserver.FileServer(WEIGHTS)
    half, go_on = anyio.Event(), anyio.Event()

    async def in_two(writer: object, request: fileserver.Request, body: bytes) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:100_000])
        await writer.drain()
        half.set()
        await go_on.wait()
        writer.write(body[100_000:])

    (tmp_path / "like").mkdir()
    (tmp_path / "like/weights").write_text("made")
    (tmp_path / "make.py").write_text(MAKE)
    made.configure(models={"cache_size": "1kB"})
    served.script = [in_two]
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    document = lab.specification("net")
    made_here = {
        "filename": "dir",
        "location": ["absent", {"generator": ["make.py", "made"]}],
        "sha256": digests.of_tree(tmp_path / "like"),
    }
    sent = {"filename": "sent", "location": served.url, "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    document["model"]["files"] = {"made": made_here}
    document["tests"][0] |= {"input_files": {"sent": sent}, "commands": ["{program} {files.made} {input_files.sent}"]}
    made.write_specification("net.json", document)
    before = (tmp_path / "net.json").read_bytes()
    made.commit("first", bench=BENCH)
    async with server, made.daemon():
        with anyio.fail_after(lab.WAIT):
            await half.wait()
        shown: list[dict[str, str]] = []
        with anyio.fail_after(lab.WAIT):
            while [one["name"] for one in shown] != ["net/sent"]:
                shown = (await made.ctl("status"))["models"]
        assert shown[0]["state"] == "downloading"
        how_far = r"([0-9,]+ of 300,000 bytes \([0-9]+ %\) from )?"  # which is told once it has lasted for a second
        assert re.fullmatch(how_far + re.escape(served.url), shown[0]["reason"])
        go_on.set()
        await until_idle(made)
        status = await made.ctl("status")
        assert status["models"] == []
    assert (tmp_path / "net.json").read_bytes() == before


async def test_a_cache_that_is_too_small_for_what_is_needed_says_so(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    (tmp_path / "weights").write_bytes(WEIGHTS)
    document = lab.specification("net")
    document["model"]["files"] = {"sent": {"filename": "sent", "location": "weights"}}
    made.write_specification("net.json", document)
    made.configure(models={"cache_size": "1kB"})
    made.commit("first", bench=BENCH.replace("test", ": test"))
    async with made.daemon():
        await until_idle(made)
    async with made.daemon():  # it looks at its start
        await made.ready()
        fault = ("cache/models", "too small")
        with anyio.fail_after(lab.WAIT):
            while fault not in [(one["unit"], one["state"]) for one in (await made.ctl("status"))["faults"]]:
                await anyio.sleep(0.05)
    for mark in (tmp_path / "state/models/.content/used").iterdir():
        os.utime(mark, (1, 1))
    async with made.daemon():
        await made.ready()
        with anyio.fail_after(lab.WAIT):
            while list((tmp_path / "state/models/.content/sha256").iterdir()):
                await anyio.sleep(0.05)
        assert "too small" not in [one["state"] for one in (await made.ctl("status"))["faults"]]
