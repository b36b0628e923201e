"""Records a second from the journal to a receiver on loopback in each format, beside httpx that posts the ready bodies.

The CPU time is of this process, the sender, without the receiver's, which is told beside it: on a busy machine the rate says
how busy that is, and the CPU time what the records cost.

A webhook and a commit status are a request each, with a commit of the journal before and after it: a lab has a few a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx

from aibenchd import board, events, model
from aibenchd.report import http, outbox, records
from aibenchd.store import outbox as stored
from aibenchd.store import store
from tests.bench import figures

BATCH = 1_000
RECORDS = 60_000  # of a run, so that the journal has come to its pace
BLOCKS = 5
OPERATORS = 200  # metrics of one experiment
RUNS = 3  # of each side, in turn; each leaves the journal empty
DESIGNED = 20_000.0  # records a second
INSTALLATION = str(uuid.UUID(int=7))
NOW = datetime(2026, 3, 4, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Way:
    """One format: its settings, what is delivered in it, and the design's figure."""

    format: Any
    records: Sequence[model.Record]
    designed: float | None = None

    @property
    def name(self) -> str:
        return str(self.format["kind"])

    def sink(self, url: str, directory: Path) -> http.Http:
        keys = {"name": "sink", "kind": "http", "url": url, "batch_records": BATCH, "format": self.format}
        return http.Http(http.Http.Settings.model_validate(keys), directory)


def experiment(number: int) -> records.Experiment:
    design = model.Design(model.Benchmark({"name": "net"}, {"identifier": "squeeze"}), "pytorch", model.Rule(), backend="mkl")
    return records.Experiment(
        installation=INSTALLATION,
        id=number,
        repository="engine",
        run_type=model.RunType.BENCHMARK,
        treatment=records.Commit(f"{number:040}", NOW),
        control=records.Commit("b" * 40, NOW),
        design=design,
        decided_on=model.NETWORK,
        platform="host",
        device=records.Device("lab", "serial-1"),
    )


