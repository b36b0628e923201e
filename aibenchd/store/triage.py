"""What people make of findings: acknowledged, accepted as the new baseline, muted until a date, or opened again.

A finding that stands goes on collecting sightings, which alarm nobody, whatever was made of it. One that is *accepted* is closed:
its search ends, its commit is good again for ``last-good``, and what shows the same level later is a sighting of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import errors
from aibenchd.plan import suspicion
from aibenchd.store import schema, store

LIMIT = 1_000  # of what one look deals with, and of one finding's history
ACKNOWLEDGE, ACCEPT, MUTE, REOPEN = "acknowledge", "accept", "mute", "reopen"
TOLD = "acceptance told"  # of the journal as a whole: the number of the newest
LAPSE = "lapse"  # of a mute, which nobody does
NONE, ACKNOWLEDGED, MUTED = "", "acknowledged", "muted"  # of what stands
MENDED = "mended"  # counted apart from the open ones that it is one of
STANDING = (suspicion.OPEN, suspicion.UNCONFIRMED)
DONE = {ACKNOWLEDGE: ACKNOWLEDGED, ACCEPT: suspicion.ACCEPTED, MUTE: MUTED, REOPEN: "reopened", LAPSE: "reopened"}

_f, _t = schema.findings, schema.triages


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody makes of a finding; ``until`` is of a mute."""

    finding: int
    action: str
    by: str
    why: str
    until: datetime | None = None


def apply(transaction: store.Transaction, wanted: Wanted, now: datetime) -> None:
    """Do it, and keep who did.

    Raises:
        TriageError: it cannot be made of this finding; the message says why.
    """
    row = transaction.connection.execute(sa.select(_f).where(_f.c.id == wanted.finding)).one_or_none()
    if row is None:
        raise errors.TriageError(f"there is no finding {wanted.finding}")
    _check(wanted, row)
    _write(transaction, wanted, row.state, now, _values(transaction.connection, wanted, row))


def lapsed(connection: sa.Connection, now: datetime) -> list[int]:
    """Findings whose mute has ended."""
    ended = (_f.c.triage == MUTED, _f.c.muted_until <= now, _f.c.state.in_(STANDING))
    return list(connection.scalars(sa.select(_f.c.id).where(*ended).order_by(_f.c.id).limit(LIMIT)))


def lapse(transaction: store.Transaction, findings: Iterable[int], now: datetime) -> None:
    """Have findings stand again whose mute has ended."""
    for finding in findings:
        state = transaction.connection.execute(sa.select(_f.c.state).where(_f.c.id == finding)).scalar_one()
        wanted = Wanted(finding, LAPSE, "", "its mute has ended")
        _write(transaction, wanted, state, now, {"triage": NONE, "muted_until": None})


def history(connection: sa.Connection, findings: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """By finding, what was made of it, the newest first: ``action by why until at state``, the state that it had before."""
    query = sa.select(_t).where(_t.c.finding.in_(findings)).order_by(_t.c.id.desc()).limit(LIMIT)
    found: dict[int, list[dict[str, Any]]] = {finding: [] for finding in findings}
    for row in connection.execute(query).mappings():
        found[row["finding"]].append(dict(row))
    return found


@dataclass(frozen=True, slots=True)
class Accepted:
    """A confirmed regression that somebody took for the new baseline; ``number`` rises with each that was."""

    number: int
    finding: int
    by: str
    why: str


def accepted(connection: sa.Connection, since: datetime) -> list[Accepted]:
    """Those since then of which nobody was told yet, oldest first."""
    told = sa.select(sa.cast(schema.meta.c.value, sa.Integer)).where(schema.meta.c.key == TOLD).scalar_subquery()
    query = sa.select(_t.c.id, _t.c.finding, _t.c.by, _t.c.why).where(
        _t.c.id > sa.func.coalesce(told, 0), _t.c.at > since, _t.c.action == ACCEPT, _t.c.state == suspicion.OPEN
    )
    return [Accepted(*row) for row in connection.execute(query.order_by(_t.c.id).limit(LIMIT))]


def told(transaction: store.Transaction, number: int) -> None:
    """Whoever wants to know is told of all up to this one."""
    transaction.connection.execute(schema.meta.delete().where(schema.meta.c.key == TOLD))
    transaction.connection.execute(schema.meta.insert().values(key=TOLD, value=str(number)))


def of(now: datetime) -> sa.ColumnElement[str]:
    """What is made of a finding at a time: a mute that has ended is none, though nobody has looked yet."""
    return sa.case((sa.and_(_f.c.triage == MUTED, _f.c.muted_until <= now), NONE), else_=_f.c.triage)


def shown_state() -> sa.ColumnElement[str]:
    """A finding's state as it is counted: of those that are open, the mended ones apart."""
    return sa.case((sa.and_(_f.c.state == suspicion.OPEN, _f.c.mended.is_not(None)), MENDED), else_=_f.c.state)


def _check(wanted: Wanted, row: sa.Row[Any]) -> None:
    if wanted.action == REOPEN:
        if row.state != suspicion.ACCEPTED and row.triage == NONE:
            raise errors.TriageError(f"finding {row.id} is {row.state}: there is nothing to take back")
    elif row.state == suspicion.SUSPECT:
        raise errors.TriageError(f"finding {row.id} is a suspect that is measured again: wait for what that says")
    elif row.state not in STANDING:
        raise errors.TriageError(f"finding {row.id} is {row.state}" + _way_back(row.state))


def _way_back(state: str) -> str:
    return ": 'aibenchctl reopen' takes that back" if state == suspicion.ACCEPTED else ": nothing regressed"


def _values(connection: sa.Connection, wanted: Wanted, row: sa.Row[Any]) -> dict[str, Any]:
    match wanted.action:
        case "acknowledge":
            return {"triage": ACKNOWLEDGED, "muted_until": None}
        case "mute":
            return {"triage": MUTED, "muted_until": wanted.until}
        case "accept":
            return {"triage": NONE, "muted_until": None, "state": suspicion.ACCEPTED}
    opened: dict[str, Any] = {"triage": NONE, "muted_until": None}
    if row.state == suspicion.ACCEPTED:
        accepted = sa.select(_t.c.state).where(_t.c.finding == row.id, _t.c.action == ACCEPT).order_by(_t.c.id.desc()).limit(1)
        opened["state"] = connection.execute(accepted).scalar_one()
    if row.search == suspicion.STOPPED:
        opened["search"] = suspicion.NOT_YET
    return opened


def _write(transaction: store.Transaction, wanted: Wanted, state: str, now: datetime, values: dict[str, Any]) -> None:
    row = {"finding": wanted.finding, "action": wanted.action, "by": wanted.by, "why": wanted.why, "until": wanted.until}
    transaction.connection.execute(_f.update().where(_f.c.id == wanted.finding).values(values))
    transaction.connection.execute(_t.insert().values(row | {"state": state, "at": now}))
    transaction.announce(f"finding.{DONE[wanted.action]}", id=wanted.finding, by=wanted.by, why=wanted.why)
