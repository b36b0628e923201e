"""What came of measuring again what a finding suspects. A verdict is a first look's; only what measures it again confirms it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import paging, schema, triage

SUSPECTED = (model.Verdict.REGRESSED, model.Verdict.BROKEN)  # verdicts of experiments that findings may begin with

_e, _p, _f = schema.experiments.c, schema.pairs.c, schema.findings.c


def add(connection: sa.Connection, experiments: Sequence[paging.Item]) -> None:
    """Give each experiment its ``second_look``; null where no finding began with it.

    It has the number of the ``finding``, its ``state`` and whether it is ``confirmed``; the experiment that measures it again
    (``verify``) and what that says so far (``estimate low high``), null where there is none yet.
    """
    suspected = [item["id"] for item in experiments if item["verdict"] in SUSPECTED]
    found = connection.execute(sa.select(_f.id, _f.suspect, _f.state).where(_f.suspect.in_(suspected))).all() if suspected else []
    again = measured(connection, [row.id for row in found])
    made = triage.history(connection, [row.id for row in found if row.state == suspicion.ACCEPTED])
    nothing = {"verify": None, "estimate": None, "low": None, "high": None}
    looks = {
        row.suspect: {"finding": row.id, "state": row.state, "confirmed": is_confirmed(row.state, made.get(row.id, ()))}
        | {name: again.get(row.id, nothing).get(name) for name in nothing}
        for row in found
    }
    for item in experiments:
        item["second_look"] = looks.get(item["id"])


def measured(connection: sa.Connection, findings: Sequence[int]) -> dict[int, paging.Item]:
    """By finding, the experiment that measures it again (``verify``, ``layout``), and ``estimate low high`` once that has any."""
    rows = connection.execute(
        sa.select(_e.finding, _e.id, _e.estimate, _e.low, _e.high, _e.design["layout"].as_integer().label("layout"))
        .join(schema.pairs, _p.id == _e.pair)
        .where(_e.finding.in_(findings), _p.run_type == model.RunType.VERIFY)
        .order_by(_e.id)
    )
    return {
        row.finding: {"verify": row.id, "layout": row.layout or None}
        | ({} if row.estimate is None else {"estimate": row.estimate, "low": row.low, "high": row.high})
        for row in rows
    }


def is_confirmed(state: str, triages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a finding is; one that was accepted, where it was before. ``triages`` are what was made of it, newest first."""
    if state != suspicion.ACCEPTED:
        return state == suspicion.OPEN
    before = next(
        (one["state"] for one in triages if one["action"] == triage.ACCEPT), None
    )  # none: of many, older ones are not read
    return bool(before == suspicion.OPEN)