def verdicts(count: int) -> list[model.Record]:
    """Of experiments with a network and its operators, of 1.9 KiB each."""
    rng = random.Random(1)
    decided = model.Decision(model.Verdict.REGRESSED, BLOCKS, 0.1, 0.05, 0.15)
    keys = ["NET", *(f"ID_{number}_Conv" for number in range(1, OPERATORS))]
    made: list[model.Record] = []
    for number in range(count // OPERATORS):
        series = {
            arm: [model.Series(key, "latency", "us", (100 * rng.random(),)) for key in keys for _ in range(BLOCKS)]
            for arm in model.ArmName
        }
        made += records.verdict_records(experiment(number), decided, series, backend="mkl", time=NOW)
    return made


def repeated(made: Sequence[model.Record], count: int) -> list[model.Record]:
    """As many by other ids."""
    return [dataclasses.replace(made[number % len(made)], id=f"{number:036}") for number in range(count)]


def alerts(count: int) -> list[model.Record]:
    decided = model.Decision(model.Verdict.REGRESSED, BLOCKS, 0.1, 0.05, 0.15)
    told = [records.Alert("confirmed", number, "me", "Fold constants", 9.0, "seldom", {}) for number in range(count)]
    return [records.alert_record(experiment(one.finding), one, decided, backend="mkl", time=NOW) for one in told]


def statuses(count: int) -> list[model.Record]:
    standing: model.JsonObject = {"state": "success", "text": "4 measured, none regressed", "finding": None, "counts": {}}
    return [records.status_record(INSTALLATION, "engine", f"{one:040}", one, standing, time=NOW) for one in range(count)]


def ways() -> list[Way]:
    many = repeated(verdicts(10_000), RECORDS)
    together: list[Any] = [
        {"kind": "native"},
        {"kind": "faipep"},
        {"kind": "influxdb-v1", "database": "x"},
        {"kind": "influxdb-v2", "bucket": "x"},
        {"kind": "otlp"},
    ]
    return [
        *(Way(format_, many, DESIGNED) for format_ in together),
        Way({"kind": "webhook"}, alerts(400)),
        Way({"kind": "commit-status", "repositories": {"engine": "lab/engine"}}, statuses(400)),
    ]


def requests(way: Way, sink: http.Http) -> list[tuple[str, bytes]]:
    """Addresses and bodies as the sink sends them."""
    made, size = sink.settings.open_format(), sink.settings.at_once
    compress: Callable[[bytes], bytes] = http.compressed if made.compressible else bytes
    batches = [way.records[first : first + size] for first in range(0, len(way.records), size)]
    url = sink.settings.url.partition("|")[0]
    return [(made.address(url, batch), compress(made.body(batch, ""))) for batch in batches]


@dataclass(frozen=True, slots=True)
class Pace:
    """Records a second, and CPU milliseconds of 1,000 of them: the sender's and the receiver's."""

    rate: float
    sender: float
    receiver: float


async def paced(count: int, receiver: int, work: Callable[[], Awaitable[None]]) -> Pace:
    """That of ``work``, which sends so many records to the process ``receiver``."""
    sent, taken, began = time.process_time(), figures.cpu_seconds(receiver), time.perf_counter()
    await work()
    seconds = time.perf_counter() - began
    thousands = count / 1_000
    return Pace(
        count / seconds,
        (time.process_time() - sent) / thousands * 1e3,
        (figures.cpu_seconds(receiver) - taken) / thousands * 1e3,
    )


async def post(ready: Sequence[tuple[str, bytes]]) -> None:
    """The yardstick: ready bodies posted one after the other, nothing kept."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for address, body in ready:
            await client.post(address, content=body)


async def delivered(way: Way, sink: http.Http, directory: Path, receiver: int) -> Pace:
    """The way of the daemon: each batch claimed on the disk, composed, compressed, posted and removed."""
    told = events.Events()
    async with store.opened(directory / "journal.db", told) as journal:
        for first in range(0, len(way.records), BATCH):
            part = way.records[first : first + BATCH]
            await journal.write(functools.partial(stored.put, sinks=[("sink", sink.settings.wants)], records=part))
        deliverer = outbox.Deliverer(sink, journal, board.Board(told), random.Random(1))

        async def deliver() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(deliverer.run)
                while await journal.read(stored.depths):
                    await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()

        return await paced(len(way.records), receiver, deliver)


async def measured(directory: Path) -> list[figures.Figure]:
    async with receiving() as (url, receiver):
        return [figure for way in ways() for figure in await _of(way, url, receiver, directory)]


async def _of(way: Way, url: str, receiver: int, directory: Path) -> list[figures.Figure]:
    sink = way.sink(f"{url}|perf" if way.name == "faipep" else url, directory)
    ready, count = requests(way, sink), len(way.records)
    taken = [
        (await delivered(way, sink, directory, receiver), await paced(count, receiver, functools.partial(post, ready)))
        for _ in range(RUNS)
    ]
    ours, bare = (
        [statistics.median(field) for field in zip(*map(dataclasses.astuple, side), strict=True)]
        for side in zip(*taken, strict=True)
    )
    return [
        figures.Figure(
            f"records delivered, {way.name}", ours[0], bare[0], "/s", "httpx alone, ready bodies", way.designed, at_least=True
        ),
        figures.Figure(
            f"the sender's CPU time for 1,000, {way.name}", ours[1], bare[1], "ms", f"httpx alone; receiver {ours[2]:.1f} ms"
        ),
    ]


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[tuple[str, int]]:
    """The URL of a receiver in a process of its own, so that its work is not on our thread; and its process ID."""
    process = await anyio.open_process([sys.executable, "-m", __name__], stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield (await process.stdout.receive()).decode().strip(), process.pid
    finally:
        process.kill()
        await process.aclose()


async def receive() -> None:
    """Take what comes and say yes, in a process of its own."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            reply = b'{"count": %d}' % BATCH  # which FAI-PEP's receivers say
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply), reply))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(receive())
