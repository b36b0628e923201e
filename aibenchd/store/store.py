"""The journal: one SQLite file, one writer thread, many readers.

A write is a function that runs inside a transaction; when :meth:`Store.write` returns, its effect is on the disk
(WAL, ``synchronous=FULL``). Writes that wait at the same time share one commit, each behind a savepoint of its own,
so that one which fails takes no other with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.from_thread
import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import errors, events, model
from aibenchd.store import schema

T = TypeVar("T")

READERS = 4  # threads, each with a connection of its own
GROUP = 64  # writes in one commit at most
QUEUE_BOUND = 10_000  # writes that wait; more wait in their callers
BUSY_SECONDS = 10

log = structlog.get_logger()


class Transaction:
    """What a write works with: ``connection`` for SQL, :meth:`announce` for what others should hear of once it is durable."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.announced: list[events.Event] = []

    def announce(self, topic: str, **facts: model.Json) -> None:
        """Publish an event when, and only when, this transaction is on the disk."""
        self.announced.append(events.Event(topic, facts))


class _Job:
    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
        self.done: Future[Any] = Future()


class Store:
    """Open it with :func:`opened`. Safe to use from any task of one event loop."""

    def __init__(self, path: Path, told: events.Events) -> None:
        self.path = path
        self.events = told
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", pool_size=1)
        self._reader = _engine(path, begin="BEGIN", pool_size=READERS)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE_BOUND)
        self._limiter = anyio.CapacityLimiter(READERS)
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction on the writer thread; returns its result once it is durable.

        Not cancellable: a commit takes milliseconds, and nobody should have to wonder whether it happened.
        What ``work`` raises is raised here, and nothing of it is kept.

        Raises:
            StoreError: the file cannot be written (full disk, damage).
        """
        job = _Job(work)
        result: T
        with anyio.CancelScope(shield=True):
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                await anyio.to_thread.run_sync(self._jobs.put, job)
            result, announced = await _outcome(job.done)
        for event in announced:
            self.events.publish(event)
        return result

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run ``query`` on a reader thread, in a read transaction that sees one state of the journal."""

        def run() -> T:
            with self._reader.connect() as connection:
                return query(connection)

        return await anyio.to_thread.run_sync(run, limiter=self._limiter)

    async def backup(self, target: Path) -> None:
        """Copy the live journal into a new file, whole and consistent, while writes go on.

        Raises:
            StoreError: ``target`` exists or cannot be written.
        """
        await anyio.to_thread.run_sync(_backup, self.path, target)

    def start(self) -> None:
        """Begin to write: what was asked for before has waited until now."""
        self._thread.start()

    def close(self) -> None:
        """Finish the writes that wait, then let go of the file."""
        self._jobs.put(None)
        self._thread.join()
        self._writer.dispose()
        self._reader.dispose()

    def _write_all(self) -> None:
        last = False
        while not last:
            group = list(self._next_group())
            last = None in group
            jobs = [job for job in group if job is not None]
            if jobs:
                self._commit(jobs)

    def _next_group(self) -> Iterator[_Job | None]:
        yield self._jobs.get()
        with contextlib.suppress(queue.Empty):
            for _ in range(GROUP - 1):
                yield self._jobs.get_nowait()

    def _commit(self, jobs: list[_Job]) -> None:
        finished: list[tuple[_Job, Any, list[events.Event]]] = []
        try:
            with self._writer.begin() as connection:
                for job in jobs:
                    transaction = Transaction(connection)
                    try:
                        with connection.begin_nested():
                            result = job.work(transaction)
                    except Exception as error:  # noqa: BLE001  it is the caller's, and is raised there
                        job.done.set_exception(_explained(error))
                    else:
                        finished.append((job, result, transaction.announced))
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            log.exception("journal cannot be written")
            for job, _, _ in finished:
                job.done.set_exception(_explained(error))
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(_explained(error))
            return
        for job, result, announced in finished:
            job.done.set_result((result, announced))


@contextlib.asynccontextmanager
async def opened(path: Path, told: events.Events) -> AsyncIterator[Store]:
    """The journal at ``path``, made if it is not there, brought up to date if it is older.

    Raises:
        StoreError: it is newer than this program, damaged, or not writable.
    """
    await anyio.to_thread.run_sync(prepare, path)
    store = Store(path, told)
    store.start()
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(store.close)


