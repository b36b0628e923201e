"""Records on their way to sinks.

A sink's records are sent in batches, one at a time, in order. Which records a batch holds is written down before it
is sent: after a crash, or where no answer came, the same batch goes again under the same key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
import sqlalchemy.dialects.sqlite

from aibenchd import model
from aibenchd.store import schema, store

PENDING = "pending"
DEAD = "dead"
KINDS: Mapping[str, Collection[str]] = {  # of records, by what a sink wants
    "all": ("verdict", "samples"),
    "verdicts": ("verdict",),
    "alerts": ("alert",),
    "statuses": ("status",),
}
ROWS = 1_000  # that one transaction moves or removes at most: it holds up the writes of blocks

_outbox = schema.outbox.c
_depths = schema.outbox_depths.c
_batches = schema.outbox_batches.c


@dataclass(frozen=True, slots=True)
class Row:
    """One record that waits. ``size`` is the bytes of its payload."""

    id: int
    size: int
    record: model.Record


@dataclass(frozen=True, slots=True)
class Depth:
    """How much of one kind (``verdict``, ``samples``) and state (``pending``, ``dead``) lies in the outbox for a sink."""

    sink: str
    kind: str
    state: str
    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a sink refused, and why."""

    id: int
    sink: str
    record: model.Record
    reason: str
    created_at: datetime


def put(tx: store.Transaction, sinks: Sequence[tuple[str, str]], records: Sequence[model.Record]) -> None:
    """Queue records for all sinks that want them; a record that waits already is not queued twice.

    Announces ``outbox.verdict`` or ``outbox.samples``: the first is worth sending at once.

    Args:
        sinks: name, and which of :data:`KINDS` it wants.
    """
    now = datetime.now(UTC)
    rows = [_row(name, record, now) for name, wants in sinks for record in records if record.kind in KINDS[wants]]
    if rows:
        _insert(tx, rows)
        tx.announce("outbox.samples" if all(row["kind"] == "samples" for row in rows) else "outbox.verdict")


def batch(connection: sa.Connection, sink: str, *, records: int, size: int, upto: int | None = None) -> list[Row]:
    """The batch that was claimed and is not settled; else the next to claim; in order, empty where nothing waits.

    Args:
        records, size: how many records and bytes a new one has at most; it has one record at least.
        upto: id of the last record that a new one may hold.
    """
    claimed = connection.scalar(sa.select(_batches.upto).where(_batches.sink == sink))
    if claimed is not None:
        return list(_rows(connection.execute(_pending(sink).where(_outbox.id <= claimed))))
    query = _pending(sink).limit(records)
    return _within(connection, query if upto is None else query.where(_outbox.id <= upto), size)


def following(connection: sa.Connection, sink: str, rows: Sequence[Row], *, records: int, size: int) -> list[Row]:
    """The batch after ``rows``, which is claimed: the next to claim once that is settled; arguments as of :func:`batch`."""
    return _within(connection, _pending(sink).where(_outbox.id > rows[-1].id).limit(records), size)


def claim(tx: store.Transaction, sink: str, rows: Sequence[Row]) -> bool:
    """Write down that ``rows``, the first that are pending, are the batch; False where they no longer are."""
    upto = rows[-1].id
    first = sa.select(sa.func.count()).where(_outbox.sink == sink, _outbox.state == PENDING, _outbox.id <= upto)
    if tx.connection.scalar(first) != len(rows):
        return False  # some were trimmed since they were read
    insert = sqlalchemy.dialects.sqlite.insert(schema.outbox_batches)
    tx.connection.execute(
        insert.on_conflict_do_update(index_elements=[_batches.sink], set_={"upto": insert.excluded.upto}),
        {"sink": sink, "upto": upto},
    )
    return True


def settle(tx: store.Transaction, sink: str, rows: Sequence[Row], following: Sequence[Row] = ()) -> bool:
    """The batch was taken: remove its records, which since it was claimed are all that are pending up to its last.

    Claims ``following``, where there are any, as :func:`claim` does, and says whether they are the batch now.
    """
    release(tx, sink)
    _remove(tx, _outbox.sink == sink, _outbox.state == PENDING, _outbox.id <= rows[-1].id)
    return bool(following) and claim(tx, sink, following)


def bury(tx: store.Transaction, sink: str, row: Row, reason: str) -> None:
    """The batch is one record that the sink will never take: keep it as a dead letter."""
    release(tx, sink)
    if _remove(tx, _outbox.id == row.id):
        _insert(tx, [_row(sink, row.record, datetime.now(UTC)) | {"state": DEAD, "reason": reason}])
        tx.announce("outbox.dead", sink=sink, record=row.record.id, reason=reason)


def release(tx: store.Transaction, sink: str) -> None:
    """The batch as it was claimed will not be sent again."""
    tx.connection.execute(schema.outbox_batches.delete().where(_batches.sink == sink))


def dead_letters(connection: sa.Connection, sink: str, limit: int = ROWS) -> list[DeadLetter]:
    """A sink's dead letters, oldest first."""
    columns = (_outbox.id, _outbox.record, _outbox.kind, _outbox.payload, _outbox.reason, _outbox.created_at)
    query = sa.select(*columns).where(_outbox.sink == sink, _outbox.state == DEAD).order_by(_outbox.id).limit(limit)
    return [
        DeadLetter(id_, sink, model.Record(record, kind, payload), reason, created_at)
        for id_, record, kind, payload, reason, created_at in connection.execute(query)
    ]


