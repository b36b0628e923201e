from __future__ import annotations

import contextlib
import json
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import receiver as receivers
import sqlalchemy as sa

from aibenchd import board, errors, events, model
from aibenchd.report import base, http, outbox
from aibenchd.store import outbox as stored
from aibenchd.store import store

QUICK = outbox.Policy(retry=(0.001, 0.002), retry_after=0.002, probe=(0.001, 0.002), fault_after=math.inf)
PATIENT = outbox.Policy(linger=3600.0, retry=(3600.0, 3600.0), probe=(3600.0, 3600.0))
DEADLINE = 30  # seconds; a test that comes this far has failed

DONE = base.Delivery(base.Answer.DONE)
AGAIN = base.Delivery(base.Answer.AGAIN, "503 Service Unavailable")
PAUSED = base.Delivery(base.Answer.PAUSED, "401 Unauthorized")
TOO_LARGE = base.Delivery(base.Answer.TOO_LARGE, "413 Content Too Large")
REFUSED = base.Delivery(base.Answer.REFUSED, "400 Bad Request")

Make = Callable[..., list[model.Record]]
Queue = Callable[..., Awaitable[None]]
Run = Callable[..., outbox.Deliverer]


class Judge(base.Sink, base.Outlet):
    """A sink in this process whose answers a function gives."""

    Settings = base.SinkSettings

    def __init__(self, answer: Callable[[list[str]], base.Delivery], **settings: object) -> None:
        super().__init__(base.SinkSettings.model_validate({"name": "sink", "kind": "judge", **settings}), Path("/"))
        self.answer = answer
        self.batches: list[list[str]] = []
        self.delivered: list[str] = []
        self.opened = 0

    @contextlib.asynccontextmanager
    async def outlet(self) -> AsyncIterator[base.Outlet]:
        self.opened += 1
        yield self

    async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
        ids = [record.id for record in records]
        self.batches.append(ids)
        delivery = self.answer(ids)
        if delivery is DONE:
            self.delivered += ids
        return delivery


@pytest.fixture
def deliverer(journal: store.Store, notices: board.Board) -> Callable[..., outbox.Deliverer]:
    return lambda sink, policy=QUICK: outbox.Deliverer(sink, journal, notices, random.Random(1), policy)


@contextlib.asynccontextmanager
async def running(task: outbox.Deliverer | outbox.Keeper) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task.run)
        with anyio.fail_after(DEADLINE):
            yield
        tasks.cancel_scope.cancel()


async def drained(journal: store.Store) -> None:
    """Wait until nothing is pending."""
    while any(depth.state == stored.PENDING for depth in await journal.read(stored.depths)):
        await anyio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.005)


def notice(notices: board.Board, unit: str = "sink/sink") -> board.Notice:
    nothing = board.Notice(unit, "", "", False, datetime.now(UTC))
    return next((one for one in notices.notices() if one.unit == unit), nothing)


