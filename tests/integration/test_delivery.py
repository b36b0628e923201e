"""Delivery against a receiver that misbehaves, and by a process that is killed: nothing is lost, and nothing is new twice."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import delivering
import pytest
import receiver as receivers

from aibenchd import board, events, model
from aibenchd.report import http, outbox
from aibenchd.store import outbox as stored
from aibenchd.store import store

DEADLINE = 120  # seconds; a test that comes this far has failed
RECORDS = 200
QUICK = outbox.Policy(retry=(0.001, 0.004), retry_after=0.01, probe=(0.001, 0.004))
SAME_AGAIN = (401, 403, 404, 308, 429, 500, 503, "reset", "hang", "truncate")  # what leaves a batch as it is


def misbehaving(seed: int) -> Any:
    rng = random.Random(seed)
    bad = [*SAME_AGAIN, 413, 400, 422]

    def answer(request: receivers.Request) -> Any:
        if rng.random() < 0.5:
            return 200
        chosen = rng.choice(bad)
        return receivers.Reply(429, {"Retry-After": "1"}) if chosen == 429 else chosen

    return answer


async def deliver_all(journal: store.Store, url: str) -> None:
    settings = http.Http.Settings.model_validate(
        {"name": "sink", "kind": "http", "url": url, "timeout": "150ms", "batch_records": 32}
    )
    deliverer = outbox.Deliverer(http.Http(settings, Path("/")), journal, board.Board(journal.events), random.Random(1), QUICK)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deliverer.run)
        with anyio.fail_after(DEADLINE):
            while any(depth.state == stored.PENDING for depth in await journal.read(stored.depths)):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


def assert_keys_name_batches(requests: Sequence[receivers.Request]) -> None:
    """A key means the same records for ever, and a batch of unknown end comes again under its own."""
    batches: dict[str, list[str]] = {}
    for request in requests:
        assert batches.setdefault(request.key, request.ids) == request.ids
    for before, after in itertools.pairwise(requests):
        status = before.answer.status if isinstance(before.answer, receivers.Reply) else before.answer
        if status in SAME_AGAIN:
            assert after.key == before.key


@pytest.mark.parametrize("seed", range(4))
async def test_every_record_arrives_or_is_a_dead_letter(tmp_path: Path, seed: int) -> None:
    ids = [f"record-{number:03}" for number in range(RECORDS)]
    made = [model.Record(id_, "verdict", model.canonical_json({"id": id_, "padding": "x" * 100})) for id_ in ids]
    receiver = receivers.Receiver()
    receiver.answer = misbehaving(seed)
    async with receiver.listening(), store.opened(tmp_path / "journal.db", events.Events()) as journal:
        await journal.write(lambda tx: stored.put(tx, [("sink", "all")], made))
        await deliver_all(journal, receiver.url)
        letters = await journal.read(lambda connection: stored.dead_letters(connection, "sink"))
        assert {*receiver.taken, *(letter.record.id for letter in letters)} == {*ids}
        assert receiver.taken == sorted(receiver.taken)
        assert_keys_name_batches(receiver.requests)

        receiver.answer = lambda request: 200
        await journal.write(lambda tx: stored.resend(tx, "sink"))
        await deliver_all(journal, receiver.url)
        assert {*receiver.taken} == {*ids}


async def run(journal: Path, url: str, blocks: int, crash_at: str = "") -> int:
    """Run the delivering process to its end; its exit code."""
    async with await started(journal, url, blocks, crash_at) as process:
        with anyio.fail_after(DEADLINE):
            return await process.wait()


async def started(journal: Path, url: str, blocks: int, crash_at: str = "") -> anyio.abc.Process:
    command = [sys.executable, delivering.__file__, str(journal), url, str(blocks)]
    return await anyio.open_process(command, env={**os.environ, "AIBENCHD_CRASH_AT": crash_at}, stdout=None, stderr=None)


def assert_each_once(receiver: receivers.Receiver, blocks: int) -> None:
    """Every metric of every block arrived, in order, under one id and one key each."""
    names: dict[tuple[int, str], set[tuple[str, str]]] = {}
    for request in receiver.requests:
        for record in request.records:
            names.setdefault((record["block"], record["key"]), set()).add((record["id"], request.key))
    assert list(names) == [(number, f"{type_} latency") for number in range(blocks) for type_ in ("NET", "ID_0_Conv")]
    assert {len(each) for each in names.values()} == {1}
    assert len(receiver.taken) == 2 * blocks
    assert_keys_name_batches(receiver.requests)


async def test_crash_at_each_point_loses_nothing(tmp_path: Path) -> None:
    points = ("delivery.before-send", "delivery.before-acknowledge", "delivery.after-acknowledge")
    crashes = [f"{point}:{count}" for count in (1, 2, 3) for point in points]
    async with receivers.Receiver().listening() as receiver:
        for number, crash in enumerate(crashes, 1):
            assert await run(tmp_path / "journal.db", receiver.url, 10 * number, crash) == -signal.SIGKILL
        assert await run(tmp_path / "journal.db", receiver.url, 100) == 0
        assert_each_once(receiver, 100)


async def test_kill_while_the_receiver_decides_repeats_the_same_batch(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with receivers.Receiver().listening() as receiver:
        for number in range(1, 7):
            process = await started(tmp_path / "journal.db", receiver.url, 20 * number)
            fatal = len(receiver.requests) + rng.randint(1, 3)
            receiver.answer = lambda request, process=process, fatal=fatal: die(process, len(receiver.requests) + 1 >= fatal)
            async with process:
                with anyio.fail_after(DEADLINE):
                    assert await process.wait() == -signal.SIGKILL
        receiver.answer = lambda request: 200
        assert await run(tmp_path / "journal.db", receiver.url, 140) == 0
        assert_each_once(receiver, 140)


def die(process: anyio.abc.Process, now: bool) -> Any:
    """Take the records, but kill who sent them before it hears of it."""
    if now:
        process.kill()
        return "reset"
    return 200
