"""The table of builds: who wants one, who makes one, which of them are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import schema, store

FRESH = 1  # the copy that was made anew, as the first one was
CANDIDATES = 1_000  # builds that are looked at in one eviction, least recently used first

_builds, _experiments, _revisions = schema.builds, schema.experiments, schema.revisions


@dataclass(frozen=True, slots=True)
class Key:
    """What is built; fields as in :class:`Entry`."""

    repository: str
    commit: str
    framework: str
    platform: str
    copy: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One row.

    Attributes:
        copy: 0, or of another build of the same revision, made by itself: 1, or the seed of the memory layout that it has.
        state: ``queued building built failed evicted``.
        digest, directory, program, size, meta: of a build that was built once. ``directory`` is an absolute path, and is
            there only while ``built``; ``program`` is relative to it; ``size`` is in bytes.
        log: path of its output, relative to the state directory; empty where there is none.
        reason: why it failed, or why it is not built yet.
    """

    id: int
    repository: str
    commit: str
    framework: str
    platform: str
    copy: int
    state: str
    priority: int
    digest: str
    directory: str
    program: str
    size: int
    log: str
    reason: str
    meta: model.JsonObject
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    used_at: datetime | None

    @property
    def key(self) -> Key:
        """What it is a build of, and which copy."""
        return Key(self.repository, self.commit, self.framework, self.platform, self.copy)

    @property
    def facts(self) -> dict[str, model.Json]:
        """What events say of it."""
        return {
            "id": self.id,
            "repository": self.repository,
            "commit": self.commit,
            "framework": self.framework,
            "platform": self.platform,
        }

    def __str__(self) -> str:
        again = f", layout {self.copy}" if layout_of(self.copy) else ", anew" if self.copy else ""
        return f"{self.repository} {self.commit[:12]} {self.framework}/{self.platform}{again}"


@dataclass(frozen=True, slots=True)
class Product:
    """What a build that succeeded left: its place in the cache, and what is recorded of it; fields as in :class:`Entry`."""

    digest: str
    directory: str
    program: str
    size: int
    meta: model.JsonObject


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction let go: ``directories`` to remove now, and how many bytes are ``left``."""

    directories: tuple[str, ...]
    left: int


def layout_of(copy: int) -> int:
    """The seed of a copy's memory layout; 0 where it is laid out as the first one."""
    return copy if copy > FRESH else 0


def want(transaction: store.Transaction, key: Key, priority: int) -> int:
    """Have a build: queued where it is new or was evicted, sooner where ``priority`` is larger than before; its id.

    One that failed stays failed: see :func:`rebuild`.
    """
    entry = _of_key(transaction.connection, key)
    if entry is None:
        entry = _insert(transaction.connection, key, priority)
        transaction.announce("build.queued", **entry.facts)
    elif entry.state == "evicted":
        _queue(transaction, entry, priority=max(priority, entry.priority))
    elif priority > entry.priority:
        _set(transaction, entry.id, priority=priority)
    return entry.id


def rebuild(transaction: store.Transaction, build: int) -> bool:
    """Try a failed build again, as a person asked; whether there is a failed one of that id."""
    entry = by_id(transaction.connection, build)
    if entry is None or entry.state != "failed":
        return False
    _queue(transaction, entry, priority=entry.priority)
    return True


def rebuild_all(transaction: store.Transaction, repository: str, commit: str) -> None:
    """Try all failed builds of a revision again."""
    failed = (_builds.c.repository == repository, _builds.c.commit == commit, _builds.c.state == "failed")
    for build in transaction.connection.scalars(sa.select(_builds.c.id).where(*failed)).all():
        rebuild(transaction, build)


def by_id(connection: sa.Connection, build: int) -> Entry | None:
    """One build, or None where there is none of that id."""
    return _entry(connection.execute(sa.select(_builds).where(_builds.c.id == build)).one_or_none())


def came_out_the_same(connection: sa.Connection, build: int) -> bool:
    """Whether a copy has the programs of its revision's first build, byte for byte, where there ever was one."""
    first, copy = _builds.alias("first"), _builds.alias("copy")
    alike = (first.c[name] == copy.c[name] for name in ("repository", "commit", "framework", "platform", "digest"))
    query = sa.select(first.c.id).join(copy, sa.and_(*alike)).where(copy.c.id == build, first.c.copy == 0, first.c.digest != "")
    return connection.execute(query).first() is not None


def touch(transaction: store.Transaction, digests: Collection[str]) -> None:
    """Note that the builds of these digests are used now, so that the cache lets go of others first."""
    transaction.connection.execute(
        _builds.update().where(_builds.c.state == "built", _builds.c.digest.in_(digests)).values(used_at=datetime.now(UTC))
    )


def next_of(connection: sa.Connection, repositories: Collection[str], resting: Collection[int]) -> Entry | None:
    """The build to make next, of ``repositories`` and without those ``resting``: highest priority, then newest revision."""
    query = (
        sa.select(_builds)
        .outerjoin(
            _revisions,
            sa.and_(_revisions.c.repository == _builds.c.repository, _revisions.c.commit == _builds.c.commit),
        )
        .where(_builds.c.state == "queued", _builds.c.repository.in_(repositories), _builds.c.id.not_in(resting))
        .order_by(_builds.c.priority.desc(), _revisions.c.time.desc().nulls_last(), _builds.c.id.desc())
        .limit(1)
    )
    return _entry(connection.execute(query).one_or_none())


