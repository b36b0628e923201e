"""Programs that people sent: what is measured of them, what of them is still needed, and the end of what nobody waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from aibenchd import model, settings
from aibenchd.plan import coverage
from aibenchd.store import again, builds, planning, requests, revisions, schema, store

_e, _p, _s = schema.experiments.c, schema.pairs.c, schema.submissions.c
_WAITS = sa.exists().where(_e.pair == _p.id, schema.UNDECIDED).correlate(schema.pairs)  # whether an experiment of a pair does


def plan(
    tx: store.Transaction,
    repository: settings.RepositorySettings,
    treatment: model.Revision,
    control: model.Revision | None,
    cells: Sequence[coverage.Cell],
    experiment: settings.ExperimentSettings,
    priority: int,
    requested_by: str,
) -> int:
    """Plan to measure programs that a person sent, in these cells; the number of the request.

    Args:
        control: None where the treatment is measured as it is.
    """
    request = requests.add(
        tx,
        repository=repository.name,
        treatment=treatment.commit,
        control=control.commit if control else "",
        benchmarks=sorted({cell.selected.benchmark.identifier for cell in cells}),
        devices=sorted({cell.device.name for cell in cells}),
        priority=priority,
        requested_by=requested_by,
    )
    revisions.remember(tx, [one for one in (treatment, control) if one is not None])
    commit = None if control is None else control.commit
    pair = again.new_pair(
        tx, repository.name, treatment.commit, commit, model.RunType.SUBMISSION, request=request, priority=priority
    )
    planning.add(tx, repository, pair, treatment.commit, commit, cells, experiment, priority, datetime.now(UTC), "")
    for one in (treatment, control):
        if one is not None:
            builds.rebuild_all(tx, repository.name, one.commit)  # which failed where it was not kept any more
    requests.granted(tx, request)
    return request


def add(tx: store.Transaction, *, request: int, uid: int, note: str, names: Mapping[str, str], specification: str) -> None:
    """Note who sent what was planned for a request; columns of :data:`aibenchd.store.schema.submissions`."""
    row = {"request": request, "uid": uid, "note": note, "names": dict(names), "specification": specification}
    tx.connection.execute(schema.submissions.insert().values(row))


def owner(connection: sa.Connection, request: int) -> int | None:
    """The user that sent the programs of a request; None where none were."""
    return connection.scalar(sa.select(_s.uid).where(_s.request == request))


def undecided(connection: sa.Connection) -> dict[int, int]:
    """How many requests whose programs were sent have experiments that have not ended, by the user that sent them."""
    waits = sa.exists().where(_p.request == _s.request, _WAITS).correlate(schema.submissions)  # not from all that waits here
    rows = connection.execute(sa.select(_s.uid, sa.func.count().label("sent")).where(waits).group_by(_s.uid))
    return {row.uid: row.sent for row in rows}


def needed(connection: sa.Connection) -> set[str]:
    """Digests of the programs that experiments may still run, and the names of the directories of their specifications."""
    rows = connection.execute(
        sa.select(_p.treatment, _p.control, _s.specification)
        .join(schema.submissions, _s.request == _p.request)
        .where(_p.repository == model.SUBMITTED, _WAITS)
    )
    return {name for row in rows for name in row if name}


def cancel(tx: store.Transaction, number: int, reason: str) -> list[tuple[int, str]]:
    """End all experiments of a request that have not ended; they, with their devices. One that is new is refused."""
    of_request = sa.select(_e.id).join(schema.pairs, _p.id == _e.pair).where(_p.request == number, schema.UNDECIDED)
    ended = (
        schema.experiments.update()
        .where(_e.id.in_(of_request))
        .values(state="cancelled", reason=reason, decided_at=datetime.now(UTC))
        .returning(_e.id, _e.device)
    )
    found = [(row.id, row.device) for row in tx.connection.execute(ended)]
    for experiment, _ in found:
        tx.announce("experiment.cancelled", id=experiment, reason=reason)
    new = sa.select(schema.requests.c.id).where(schema.requests.c.id == number, schema.requests.c.state == "new")
    if tx.connection.scalar(new) is not None:
        requests.refuse(tx, number, reason)
    return found
