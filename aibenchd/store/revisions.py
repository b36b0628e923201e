"""Revisions of watched repositories: what the watcher writes, and the bounded windows that others read.

A repository's ``head`` is the newest revision down from which its line is recorded without a gap. Revisions above it
belong to a batch that is still being written, and no window shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from aibenchd import model
from aibenchd.store import schema, store

_revisions, _repositories = schema.revisions, schema.repositories

REVIVED = ("gone", "asked", "side")  # states that a revision leaves when the line comes to it
KEPT = ("planned",)  # states that a revision stays in when the line leaves it


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a repository has been read. ``head`` is empty where its whole line was rewritten; ``position`` is head's."""

    head: str
    position: int
    first: int


@dataclass(frozen=True, slots=True)
class Known:
    """A revision and what the journal says of it; ``state`` as :mod:`aibenchd.store.schema` lists them."""

    revision: model.Revision
    state: str
    note: str
    on_branch: bool


def progress(connection: sa.Connection, repository: str) -> Progress | None:
    """How far ``repository`` has been read; None where it never was."""
    head = sa.and_(_revisions.c.repository == _repositories.c.name, _revisions.c.commit == _repositories.c.head)
    row = connection.execute(
        sa.select(_repositories.c.head, _repositories.c.first, sa.func.coalesce(_revisions.c.position, 0).label("position"))
        .outerjoin_from(_repositories, _revisions, head)
        .where(_repositories.c.name == repository)
    ).one_or_none()
    return None if row is None else Progress(row.head, row.position, row.first)


def record(transaction: store.Transaction, found: Sequence[tuple[model.Revision, str]]) -> int:
    """Write revisions of one repository's line, each with the state it begins in; how many of them are ``new`` by it.

    One that is known stays in its state, unless the line had left it and now comes back to it.
    At most a few hundred at a time.
    """
    if not found:
        return 0
    repository = found[0][0].repository
    states = _states(transaction.connection, repository, [revision.commit for revision, _ in found])
    now = datetime.now(UTC)
    unknown = [_row(revision, state, now, on_branch=True) for revision, state in found if revision.commit not in states]
    if unknown:
        transaction.connection.execute(_revisions.insert(), unknown)
    for revision, state in found:
        if revision.commit in states:
            _come_back(transaction, revision, state if states[revision.commit] in REVIVED else states[revision.commit])
    return sum(state == "new" and states.get(revision.commit, "gone") in REVIVED for revision, state in found)


def advance(transaction: store.Transaction, repository: str, head: str, *, first: int | None = None) -> None:
    """The line is recorded down from ``head``; ``first`` is the position that watching begins at, where it begins."""
    values: dict[str, object] = {"head": head, "polled_at": datetime.now(UTC)}
    if first is not None:
        values["first"] = first
    changed = transaction.connection.execute(_repositories.update().where(_repositories.c.name == repository).values(values))
    if not changed.rowcount:
        transaction.connection.execute(_repositories.insert().values(name=repository, **values))


def retreat(transaction: store.Transaction, repository: str, joint: Known | None) -> int:
    """The line was rewritten above ``joint``, or all of it: what it left is no longer on it; how many revisions.

    They are ``gone``, but for those that are planned, which keep their verdicts.
    """
    left = [_revisions.c.repository == repository, _revisions.c.on_branch]
    if joint is not None:
        left.append(_revisions.c.position > joint.revision.position)
    state = sa.case((_revisions.c.state.in_(KEPT), _revisions.c.state), else_="gone")
    changed = transaction.connection.execute(_revisions.update().where(*left).values(on_branch=False, state=state))
    advance(transaction, repository, "" if joint is None else joint.revision.commit)
    return changed.rowcount


def remember(transaction: store.Transaction, named: Iterable[model.Revision], state: str = "asked") -> None:
    """See that revisions which a person named are known, or others that begin in a ``state``, though on no watched line."""
    now = datetime.now(UTC)
    rows = [_row(revision, state, now, on_branch=False) for revision in named]
    if rows:  # at once: a merge may bring in thousands, and blocks wait to be written
        transaction.connection.execute(sqlite.insert(_revisions).on_conflict_do_nothing(), rows)