def prepare(path: Path) -> None:
    """Create or upgrade the file; alembic is imported only where there is something to do.

    Raises:
        StoreError: as :func:`opened`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        version = _version(path)
    except sqlite3.Error as error:
        raise errors.StoreError(
            f"{path}: not a usable journal: {error}; restore it with a copy made by 'aibenchctl backup'"
        ) from error
    if version == schema.VERSION:
        return
    if version is not None and version > schema.VERSION:
        raise _newer(path, version)
    from aibenchd.store import migrations

    if version is not None:
        migrations.keep_copy(path)
    migrations.upgrade(path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sa.Connection]:
    """One state of the journal at ``path``, whether a daemon writes to it meanwhile or none runs; nothing is changed. Blocking.

    Raises:
        StoreError: it is not there, of another version, damaged, or may not be read; or a daemon began to write where none did.
    """
    if not os.path.exists(path):  # noqa: PTH110  which takes what may not be seen for absent
        raise errors.StoreError(f"{path}: there is no journal, or this user may not see it; a daemon makes it")
    at_rest = not _log_of(path).exists()
    # Where nobody writes there is no log, and SQLite would make one, which it leaves behind: a reader says that nothing changes.
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if at_rest else {})
    location = sa.URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query=query)
    engine = _begun(sa.create_engine(location, poolclass=sa.pool.NullPool, connect_args={"timeout": BUSY_SECONDS}), "BEGIN")
    try:
        with engine.connect() as connection:
            _check_version(path, _version_of(connection))
            yield connection
    except sa.exc.DatabaseError as error:
        raise errors.StoreError(f"{path}: the journal cannot be read: {error.orig}") from error
    if at_rest and _log_of(path).exists():
        raise errors.StoreError(f"{path}: a daemon began to write to it while it was read; try again")


def _log_of(path: Path) -> Path:
    """Where SQLite writes first, as long as somebody has the journal open to write."""
    return path.with_name(path.name + "-wal")


def _version_of(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _check_version(path: Path, version: str | None) -> None:
    """Whether a reader of this program understands it."""
    if version is None:
        raise errors.StoreError(f"{path}: this is no journal of aibenchd's")
    if version < schema.VERSION:
        raise errors.StoreError(
            f"{path}: written by an older aibenchd (schema {version}, this one reads {schema.VERSION}); "
            "the daemon of this version brings it up to date when it starts"
        )
    if version > schema.VERSION:
        raise _newer(path, version)


def _newer(path: Path, version: str) -> errors.StoreError:
    return errors.StoreError(
        f"{path}: written by a newer aibenchd (schema {version}, this one knows {schema.VERSION}); "
        "install that version again, or give this one another state_directory"
    )


def _version(path: Path) -> str | None:
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def _engine(path: Path, *, begin: str, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would otherwise begin transactions of its own, and break savepoints
        # temp_store: a statement that fires triggers can be undone by itself, and what that takes need not touch the disk
        # secure_delete: some builds of SQLite write zeros over what is deleted, which doubles what a commit writes
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "secure_delete=OFF"):
            connection.execute(f"PRAGMA {pragma}")

    return _begun(engine, begin)


def _begun(engine: sa.Engine, begin: str) -> sa.Engine:
    """With transactions that begin so."""

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def _outcome(done: Future[Any]) -> Any:
    finished = anyio.Event()
    token, own = anyio.lowlevel.current_token(), threading.get_ident()

    def wake(_: Future[Any]) -> None:
        # Where it is done already it is called here, on the loop's thread, which must not wait for itself.
        if threading.get_ident() != own:
            _wake(finished, token)

    done.add_done_callback(wake)
    if not done.done():
        await finished.wait()
    return done.result()


def _wake(finished: anyio.Event, token: anyio.lowlevel.EventLoopToken) -> None:
    with contextlib.suppress(anyio.RunFinishedError):
        anyio.from_thread.run_sync(finished.set, token=token)


def _explained(error: Exception) -> Exception:
    if isinstance(error, sa.exc.OperationalError | sqlite3.OperationalError):
        return errors.StoreError(f"the journal cannot be written: {error}; look at the disk it lies on")
    return error


def _backup(source: Path, target: Path) -> None:
    if target.exists():
        raise errors.StoreError(f"{target} exists; name a new file")
    try:
        with contextlib.closing(sqlite3.connect(source)) as live, contextlib.closing(sqlite3.connect(target)) as copy:
            live.backup(copy)  # in one step: in several, each write between two would begin it anew
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise errors.StoreError(f"{target}: the copy failed: {error}") from error