def take(
    transaction: store.Transaction,
    repositories: Collection[str],
    resting: Collection[int],
    log_of: Callable[[Entry, datetime], str],
) -> Entry | None:
    """Begin the build that :func:`next_of` names; ``log_of`` says where its output will be."""
    queued = next_of(transaction.connection, repositories, resting)
    if queued is None:
        return None
    now = datetime.now(UTC)
    begun = dataclasses.replace(queued, state="building", started_at=now, log=log_of(queued, now))
    _set(transaction, begun.id, state=begun.state, started_at=now, finished_at=None, log=begun.log)
    transaction.announce("build.started", **begun.facts)
    return begun


def finish(transaction: store.Transaction, entry: Entry, product: Product) -> None:
    """A build succeeded."""
    _set(
        transaction,
        entry.id,
        state="built",
        digest=product.digest,
        directory=product.directory,
        program=product.program,
        size=product.size,
        meta=product.meta,
        reason="",
        finished_at=datetime.now(UTC),
        used_at=datetime.now(UTC),
    )
    transaction.announce("build.finished", **entry.facts, digest=product.digest)


def fail(transaction: store.Transaction, entry: Entry, reason: str) -> None:
    """A revision does not build; said once, and not tried again unless a person asks."""
    _set(transaction, entry.id, state="failed", reason=reason, finished_at=datetime.now(UTC))
    transaction.announce("build.failed", **entry.facts, reason=reason)


def put_back(transaction: store.Transaction, entry: Entry, reason: str) -> None:
    """A build could not be made, and that is not its revision's fault: it waits again."""
    _set(transaction, entry.id, state="queued", reason=reason, started_at=None)
    transaction.announce("build.postponed", **entry.facts, reason=reason)


def sweep(transaction: store.Transaction) -> tuple[str, ...]:
    """Put back what an earlier process left in the making; the repositories whose work trees may still lie about."""
    left = transaction.connection.execute(sa.select(_builds).where(_builds.c.state == "building")).all()
    entries = [Entry(**row._asdict()) for row in left]
    for entry in entries:
        put_back(transaction, entry, "interrupted when aibenchd stopped")
    return tuple(sorted({entry.repository for entry in entries}))


def kept(connection: sa.Connection) -> dict[str, int]:
    """All directories that are in the cache by the journal's word, with their builds; as many as the cache's size allows."""
    rows = connection.execute(sa.select(_builds.c.directory, _builds.c.id).where(_builds.c.state == "built"))
    return {row.directory: row.id for row in rows}


def lose(transaction: store.Transaction, builds: Iterable[int]) -> None:
    """The directories of these builds are gone."""
    for build in builds:
        _set(transaction, build, state="evicted", directory="", reason="its directory was gone from the cache")


def evict(transaction: store.Transaction, limit: int) -> Evicted:
    """Let go of the least recently used builds until those left have ``limit`` bytes together.

    What an experiment that waits or is open needs is never let go, so that more than ``limit`` may be left.
    """
    left = transaction.connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(_builds.c.size), 0)).where(_builds.c.state == "built")
    ).scalar_one()
    directories = []
    for entry in _unused(transaction.connection):
        if left <= limit:
            break
        _set(transaction, entry.id, state="evicted", directory="", reason="")
        transaction.announce("build.evicted", **entry.facts)
        directories.append(entry.directory)
        left -= entry.size
    return Evicted(tuple(directories), left)


def _unused(connection: sa.Connection) -> list[Entry]:
    last_use = sa.func.coalesce(_builds.c.used_at, _builds.c.finished_at)
    rows = connection.execute(
        sa.select(_builds)
        .where(_builds.c.state == "built", *(~_needed_as(arm) for arm in ("treatment_build", "control_build")))
        .order_by(last_use, _builds.c.id)
        .limit(CANDIDATES)
    )
    return [Entry(**row._asdict()) for row in rows]


def _needed_as(arm: str) -> sa.Exists:
    return sa.exists().where(_experiments.c[arm] == _builds.c.id, _experiments.c.state.in_(schema.UNDECIDED_STATES))


def _of_key(connection: sa.Connection, key: Key) -> Entry | None:
    same = (_builds.c[name] == value for name, value in dataclasses.asdict(key).items())
    return _entry(connection.execute(sa.select(_builds).where(*same)).one_or_none())


def _insert(connection: sa.Connection, key: Key, priority: int) -> Entry:
    inserted = _builds.insert().values(**dataclasses.asdict(key), state="queued", priority=priority, queued_at=datetime.now(UTC))
    return Entry(*connection.execute(inserted.returning(_builds)).one())


def _queue(transaction: store.Transaction, entry: Entry, priority: int) -> None:
    _set(transaction, entry.id, state="queued", reason="", priority=priority, queued_at=datetime.now(UTC), started_at=None)
    transaction.announce("build.queued", **entry.facts)


def _set(transaction: store.Transaction, build: int, **values: object) -> None:
    transaction.connection.execute(_builds.update().where(_builds.c.id == build).values(**values))


def _entry(row: sa.Row[tuple[Any, ...]] | None) -> Entry | None:
    return None if row is None else Entry(**row._asdict())