async def test_records_arrive_in_order_in_batches(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    sink = Judge(lambda ids: DONE, batch_records=4)
    await queue(made(10))
    async with running(deliverer(sink)):
        await drained(journal)
        await queue(made(3, start=10))
        await drained(journal)
    assert [len(batch) for batch in sink.batches] == [4, 4, 2, 3]
    assert sink.delivered == [record.id for record in made(13)]


class Preparing(Judge):
    """Keeps what it was to make ready; ``ready`` is called for each, and may raise."""

    def __init__(self, ready: Callable[[], None], **settings: object) -> None:
        super().__init__(lambda ids: DONE, **settings)
        self.ready = ready
        self.prepared: list[list[str]] = []

    async def prepare(self, records: Sequence[model.Record]) -> None:
        self.prepared.append([record.id for record in records])
        self.ready()


async def test_the_next_batch_is_made_ready_while_one_is_under_way(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    sink = Preparing(lambda: None, batch_records=3)
    await queue(made(10))
    async with running(deliverer(sink)):
        await drained(journal)
    assert sink.prepared == sink.batches[1:]
    assert sink.delivered == [record.id for record in made(10)]


async def test_a_batch_that_cannot_be_made_ready_is_handed_over_all_the_same(
    journal: store.Store, deliverer: Run, notices: board.Board, made: Make, queue: Queue
) -> None:
    def fail() -> None:
        raise errors.CredentialError("no such token")

    sink = Preparing(fail, batch_records=3)
    await queue(made(10))
    async with running(deliverer(sink)):
        await drained(journal)
        assert not notice(notices).fault
    assert len(sink.prepared) == 3
    assert sink.opened == 1
    assert sink.delivered == [record.id for record in made(10)]


async def test_what_is_trimmed_of_the_next_batch_is_not_sent(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    class Trimmed(Preparing):
        async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
            while not self.prepared:
                await anyio.sleep(0.001)
            await journal.write(lambda tx: stored.trim(tx, 0))
            return await super().deliver(records)

    sink = Trimmed(lambda: None, batch_records=2)
    await queue([*made(2), *made(1, "samples"), *made(1, start=2)])
    async with running(deliverer(sink)):
        await drained(journal)
    assert sink.prepared[0] == ["samples-0", "verdict-2"]
    assert sink.batches == [["verdict-0", "verdict-1"], ["verdict-2"]]


async def test_samples_wait_for_company_and_verdicts_take_them_along(
    journal: store.Store, deliverer: Run, notices: board.Board, made: Make, queue: Queue
) -> None:
    sink = Judge(lambda ids: DONE)
    async with running(deliverer(sink, PATIENT)):
        await until(lambda: notice(notices).state == "ready")
        for number in range(3):
            await queue(made(1, "samples", start=number))
        await queue(made(1))
        await drained(journal)
    assert sink.batches == [["samples-0", "samples-1", "samples-2", "verdict-0"]]


async def test_samples_wait_no_longer_than_they_may(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    sink = Judge(lambda ids: DONE)
    async with running(deliverer(sink, outbox.Policy(linger=0.01))):
        await queue(made(1, "samples"))
        await drained(journal)


async def test_who_has_nothing_to_send_asks_the_journal_nothing(
    journal: store.Store, deliverer: Run, notices: board.Board, made: Make, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = journal.read

    async def counted(query: Callable[[sa.Connection], Any]) -> Any:
        nonlocal reads
        reads += 1
        return await read(query)

    monkeypatch.setattr(journal, "read", counted)
    sink = Judge(lambda ids: DONE)
    async with running(deliverer(sink, outbox.Policy(linger=0.001))):
        await until(lambda: notice(notices).state == "ready")
        before = reads
        await anyio.sleep(0.1)  # a hundred times as long as samples wait
        assert reads == before
        await queue(made(1, "samples"))
        await until(lambda: bool(sink.delivered))


async def test_batch_that_is_tried_again_is_the_same(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    answers = iter([AGAIN, AGAIN, PAUSED, DONE, DONE])
    sink = Judge(lambda ids: next(answers))
    await queue(made(3))
    async with running(deliverer(sink)):
        await until(lambda: bool(sink.batches))
        await queue(made(3, start=3))
        await drained(journal)
    assert sink.batches[:4] == [[record.id for record in made(3)]] * 4
    assert sink.delivered == [record.id for record in made(6)]
    assert sink.opened == 4  # once, and anew for each try


async def test_batch_survives_a_restart(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    before, after = Judge(lambda ids: AGAIN), Judge(lambda ids: DONE, batch_records=1)
    await queue(made(3))
    async with running(deliverer(before, PATIENT)):
        await until(lambda: bool(before.batches))
    await queue(made(3, start=3))
    async with running(deliverer(after)):
        await drained(journal)
    assert [len(batch) for batch in after.batches] == [3, 1, 1, 1]


async def test_culprits_are_found_and_the_rest_arrives_in_order(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    records = made(100)
    culprits = ["verdict-0", "verdict-41", "verdict-42", "verdict-99"]
    sink = Judge(lambda ids: REFUSED if {*culprits} & {*ids} else DONE)
    await queue(records)
    async with running(deliverer(sink)):
        await drained(journal)
    assert sink.delivered == [record.id for record in records if record.id not in culprits]
    letters = await journal.read(lambda connection: stored.dead_letters(connection, "sink"))
    assert [(letter.record.id, letter.reason) for letter in letters] == [
        (id_, REFUSED.reason) for id_ in sorted(culprits, key=len)
    ]
    assert len(sink.batches) < 2 * 4 * math.log2(100) + 8


async def test_too_large_batches_are_split_and_the_size_is_remembered(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    records = made(64, padding=100)
    sink = Judge(lambda ids: TOO_LARGE if len(ids) > 10 else DONE)
    await queue(records)
    async with running(deliverer(sink)):
        await drained(journal)
    assert sink.delivered == [record.id for record in records]
    assert [len(batch) for batch in sink.batches[:4]] == [64, 32, 16, 8]
    assert max(len(batch) for batch in sink.batches[3:]) <= 10


async def test_record_too_large_by_itself_is_a_dead_letter(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    big = made(1, start=3, padding=5_000)
    sink = Judge(lambda ids: TOO_LARGE if big[0].id in ids else DONE)
    await queue([*made(3), *big, *made(3, start=4)])
    async with running(deliverer(sink)):
        await drained(journal)
    letters = await journal.read(lambda connection: stored.dead_letters(connection, "sink"))
    assert [letter.record.id for letter in letters] == [big[0].id]
    assert len(sink.delivered) == 6


async def test_dead_letters_are_a_fault_until_they_are_sent_again(
    journal: store.Store, deliverer: Run, notices: board.Board, made: Make, queue: Queue
) -> None:
    sink = Judge(lambda ids: REFUSED)
    await queue(made(2))
    async with running(deliverer(sink)):
        await drained(journal)
        await until(lambda: notice(notices).reason.startswith("2 records"))
        assert notice(notices).fault
        sink.answer = lambda ids: DONE
        await journal.write(lambda tx: stored.resend(tx, "sink"))
        await drained(journal)
        await until(lambda: not notice(notices).fault)
    assert sink.delivered == [record.id for record in made(2)]


async def test_what_stands_in_the_way_is_on_the_board(deliverer: Run, notices: board.Board, made: Make, queue: Queue) -> None:
    sink = Judge(lambda ids: AGAIN)
    await queue(made(1))
    async with running(deliverer(sink, PATIENT)):
        await until(lambda: notice(notices).state == "retrying")
        assert (notice(notices).reason, notice(notices).fault) == (AGAIN.reason, False)
    assert not notices.notices()


async def test_long_silence_is_a_fault(deliverer: Run, notices: board.Board, made: Make, queue: Queue) -> None:
    sink = Judge(lambda ids: AGAIN)
    await queue(made(1))
    async with running(deliverer(sink, outbox.Policy(retry=(0.001, 0.001), fault_after=0.01))):
        await until(lambda: notice(notices).state == "retrying" and notice(notices).fault)


async def test_a_person_who_asks_for_it_ends_the_pause(
    journal: store.Store, deliverer: Run, notices: board.Board, made: Make, queue: Queue
) -> None:
    sink = Judge(lambda ids: PAUSED)
    await queue(made(1))
    async with running(deliverer(sink, PATIENT)):
        await until(lambda: notice(notices).state == "paused")
        assert notice(notices).fault
        sink.answer = lambda ids: DONE
        await journal.write(lambda tx: stored.resend(tx, "sink"))
        await drained(journal)
        await until(lambda: notice(notices).state == "ready")


async def test_sink_that_hangs_is_bounded(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    class Hanging(Judge):
        async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
            if await super().deliver(records) is DONE:
                return DONE
            return await anyio.sleep_forever()

    answers = iter([AGAIN, DONE])
    sink = Hanging(lambda ids: next(answers), timeout="10ms")
    await queue(made(1))
    async with running(deliverer(sink)):
        await drained(journal)
    assert len(sink.batches) == 2


async def test_a_sink_that_hangs_while_it_makes_ready_is_bounded(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue
) -> None:
    class Hanging(Judge):
        async def prepare(self, records: Sequence[model.Record]) -> None:
            await anyio.sleep_forever()

    sink = Hanging(lambda ids: DONE, timeout="10ms", batch_records=1)
    await queue(made(3))
    async with running(deliverer(sink)):
        await drained(journal)
    assert len(sink.delivered) == 3


@pytest.mark.parametrize("error", [errors.SinkError("no such file"), RuntimeError("a bug"), ExceptionGroup("bugs", [OSError()])])
async def test_sink_that_breaks_is_tried_again(
    journal: store.Store, deliverer: Run, made: Make, queue: Queue, error: Exception
) -> None:
    class Broken(Judge):
        @contextlib.asynccontextmanager
        async def outlet(self) -> AsyncIterator[base.Outlet]:
            async with super().outlet() as outlet:
                if self.opened < 3:
                    raise error
                yield outlet

    sink = Broken(lambda ids: DONE)
    await queue(made(2))
    async with running(deliverer(sink)):
        await drained(journal)
    assert (sink.opened, len(sink.delivered)) == (3, 2)


async def test_reasons_hold_no_secret(deliverer: Run, notices: board.Board, made: Make, queue: Queue) -> None:
    sink = Judge(lambda ids: base.Delivery(base.Answer.AGAIN, "GET https://me:hunter2@host failed"))
    await queue(made(1))
    async with running(deliverer(sink, PATIENT)):
        await until(lambda: notice(notices).state == "retrying")
        assert "hunter2" not in notice(notices).reason


async def test_slow_sink_holds_up_no_other(journal: store.Store, deliverer: Run, made: Make, queue: Queue) -> None:
    slow, quick = Judge(lambda ids: AGAIN), Judge(lambda ids: DONE, name="quick")
    await queue(made(5))
    await queue(made(5), "quick")
    async with running(deliverer(slow, PATIENT)), running(deliverer(quick)):
        await until(lambda: len(quick.delivered) == 5)


def pause_after(deliverer: outbox.Deliverer, delivery: base.Delivery, times: int) -> float:
    return [deliverer._delay(delivery) for _ in range(times)][-1]


async def test_pauses_grow_with_jitter_up_to_their_limits(journal: store.Store, deliverer: Run) -> None:
    judge = Judge(lambda ids: DONE)
    assert 0.5 <= pause_after(deliverer(judge, outbox.Policy()), AGAIN, 1) <= 1
    assert 150 <= pause_after(deliverer(judge, outbox.Policy()), AGAIN, 20) <= 300
    assert 30 <= pause_after(deliverer(judge, outbox.Policy()), PAUSED, 1) <= 60
    assert 450 <= pause_after(deliverer(judge, outbox.Policy()), PAUSED, 20) <= 900


@pytest.mark.parametrize(("asked", "least"), [(0.0, 0.0), (30.0, 30.0), (1e9, 3600.0)])
async def test_retry_after_is_honoured_within_bounds(journal: store.Store, deliverer: Run, asked: float, least: float) -> None:
    delivery = base.Delivery(base.Answer.AGAIN, "429", retry_after=asked)
    pause = pause_after(deliverer(Judge(lambda ids: DONE), outbox.Policy()), delivery, 5)
    assert least <= pause <= least + 1


async def test_keeper_removes_samples_and_says_so(journal: store.Store, notices: board.Board, made: Make, queue: Queue) -> None:
    await queue(made(10, "samples", padding=1_000))
    await queue(made(5, padding=100))
    async with running(outbox.Keeper(journal, notices, 6_000)):
        await until(lambda: bool(notices.notices()))
        assert (notice(notices, "outbox").state, notice(notices, "outbox").fault) == ("full", True)
    depths = {depth.kind: depth for depth in await journal.read(stored.depths)}
    assert depths["verdict"].records == 5
    assert sum(depth.bytes for depth in depths.values()) <= 5_400
    rows = await journal.read(lambda connection: stored.batch(connection, "sink", records=100, size=1 << 20))
    assert rows[0].record.id == f"samples-{10 - depths['samples'].records}"


async def test_keeper_never_removes_a_verdict(journal: store.Store, notices: board.Board, made: Make, queue: Queue) -> None:
    await queue(made(5, padding=1_000))
    async with running(outbox.Keeper(journal, notices, 100)):
        await until(lambda: bool(notices.notices()))
        assert "only verdicts are left" in notice(notices, "outbox").reason
    (depth,) = await journal.read(stored.depths)
    assert depth.records == 5


async def test_keeper_is_content_below_the_limit(journal: store.Store, notices: board.Board, made: Make, queue: Queue) -> None:
    await queue(made(5, "samples"))
    async with running(outbox.Keeper(journal, notices, 1 << 20)):
        await until(lambda: bool(notices.notices()))
        assert (notice(notices, "outbox").state, notice(notices, "outbox").fault) == ("ready", False)


async def test_a_sink_whose_secret_cannot_be_read_is_a_fault_until_it_can(
    tmp_path: Path, journal: store.Store, notices: board.Board, deliverer: Run
) -> None:
    path = tmp_path / "hook"
    own = http.Http.Settings.model_validate({"name": "sink", "kind": "http", "url_file": str(path), "format": "native"})
    async with running(deliverer(http.Http(own, tmp_path), PATIENT)):
        while not (shown := notices.notices("sink")):
            await anyio.sleep(0.001)
        assert [(one.state, one.fault) for one in shown] == [("paused", True)]
        assert shown[0].reason == f"'{path}' cannot be read: No such file or directory"
        path.touch(0o600)
        path.write_text("http://127.0.0.1:1/hook")
        journal.events.publish(events.Event("daemon.reloaded", {}))  # as a person does who has mended it: no need to wait
        while notices.notices("sink")[0].fault:
            await anyio.sleep(0.001)
        assert notices.notices("sink")[0].state == "ready"


@pytest.mark.parametrize(
    "chosen", ["faipep", {"kind": "influxdb-v2", "bucket": "bench"}, "otlp"], ids=["faipep", "influxdb", "otlp"]
)
async def test_a_record_of_an_older_version_that_cannot_be_read_holds_up_no_other(
    chosen: object,
    tmp_path: Path,
    receiver: receivers.Receiver,
    verdicts: list[model.Record],
    journal: store.Store,
    queue: Queue,
    deliverer: Run,
) -> None:
    bad = model.Record("old", "verdict", re.sub(r'"estimate":[^,]+', '"estimate":NaN', verdicts[0].text, count=1))
    assert math.isnan(bad.payload["estimate"])  # type: ignore[arg-type]
    faipep = chosen == "faipep"
    category = "|perf" if faipep else ""
    own = http.Http.Settings.model_validate(
        {"name": "sink", "kind": "http", "url": f"{receiver.url}{category}", "format": chosen, "compress": False}
    )
    receiver.answer = _counting if faipep else (lambda _: 200)
    await queue([verdicts[0], bad, verdicts[1]])
    async with running(deliverer(http.Http(own, tmp_path))):
        await drained(journal)
    assert len(receiver.requests) == 2
    (letter,) = await journal.read(lambda connection: stored.dead_letters(connection, "sink"))
    assert letter.record == bad
    assert letter.reason.startswith("record old cannot be read: ")


def _counting(request: receivers.Request) -> receivers.Reply:
    """As FAI-PEP's receiver says that it took all."""
    return receivers.Reply(200, body=b'{"count": %d}' % len(json.loads(request.json["logs"])))