def newest_pending(connection: sa.Connection, repository: str, limit: int) -> list[Known]:
    """Revisions in state ``new``, newest first."""
    return _window(connection, repository, limit, _revisions.c.state == "new")


def recent(connection: sa.Connection, repository: str, limit: int) -> list[Known]:
    """The watched line, newest first."""
    return _window(connection, repository, limit)


def _window(connection: sa.Connection, repository: str, limit: int, *conditions: sa.ColumnElement[bool]) -> list[Known]:
    read = progress(connection, repository)
    if read is None:
        return []
    line = (_revisions.c.repository == repository, _revisions.c.on_branch, _revisions.c.position <= read.position)
    rows = connection.execute(sa.select(_revisions).where(*line, *conditions).order_by(_revisions.c.position.desc()).limit(limit))
    return [_known(row) for row in rows]


def _states(connection: sa.Connection, repository: str, commits: Sequence[str]) -> dict[str, str]:
    """State by commit, of those that are known."""
    rows = connection.execute(
        sa.select(_revisions.c.commit, _revisions.c.state).where(
            _revisions.c.repository == repository, _revisions.c.commit.in_(commits)
        )
    )
    return {row.commit: row.state for row in rows}


def _come_back(transaction: store.Transaction, revision: model.Revision, state: str) -> None:
    this = (_revisions.c.repository == revision.repository, _revisions.c.commit == revision.commit)
    values = {"position": revision.position, "relevant": revision.relevant, "on_branch": True, "state": state}
    transaction.connection.execute(_revisions.update().where(*this).values(values))


def _row(revision: model.Revision, state: str, seen_at: datetime, *, on_branch: bool) -> dict[str, object]:
    return {
        "repository": revision.repository,
        "commit": revision.commit,
        "parents": list(revision.parents),
        "time": revision.time,
        "author": revision.author,
        "subject": revision.subject,
        "position": revision.position,
        "relevant": revision.relevant,
        "on_branch": on_branch,
        "state": state,
        "seen_at": seen_at,
    }


def one(connection: sa.Connection, repository: str, commit: str) -> model.Revision:
    """A revision that the journal refers to, by its full id, whether or not it is still on the line."""
    wanted = (_revisions.c.repository == repository, _revisions.c.commit == commit)
    return _known(connection.execute(sa.select(_revisions).where(*wanted)).one()).revision


def of_row(columns: Mapping[Any, Any], table: sa.FromClause = _revisions) -> model.Revision:
    """The revision in a row that has the columns of the table, or of an alias of it."""
    c = table.c
    return model.Revision(
        repository=columns[c.repository],
        commit=columns[c.commit],
        time=columns[c.time],
        parents=tuple(columns[c.parents]),
        author=columns[c.author],
        subject=columns[c.subject],
        position=columns[c.position],
        relevant=columns[c.relevant],
    )


def _known(row: sa.Row[tuple[object, ...]]) -> Known:
    columns = row._mapping
    return Known(of_row(columns), columns[_revisions.c.state], columns[_revisions.c.note], columns[_revisions.c.on_branch])


def newest_built(connection: sa.Connection, repository: str, framework: str, platform: str) -> model.Revision | None:
    """The newest revision of a repository that has been built for a platform; those on the watched line first."""
    table = schema.builds
    same = sa.and_(_revisions.c.repository == table.c.repository, _revisions.c.commit == table.c.commit)
    commit = connection.scalar(
        sa.select(table.c.commit)
        .join(_revisions, same)
        .where(
            table.c.repository == repository,
            table.c.framework == framework,
            table.c.platform == platform,
            table.c.state.in_(("built", "evicted")),
        )
        .order_by(_revisions.c.on_branch.desc(), _revisions.c.position.desc())
        .limit(1)
    )
    return None if commit is None else one(connection, repository, commit)
