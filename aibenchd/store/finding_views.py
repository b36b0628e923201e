"""What the status socket shows of findings: what regressed or broke, what measured it again, and what people made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from aibenchd.plan import suspicion
from aibenchd.store import paging, profiles, schema, second_looks, triage, views

_e, _p, _f = schema.experiments.c, schema.pairs.c, schema.findings.c

MEASURED_AGAIN, SEARCHED, PROFILED = "it is measured again", "its commits are searched", "it is profiled"  # that are to come
LEAST_TOLD = 0.005  # probability of a commit of which more is told than its id

_SIGHTINGS = (
    sa.select(sa.func.count())
    .where(schema.sightings.c.finding == _f.id)
    .correlate(schema.findings)
    .scalar_subquery()
    .label("sightings")
)


class FindingQuery(paging.Page):
    """Which findings. ``triage`` is what people made of them; ``none`` is nothing. ``benchmark`` as of experiments."""

    state: Literal["suspect", "refuted", "unconfirmed", "open", "accepted"] | None = None
    triage: Literal["none", "acknowledged", "muted"] | None = None
    device: str | None = None
    repository: str | None = None
    benchmark: str | None = None


def findings(connection: sa.Connection, query: FindingQuery) -> paging.Item:
    """What regressed or broke, newest first: each with the experiment that showed it, what measured it again, and its culprits.

    ``estimate``, ``low`` and ``high`` are of what measured it again, once that has blocks: what showed it first is biased, and
    is ``first_seen``. ``layout`` is the seed of the memory layout that the builds were made with to measure it again, if any.
    ``mended`` is the experiment that shows it to be gone; null where none does. ``commits``: by commit, what is known of those
    that its search has named.
    """
    made = None if query.triage is None else triage.NONE if query.triage == "none" else query.triage
    wanted = (
        (_f.state, query.state),
        (triage.of(datetime.now(UTC)), made),
        (_e.device, query.device),
        (_p.repository, query.repository),
    )
    select = _findings().where(*paging.equal(*wanted), *views.of_benchmark(query.benchmark))
    found = paging.page_of(connection, "findings", select, _f.id, query)
    _add_measured_again(connection, found["findings"])
    _add_triages(connection, found["findings"])
    _add_commits(connection, found["findings"])
    return found


def to_triage(connection: sa.Connection) -> int:
    """How many confirmed regressions are not mended, and nobody has made anything of."""
    untouched = (_f.state == suspicion.OPEN, _f.mended.is_(None), triage.of(datetime.now(UTC)) == triage.NONE)
    return connection.execute(sa.select(sa.func.count()).where(*untouched)).scalar_one()


def finding_states(connection: sa.Connection) -> dict[str, int]:
    """How many findings there are, by state, the mended ones of those that are open apart."""
    state = triage.shown_state().label("state")
    rows = connection.execute(sa.select(state, sa.func.count().label("findings")).group_by(state))
    return {row.state: row.findings for row in rows}


def finding(connection: sa.Connection, number: int) -> paging.Item | None:
    """One finding, whole; None where there is none.

    With what it is made of (``explained``, ``profile``), what people made of it (``triages``), its sightings, the experiments of
    its search, and by commit what is known of those that are named (``commits``).
    """
    row = connection.execute(_findings(_f.explained).where(_f.id == number)).mappings().one_or_none()
    if row is None:
        return None
    item = paging.item_of(row)
    _add_measured_again(connection, [item])
    _add_triages(connection, [item])
    sighted = sa.select(schema.sightings.c.experiment).where(schema.sightings.c.finding == number)
    seen_again = views.experiment_rows().where(_e.id.in_(sighted)).order_by(_e.id.desc())
    found = item["culprits"] or {}
    likely = {commit for commit, share in (found.get("by_commit") or {}).items() if share >= LEAST_TOLD}
    searched = views.experiment_rows().where(_e.finding == number).order_by(_e.id)
    return item | {
        "profile": profiles.of_finding(connection, number),
        "seen_again": views.experiments_by(connection, seen_again.limit(paging.LIMIT)),
        "experiments": views.experiments_by(connection, searched.limit(paging.LIMIT)),
        "commits": views.commits(connection, item["repository"], _named(found) | likely),
    }


def coming(connection: sa.Connection, item: paging.Item, *, searched: bool, profiled: bool) -> list[str]:
    """What is still to come of a finding with no one asking, as :func:`finding` has it; nothing once it is settled.

    Args:
        searched, profiled: whether the configuration has what is confirmed searched, and profiled.
    """
    if item["state"] == suspicion.SUSPECT:
        return [MEASURED_AGAIN]
    is_searched = item["state"] == suspicion.OPEN and searched and item["search"] in suspicion.UNSEARCHED
    is_stopped = item["state"] == suspicion.ACCEPTED and item["search"] == suspicion.RUNNING
    waits = profiles.is_awaited(item["profile"]) or (profiled and item["id"] in profiles.wanted(connection, datetime.now(UTC)))
    return [*([SEARCHED] if is_searched or is_stopped else []), *([PROFILED] if waits else [])]


def _add_commits(connection: sa.Connection, items: Sequence[paging.Item]) -> None:
    for repository in {item["repository"] for item in items}:
        named = {item["id"]: _named(item["culprits"] or {}) for item in items if item["repository"] == repository}
        known = views.commits(connection, repository, set().union(*named.values()))
        for item in items:
            if item["repository"] == repository:
                item["commits"] = {commit: known[commit] for commit in named[item["id"]] & known.keys()}


def _named(culprits: Mapping[str, Any]) -> set[str]:
    """The commits that a search names, and the merges that it looked into."""
    groups = culprits.get("culprits", ())
    own = {commit for group in groups for commit in (*group["commits"], *group.get("within", ()))}
    return own | {merge["commit"] for merge in culprits.get("merges", ())}


def _findings(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    of_experiment = (column for column in views.OF_EXPERIMENT if column.key not in ("id", "state", "reason"))
    own = (_f.id, _f.suspect, _f.state, _f.reason, _f.evidence, _f.search, _f.culprits, _f.mended, _f.found_at, _f.verified_at)
    made = (triage.of(datetime.now(UTC)).label("triage"), _f.muted_until, _SIGHTINGS)
    return (
        sa.select(*own, *made, *of_experiment, *more)
        .select_from(schema.findings)
        .join(schema.experiments, _e.id == _f.suspect)
        .join(schema.pairs, _p.id == _e.pair)
    )


def _add_measured_again(connection: sa.Connection, items: Sequence[paging.Item]) -> None:
    again = second_looks.measured(connection, [item["id"] for item in items])
    for item in items:
        first = {name: item[name] for name in ("estimate", "low", "high")}
        item |= {"first_seen": first, "verify": None, "layout": None} | again.get(item["id"], {})


def _add_triages(connection: sa.Connection, items: Sequence[paging.Item]) -> None:
    """What was made of each, the newest first; and with that, whether it is confirmed."""
    made = triage.history(connection, [item["id"] for item in items])
    for item in items:
        item["triages"] = [paging.item_of(one) for one in made[item["id"]]]
        item["confirmed"] = second_looks.is_confirmed(item["state"], item["triages"])
