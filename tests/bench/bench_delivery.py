"""Records a second from the journal to a receiver on loopback, beside the same bodies posted with no journal behind them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx

from aibenchd import board, events, model
from aibenchd.report import http, outbox
from aibenchd.report.formats import native
from aibenchd.store import outbox as stored
from aibenchd.store import store
from tests.bench import figures

RECORDS = 40_000
BATCH = 1_000
RUNS = 3  # of each side, in turn; each leaves the journal empty
DESIGNED = 20_000.0  # records a second


def made() -> list[model.Record]:
    """Records of about 1 KiB."""
    rng = random.Random(1)
    text = model.canonical_json({"values": [rng.random() for _ in range(50)]})
    return [model.Record(f"{number:036}", "verdict", text) for number in range(RECORDS)]


async def posted(url: str, records: list[model.Record]) -> float:
    """The yardstick: bodies composed and posted one after the other, nothing kept."""
    started = time.perf_counter()
    async with httpx.AsyncClient(trust_env=False) as client:
        for first in range(0, RECORDS, BATCH):
            await client.post(url, content=native.Native("").body(records[first : first + BATCH], ""))
    return RECORDS / (time.perf_counter() - started)


async def delivered(url: str, records: list[model.Record], directory: Path) -> float:
    """The way of the daemon: each batch claimed on the disk, composed, compressed, posted and removed."""
    told = events.Events()
    settings = http.Http.Settings.model_validate({"name": "sink", "kind": "http", "url": url, "batch_records": BATCH})
    async with store.opened(directory / "journal.db", told) as journal:
        for first in range(0, RECORDS, BATCH):
            part = records[first : first + BATCH]
            await journal.write(functools.partial(stored.put, sinks=[("sink", "all")], records=part))
        deliverer = outbox.Deliverer(http.Http(settings, directory), journal, board.Board(told), random.Random(1))
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliverer.run)
            while await journal.read(stored.depths):
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        return RECORDS / (time.perf_counter() - started)


async def measured(directory: Path) -> list[figures.Figure]:
    records = made()
    async with receiving() as url:
        ours, yardstick = await figures.in_turn(lambda: delivered(url, records, directory), lambda: posted(url, records), RUNS)
    return [figures.Figure("records delivered", ours, yardstick, "/s", "posting them with no journal", DESIGNED, at_least=True)]


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    """The URL of a receiver in a process of its own, so that its work is not on our thread."""
    process = await anyio.open_process([sys.executable, "-m", __name__], stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield (await process.stdout.receive()).decode().strip()
    finally:
        process.kill()
        await process.aclose()


async def receive() -> None:
    """Take what comes and say yes, in a process of its own."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(receive())
