from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from aibenchd import events, model
from aibenchd.store import outbox, schema, store

LIMITS = {"records": 100, "size": 1 << 20}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def made(*ids: str, kind: str = "verdict", size: int = 10) -> list[model.Record]:
    return [model.Record(id_, kind, "x" * size) for id_ in ids]


async def waiting(journal: store.Store, sink: str = "one", **limits: int) -> list[str]:
    rows = await journal.read(lambda connection: outbox.batch(connection, sink, **{**LIMITS, **limits}))
    return [row.record.id for row in rows]


async def claimed(journal: store.Store, sink: str = "one", **limits: int) -> list[outbox.Row]:
    rows = await journal.read(lambda connection: outbox.batch(connection, sink, **{**LIMITS, **limits}))
    assert await journal.write(lambda tx: outbox.claim(tx, sink, rows))
    return rows


async def test_each_sink_gets_what_it_wants(journal: store.Store) -> None:
    sinks = [("one", "all"), ("two", "verdicts")]
    await journal.write(lambda tx: outbox.put(tx, sinks, made("v") + made("s", kind="samples")))
    assert await waiting(journal, "one") == ["v", "s"]
    assert await waiting(journal, "two") == ["v"]


async def test_a_record_that_waits_is_not_queued_twice(journal: store.Store) -> None:
    for _ in range(2):
        await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made("a", "b")))
    assert await waiting(journal) == ["a", "b"]
    assert await journal.read(outbox.depths) == [outbox.Depth("one", "verdict", "pending", 2, 20)]


async def test_nothing_is_queued_by_a_transaction_that_fails(journal: store.Store) -> None:
    def work(tx: store.Transaction) -> None:
        outbox.put(tx, [("one", "all")], made("a"))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        await journal.write(work)
    assert await waiting(journal) == []
    assert await journal.read(outbox.depths) == []


@pytest.mark.parametrize(("limits", "expected"), [({"records": 2}, 2), ({"size": 35}, 3), ({"size": 1}, 1), ({"upto": 4}, 4)])
async def test_batch_is_bounded_by_count_bytes_and_id(journal: store.Store, limits: dict[str, int], expected: int) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made(*"abcdef")))
    assert await waiting(journal, **limits) == list("abcdef"[:expected])


async def test_claimed_batch_stays_the_same_whatever_comes_after(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made("a", "b")))
    rows = await claimed(journal)
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made("c")))
    assert await waiting(journal, records=1) == ["a", "b"]
    await journal.write(lambda tx: outbox.settle(tx, "one", rows))
    assert await waiting(journal) == ["c"]


async def test_what_follows_is_claimed_with_the_settling_of_the_batch_before(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made(*"abcdef")))
    rows = await claimed(journal, records=2)
    following = await journal.read(lambda connection: outbox.following(connection, "one", rows, records=2, size=1 << 20))
    assert [row.record.id for row in following] == ["c", "d"]
    assert await journal.write(lambda tx: outbox.settle(tx, "one", rows, following))
    assert await waiting(journal, records=1) == ["c", "d"]  # for it is claimed
    assert await journal.read(outbox.depths) == [outbox.Depth("one", "verdict", "pending", 4, 40)]


async def test_what_follows_is_not_claimed_where_some_of_it_went(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], [*made("a"), *made("b", kind="samples"), *made("c")]))
    rows = await claimed(journal, records=1)
    following = await journal.read(lambda connection: outbox.following(connection, "one", rows, **LIMITS))
    await journal.write(lambda tx: outbox.trim(tx, 20))
    assert not await journal.write(lambda tx: outbox.settle(tx, "one", rows, following))
    assert await waiting(journal) == ["c"]


async def test_claim_fails_where_records_went_since_they_were_read(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made("a", "b", kind="samples")))
    rows = await journal.read(lambda connection: outbox.batch(connection, "one", **LIMITS))
    await journal.write(lambda tx: outbox.trim(tx, 10))
    assert not await journal.write(lambda tx: outbox.claim(tx, "one", rows))


async def test_trim_takes_the_oldest_samples_and_no_verdict(journal: store.Store) -> None:
    for number in range(4):
        batch = made(f"v{number}") + made(f"s{number}", kind="samples")
        await journal.write(lambda tx, batch=batch: outbox.put(tx, [("one", "all")], batch))  # type: ignore[misc]
    assert await journal.write(lambda tx: outbox.trim(tx, 60)) == 2
    assert await waiting(journal) == ["v0", "v1", "v2", "s2", "v3", "s3"]
    assert await journal.write(lambda tx: outbox.trim(tx, 0)) == 2
    assert await waiting(journal) == ["v0", "v1", "v2", "v3"]
    assert await journal.write(lambda tx: outbox.trim(tx, 0)) == 0


async def test_trim_leaves_what_is_being_sent(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all"), ("two", "all")], made("a", "b", kind="samples")))
    await claimed(journal, "one", records=1)
    await journal.write(lambda tx: outbox.trim(tx, 0))
    assert await waiting(journal, "one") == ["a"]
    assert await waiting(journal, "two") == []


async def test_dead_letters_are_shown_and_go_to_the_end_when_they_are_sent_again(journal: store.Store) -> None:
    await journal.write(lambda tx: outbox.put(tx, [("one", "all")], made("a", "b")))
    rows = await claimed(journal, records=1)
    await journal.write(lambda tx: outbox.bury(tx, "one", rows[0], "400 Bad Request"))
    assert await waiting(journal) == ["b"]
    (letter,) = await journal.read(lambda connection: outbox.dead_letters(connection, "one"))
    assert (letter.record.id, letter.reason) == ("a", "400 Bad Request")
    assert await journal.write(lambda tx: outbox.resend(tx, "one")) == 1
    assert await waiting(journal) == ["b", "a"]
    assert await journal.write(lambda tx: outbox.resend(tx, "one")) == 0


async def test_depths_are_what_counting_would_say(journal: store.Store) -> None:
    await journal.write(
        lambda tx: outbox.put(tx, [("one", "all"), ("two", "verdicts")], made("a", "b") + made("c", kind="samples"))
    )
    rows = await claimed(journal, records=1)
    await journal.write(lambda tx: outbox.bury(tx, "one", rows[0], "no"))
    rows = await claimed(journal, "two")
    await journal.write(lambda tx: outbox.settle(tx, "two", rows))
    columns = schema.outbox.c
    count = sa.select(columns.sink, columns.kind, columns.state, sa.func.count(), sa.func.sum(columns.size))
    count = count.group_by(columns.sink, columns.kind, columns.state).order_by(columns.sink, columns.kind, columns.state)
    counted = await journal.read(lambda connection: [outbox.Depth(*row) for row in connection.execute(count)])
    assert sorted(await journal.read(outbox.depths), key=str) == sorted(counted, key=str)
    assert await journal.read(outbox.depth_in_bytes) == 30
