"""Each format from the journal to a receiver that fails on purpose: what its answers mean is the same in all of them."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import receiver as receivers
import sending

from aibenchd import board, events, model
from aibenchd.report import outbox, records
from aibenchd.store import outbox as stored
from aibenchd.store import store

DEADLINE = 60  # seconds; a test that comes this far has failed
QUICK = outbox.Policy(linger=0.005, retry=(0.001, 0.004), retry_after=0.3, probe=(0.001, 0.004))
COUNT = 16
NAMES = [f"op{number:03}" for number in range(COUNT)]
INSTALLATION = str(uuid.UUID(int=7))
NOW = datetime(2026, 3, 4, tzinfo=UTC)


def experiment(number: int) -> records.Experiment:
    return records.Experiment(
        installation=INSTALLATION,
        id=number,
        repository="engine",
        run_type=model.RunType.BENCHMARK,
        treatment=records.Commit("a" * 40, NOW),
        control=records.Commit("b" * 40, NOW - timedelta(hours=1)),
        design=model.Design(model.Benchmark({"name": "net"}, {"identifier": "net"}), "generic", model.Rule()),
        decided_on=f"{NAMES[number]} latency",
        platform="host",
        device=records.Device("lab"),
    )


def verdict(number: int) -> model.Record:
    series = {arm: [model.Series(NAMES[number], "latency", "us", (1.0, 2.0))] for arm in model.ArmName}
    decided = model.Decision(model.Verdict.REGRESSED, 9, 0.1, 0.05, 0.15)
    (made,) = records.verdict_records(experiment(number), decided, series, backend="", time=NOW)
    return made


def alert(number: int) -> model.Record:
    told = records.Alert("confirmed", number, "me", NAMES[number], 9.0, "seldom", {})
    return records.alert_record(experiment(number), told, model.Decision(model.Verdict.BROKEN, 9), backend="", time=NOW)


def status(number: int) -> model.Record:
    standing: model.JsonObject = {"state": "success", "text": NAMES[number], "finding": None, "counts": {}}
    return records.status_record(INSTALLATION, "engine", "a" * 40, number, standing, time=NOW)


Make = Callable[[int], model.Record]
FORMATS: dict[str, tuple[Any, Make]] = {
    "native": ("native", verdict),
    "influxdb-v1": ({"kind": "influxdb-v1", "database": "x"}, verdict),
    "influxdb-v2": ({"kind": "influxdb-v2", "bucket": "x"}, verdict),
    "otlp": ("otlp", verdict),
    "webhook": ("webhook", alert),
    "commit-status": ({"kind": "commit-status", "repositories": {"engine": "lab/engine"}}, status),
}
TOGETHER = ("native", "influxdb-v1", "influxdb-v2", "otlp")  # have many records in one request


def names(request: receivers.Request) -> list[str]:
    """Of the records in a request, in whatever format."""
    return list(dict.fromkeys(name.decode() for name in re.findall(rb"op\d{3}", request.body)))


async def delivered(directory: Path, receiver: receivers.Receiver, format_: str, **keys: Any) -> list[str]:
    """Deliver all records in a format; those that became dead letters, by name."""
    settings, make = FORMATS[format_]
    if format_ == "otlp":
        pytest.importorskip("opentelemetry.proto", reason="opentelemetry-proto is not installed (pip install 'aibenchd[otlp]')")
    sink = sending.sink(receiver.url, format=settings, **keys)
    async with store.opened(directory / "journal.db", events.Events()) as journal:
        made = [make(number) for number in range(COUNT)]
        await journal.write(lambda tx: stored.put(tx, [("sink", sink.settings.wants)], made))
        deliverer = outbox.Deliverer(sink, journal, board.Board(journal.events), random.Random(1), QUICK)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliverer.run)
            with anyio.fail_after(DEADLINE):
                while any(depth.state == stored.PENDING for depth in await journal.read(stored.depths)):
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        letters = await journal.read(lambda connection: stored.dead_letters(connection, "sink"))
    return [name for letter in letters for name in re.findall(r"op\d{3}", letter.record.text)[:1]]


def taken(requests: Sequence[receivers.Request]) -> list[str]:
    """Names in the order in which they were first taken."""
    return list(dict.fromkeys(name for request in requests if request.answer == 200 for name in names(request)))


@pytest.mark.parametrize("format_", FORMATS)
async def test_what_is_refused_alone_is_a_dead_letter_and_all_else_arrives_in_order(
    tmp_path: Path, receiver: receivers.Receiver, format_: str
) -> None:
    bad = {NAMES[3], NAMES[11]}
    receiver.answer = lambda request: 400 if bad & {*names(request)} else 200
    assert {*await delivered(tmp_path, receiver, format_)} == bad
    assert taken(receiver.requests) == [name for name in NAMES if name not in bad]


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_pause_that_is_asked_for_is_kept_and_the_same_request_comes_again(
    tmp_path: Path, receiver: receivers.Receiver, format_: str
) -> None:
    times: list[float] = []

    def answer(request: receivers.Request) -> Any:
        times.append(anyio.current_time())
        return receivers.Reply(429, {"Retry-After": "1"}) if len(times) == 1 else 200

    receiver.answer = answer
    assert await delivered(tmp_path, receiver, format_) == []
    first, second = receiver.requests[:2]
    assert (first.key, first.body, first.target) == (second.key, second.body, second.target)
    assert times[1] - times[0] >= QUICK.retry_after  # which is the longest that may be asked for
    assert taken(receiver.requests) == NAMES


@pytest.mark.parametrize("format_", TOGETHER)
async def test_what_is_too_large_is_split(tmp_path: Path, receiver: receivers.Receiver, format_: str) -> None:
    receiver.answer = lambda request: 413 if len(names(request)) > 5 else 200
    assert await delivered(tmp_path, receiver, format_) == []
    assert taken(receiver.requests) == NAMES
    assert max(len(names(request)) for request in receiver.requests if request.answer == 200) > 1


@pytest.mark.parametrize("format_", FORMATS)
async def test_what_is_not_let_in_is_kept(tmp_path: Path, receiver: receivers.Receiver, format_: str) -> None:
    receiver.answer = lambda request: 401 if len(receiver.requests) < 3 else 200
    assert await delivered(tmp_path, receiver, format_) == []
    assert len({request.key for request in receiver.requests[:4]}) == 1
    assert taken(receiver.requests) == NAMES


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_token_is_shown_as_the_receiver_wants_it(tmp_path: Path, receiver: receivers.Receiver, format_: str) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret-t0ken")
    path.chmod(0o600)
    await delivered(tmp_path, receiver, format_, token_file=str(path))
    scheme = {"influxdb-v1": "Basic czNjcmV0LXQwa2Vu", "influxdb-v2": "Token s3cret-t0ken", "commit-status": "token s3cret-t0ken"}
    assert {request.headers["authorization"] for request in receiver.requests} == {scheme.get(format_, "Bearer s3cret-t0ken")}
    assert not any(b"s3cret" in request.body for request in receiver.requests)


@pytest.fixture
async def receiver() -> Any:
    async with receivers.Receiver().listening() as listening:
        yield listening