def resend(tx: store.Transaction, sink: str) -> int:
    """Put the oldest dead letters of a sink at the end of its queue; how many, 0 when none is left.

    They get new places: their old ones may lie within the batch that is under way.
    """
    letters = dead_letters(tx.connection, sink)
    if letters:
        _remove(tx, _outbox.id.in_([letter.id for letter in letters]))
        now = datetime.now(UTC)
        _insert(tx, [_row(sink, letter.record, now) for letter in letters])
    tx.announce(f"outbox.resend.{sink}")
    return len(letters)


def trim(tx: store.Transaction, limit: int) -> int:
    """Remove the oldest samples where the outbox holds more than ``limit`` bytes; how many records went.

    Verdicts stay, and so does what a sink is being sent. Call it again until it says 0.
    """
    excess = depth_in_bytes(tx.connection) - limit
    if excess <= 0:
        return 0
    going: list[int] = []
    for id_, size in tx.connection.execute(_trimmable()):
        if excess <= 0:
            break
        going.append(id_)
        excess -= size
    return _remove(tx, _outbox.id.in_(going))


def _trimmable() -> sa.Select[int, int]:
    claimed = sa.and_(_batches.sink == _outbox.sink, _outbox.state == PENDING, _outbox.id <= _batches.upto)
    return (
        sa.select(_outbox.id, _outbox.size)
        .where(_outbox.kind == sa.literal_column("'samples'"), ~sa.exists().where(claimed))
        .order_by(_outbox.id)
        .limit(ROWS)
    )


def depths(connection: sa.Connection) -> list[Depth]:
    """How much lies in the outbox, by sink, kind and state; where there is nothing there is no row."""
    columns = (_depths.sink, _depths.kind, _depths.state, _depths.records, _depths.bytes)
    query = sa.select(*columns).where(_depths.records > 0).order_by(_depths.sink, _depths.kind, _depths.state)
    return [Depth(*row) for row in connection.execute(query)]


def depth_in_bytes(connection: sa.Connection) -> int:
    """The size of all payloads in the outbox, dead letters too."""
    return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(_depths.bytes), 0))) or 0)


def forget(tx: store.Transaction) -> None:
    """Remove all records, whatever they wait for, with the batches that were claimed of them."""
    tx.connection.execute(schema.outbox_batches.delete())
    _remove(tx, sa.true())


def _remove(tx: store.Transaction, *where: sa.ColumnElement[bool]) -> int:
    removed = _counted(tx, *where)
    tx.connection.execute(schema.outbox.delete().where(*where))
    _account(tx, removed, -1)
    return sum(depth.records for depth in removed)


def _insert(tx: store.Transaction, rows: Sequence[dict[str, object]]) -> None:
    newest = tx.connection.scalar(sa.select(sa.func.coalesce(sa.func.max(_outbox.id), 0)))
    tx.connection.execute(sqlalchemy.dialects.sqlite.insert(schema.outbox).on_conflict_do_nothing(), rows)
    _account(tx, _counted(tx, _outbox.id > newest), +1)  # without those that wait already; an id is never given again


def _counted(tx: store.Transaction, *where: sa.ColumnElement[bool]) -> list[Depth]:
    """How much there is of it: summed by the journal, which need not hand over each row for it."""
    by = (_outbox.sink, _outbox.kind, _outbox.state)
    query = sa.select(*by, sa.func.count(), sa.func.sum(_outbox.size)).where(*where).group_by(*by)
    return [Depth(*row) for row in tx.connection.execute(query)]


def _account(tx: store.Transaction, changed: Iterable[Depth], sign: int) -> None:
    """Add (+1) to the depths, or take away from them (-1)."""
    insert = sqlalchemy.dialects.sqlite.insert(schema.outbox_depths)
    upsert = insert.on_conflict_do_update(
        index_elements=[_depths.sink, _depths.kind, _depths.state],
        set_={"records": _depths.records + insert.excluded.records, "bytes": _depths.bytes + insert.excluded.bytes},
    )
    for depth in changed:
        signed = {"records": sign * depth.records, "bytes": sign * depth.bytes}
        tx.connection.execute(upsert, dataclasses.asdict(depth) | signed)


def _row(sink: str, record: model.Record, created_at: datetime) -> dict[str, object]:
    return {
        "sink": sink,
        "record": record.id,
        "kind": record.kind,
        "payload": record.text,
        "size": len(record.text.encode()),
        "state": PENDING,
        "reason": "",
        "created_at": created_at,
    }


def _pending(sink: str) -> sa.Select[int, int, str, str, str]:
    columns = (_outbox.id, _outbox.size, _outbox.record, _outbox.kind, _outbox.payload)
    return sa.select(*columns).where(_outbox.sink == sink, _outbox.state == PENDING).order_by(_outbox.id)


def _rows(result: Iterable[sa.Row[int, int, str, str, str]]) -> Iterator[Row]:
    for id_, size, record, kind, payload in result:
        yield Row(id_, size, model.Record(record, kind, payload))


def _within(connection: sa.Connection, query: sa.Select[int, int, str, str, str], size: int) -> list[Row]:
    """The first rows that are so many bytes together at most; one at least, where there is one."""
    found: list[Row] = []
    with connection.execution_options(yield_per=100).execute(query) as result:
        for row in _rows(result):
            size -= row.size
            if found and size < 0:
                break
            found.append(row)
    return found
