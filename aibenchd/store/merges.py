"""Merges that a search looks into: what they brought in, once a clone has told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import revisions, schema, store

STATE = "side"  # of the revisions that a merge brought in
AT_ONCE = 10_000  # commits that one question names: SQLite takes 32,766 parameters

_m, _r = schema.merges, schema.revisions

Sides: TypeAlias = dict[tuple[str, str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Known:
    """Merges on a line, and on the lines that they brought in; attributes as of :class:`aibenchd.plan.inside.History`."""

    merges: frozenset[str]
    sides: Sides

    def commits(self, line: Sequence[str]) -> frozenset[str]:
        """All that is on ``line`` and on the lines that merges brought in."""
        return frozenset(line).union(*(side for sides in self.sides.values() for side in sides))


def put(
    transaction: store.Transaction, repository: str, merge: str, onto: str, sides: Sequence[Sequence[model.Revision]]
) -> None:
    """What a merge brought in: lines as :meth:`aibenchd.watch.base.Repository.sides` gives them.

    Of a line, only what path filters let through may be at fault, and a line without it is left out.
    """
    kept = [[line[0], *(one for one in line[1:] if one.relevant)] for line in sides]
    searched = [line for line in kept if len(line) > 1]
    revisions.remember(transaction, (one for line in searched for one in line), STATE)
    named = [[one.commit for one in line] for line in searched]
    transaction.connection.execute(_m.insert().values(repository=repository, commit=merge, onto=onto, sides=named))


def known(connection: sa.Connection, repository: str, line: Sequence[str]) -> Known:
    """The merges on a line of commits and, where they were looked into, on the lines that they brought in; and so on."""
    merges: set[str] = set()
    sides: Sides = {}
    commits: Collection[str] = line
    while commits:
        found = _merges(connection, repository, commits)
        told = _sides(connection, repository, found)
        merges |= found
        sides |= told
        commits = {commit for lines in told.values() for side in lines for commit in side[1:]}
    return Known(frozenset(merges), sides)


def parts(commits: Collection[str]) -> Iterator[Sequence[str]]:
    """As many as one question may name, until all have been."""
    ordered = list(commits)
    return (ordered[at : at + AT_ONCE] for at in range(0, len(ordered), AT_ONCE))


def _merges(connection: sa.Connection, repository: str, commits: Collection[str]) -> set[str]:
    own = sa.select(_r.c.commit, _r.c.parents).where(_r.c.repository == repository)
    rows = (row for some in parts(commits) for row in connection.execute(own.where(_r.c.commit.in_(some))))
    return {row.commit for row in rows if len(row.parents) > 1}


def _sides(connection: sa.Connection, repository: str, merges: Collection[str]) -> Sides:
    own = sa.select(_m).where(_m.c.repository == repository)
    rows = (row for some in parts(merges) for row in connection.execute(own.where(_m.c.commit.in_(some))))
    return {(row.commit, row.onto): row.sides for row in rows}
