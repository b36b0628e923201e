"""What follows from a bad verdict: the suspect, what measures it again, and the search for the commits at fault."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import again, builds, experiments, schema, store

RECENT = 100_000  # experiments, the newest, among which suspects are looked for
LIMIT = 1_000  # of what one look deals with
PRIORITY = 200  # of what measures them again: above what is measured with no one asking; a person's request goes before
NO_WORSE = (model.Verdict.UNCHANGED, model.Verdict.IMPROVED, model.Verdict.IDENTICAL)
OF_COMMITS = (model.RunType.BENCHMARK, model.RunType.ANCHOR)  # what is measured with no one asking

_e, _p, _f, _r, _b = schema.experiments, schema.pairs, schema.findings, schema.revisions, schema.blocks
# Of an open finding: its suspect, the pair of that, and where both of its commits are; and where those of an experiment are.
_suspect, _own, _its_newer, _its_older = _e.alias("suspect"), _p.alias("own"), _r.alias("its_newer"), _r.alias("its_older")
_newer, _older = _r.alias("newer"), _r.alias("older")
_SEEN = sa.or_(
    sa.exists().where(_f.c.suspect == _e.c.id).correlate(_e),
    sa.exists().where(schema.sightings.c.experiment == _e.c.id).correlate(_e),
)


@dataclass(frozen=True, slots=True)
class Verified:
    """A suspect, and how what measures it again ended or stands.

    Attributes:
        suspect, verify: the experiment that showed it, and the newest one that measures it again.
        state, verdict, reason: of that one.
        blocks: that were valid.
        unmoved: the arms whose builds were to have another memory layout and came out as the first ones.
        earlier: the logarithm of the e-value of those that measured it again before; independent ones multiply.
    """

    finding: int
    suspect: int
    of: suspicion.Range
    device: str
    verify: int
    state: str
    verdict: model.Verdict | None
    reason: str
    estimate: float | None
    low: float | None
    high: float | None
    design: model.Design
    blocks: Sequence[experiments.Journalled]
    unmoved: Sequence[model.ArmName] = ()
    earlier: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it has been measured again, or never will be."""
        return self.state not in schema.UNDECIDED_STATES

    @property
    def slower(self) -> bool:
        """Whether it is the time that shows it."""
        return suspicion.slower(self.verdict, self.low)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A finding that was confirmed: by the experiment ``verify``, on so much ``evidence`` (as in the journal), made of what is
    ``explained``."""

    finding: int
    verify: int
    evidence: float | None
    explained: model.JsonObject | None


@dataclass(frozen=True, slots=True)
class Mend:
    """A finding that is gone, by what an ``experiment`` of a later ``commit`` shows."""

    finding: int
    experiment: int
    commit: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A finding that may be gone: what a later commit shows against one ``before`` the finding would tell."""

    finding: int
    cell: suspicion.Cell
    commit: str
    before: str


@dataclass(frozen=True, slots=True)
class Mends:
    """Those that were seen, in what was decided ``until``."""

    mends: list[Mend]
    until: datetime


@dataclass(frozen=True, slots=True)
class Family:
    """The comparisons of one commit among which alarms are chosen.

    Attributes:
        earlier: the logarithms of the e-values of findings that have been settled.
        findings: how many there are, settled or not.
        undecided: the devices of what may become findings yet.
    """

    earlier: Sequence[float]
    findings: int
    undecided: Sequence[str]

    @property
    def size(self) -> int:
        """At most."""
        return self.findings + len(self.undecided)


def unseen(connection: sa.Connection) -> list[suspicion.Suspect]:
    """What turned out bad with no one asking and is neither a finding nor a sighting of one yet, oldest first."""
    newest = sa.select(sa.func.max(_e.c.id)).scalar_subquery()
    rows = connection.execute(
        suspects()
        .where(
            _e.c.verdict.in_(suspicion.BAD),
            _e.c.id > newest - RECENT,
            _p.c.request.is_(None),
            _p.c.run_type.in_(OF_COMMITS),
            ~_SEEN,
        )
        .order_by(_e.c.id)
        .limit(LIMIT)
    )
    return [suspect_of(row) for row in rows]


def known(connection: sa.Connection, cell: suspicion.Cell) -> list[suspicion.Known]:
    """The findings in a cell that stand, wait to be confirmed, or are accepted; newest first."""
    # First by the indices alone: a cell has many experiments, and few of them are suspects.
    own = sa.select(_f.c.suspect).join(_e, _e.c.id == _f.c.suspect).where(*_in(cell))
    rows = connection.execute(
        suspects(_f.c.id.label("finding"), _f.c.state, _f.c.search, _f.c.culprits, _f.c.explained)
        .join(_f, _f.c.suspect == _e.c.id)
        .where(
            _e.c.id.in_(own),
            _f.c.state.in_(suspicion.EXPLAINS),
            _p.c.repository == cell.repository,
        )
        .order_by(_f.c.id.desc())
        .limit(LIMIT)
    ).all()
    effects = _confirmed_effects(connection, [row.finding for row in rows if row.state != suspicion.SUSPECT])
    places = _positions(connection, cell.repository, [commit for row in rows for commit in _culprits(row)])
    return [_known(row, effects.get(row.finding), places) for row in rows]


def _known(row: sa.Row[Any], whole: suspicion.Effect | None, places: Mapping[str, int]) -> suspicion.Known:
    suspect, culprits = suspect_of(row), _culprits(row)
    within = (row.explained or {}).get("findings")
    own = suspicion.Effect(**within["left"]) if within and whole else whole
    named = [places[commit] for commit in culprits if commit in places]
    by_commit = {commit: math.log1p(effect) for commit, effect in culprits.items() if effect is not None and commit in places}
    if own and not by_commit:
        by_commit = {suspect.of.treatment: math.log1p(own.estimate)}
    # What is accepted before its search has named anything is accepted with all that lies within its commits.
    ended = bool(named) or (row.state != suspicion.ACCEPTED and row.search not in suspicion.UNSEARCHED)
    confirmed = own if suspect.slower else None
    return suspicion.Known(row.finding, suspect, confirmed, named if ended else None, by_commit, within["of"] if within else ())


def _culprits(row: sa.Row[Any]) -> dict[str, float | None]:
    """The commits at fault that a search has found, as they are on the branch, with the effect of each where it is known.

    Of what a merge brought in all commits at fault add up to its effect, but for those within one that is named itself, whose
    effect has theirs in it.
    """
    found = (row.culprits or {}).get("culprits", ()) if row.search == suspicion.FOUND else ()
    named = {commit for one in found for commit in one["commits"]}
    effects: dict[str, float | None] = {}
    for one in found:
        place = next(iter(one.get("within", ())), one["commits"][-1])
        effects.setdefault(place, None)
        if one["effect"] is not None and named.isdisjoint(one.get("within", ())):
            effects[place] = (1 + (effects[place] or 0.0)) * (1 + one["effect"]) - 1
    return effects


def _positions(connection: sa.Connection, repository: str, commits: Collection[str]) -> dict[str, int]:
    on_branch = (_r.c.repository == repository, _r.c.on_branch, _r.c.commit.in_(commits))
    return {row.commit: row.position for row in connection.execute(sa.select(_r.c.commit, _r.c.position).where(*on_branch))}


def _confirmed_effects(connection: sa.Connection, findings: Collection[int]) -> dict[int, suspicion.Effect]:
    """By finding, as what measured it again has it: the newest, where there are several; none where its outputs are wrong."""
    rows = connection.execute(
        sa.select(_e.c.finding, _e.c.verdict, _e.c.estimate, _e.c.low, _e.c.high)
        .join(_p, _p.c.id == _e.c.pair)
        .where(_e.c.finding.in_(findings), _p.c.run_type == model.RunType.VERIFY, _e.c.verdict == model.Verdict.REGRESSED)
        .order_by(_e.c.id)
    )
    slower = [row for row in rows if suspicion.slower(model.Verdict(row.verdict), row.low)]
    return {row.finding: effect for row in slower if (effect := suspicion.Effect.of(row)) is not None}


def suspect(connection: sa.Connection, experiment: int) -> suspicion.Suspect:
    """An experiment that showed something bad."""
    return suspect_of(connection.execute(suspects().where(_e.c.id == experiment)).one())


def standing(connection: sa.Connection, suspect: suspicion.Suspect) -> list[suspicion.Known]:
    """Those in the suspect's cell that have not been mended before it: that no experiment between the two shows to be gone."""
    return [one for one in known(connection, suspect.cell) if not _mended(connection, one.suspect, suspect)]


def _mended(connection: sa.Connection, found: suspicion.Suspect, suspect: suspicion.Suspect) -> bool:
    """Whether a commit after that of a finding and before the suspect's is no worse than one from before the finding.

    Of a finding in the tail only what has looked at the tail says so.
    """
    places = (found.older, found.newer, suspect.newer)
    if None in places:
        return False
    newer, older = _r.alias("newer"), _r.alias("older")
    no_worse = (
        sa.select(_e.c.id)
        .join(_p, _p.c.id == _e.c.pair)
        .join(newer, _on_branch(newer, _p.c.treatment))
        .join(older, _on_branch(older, _p.c.control))
        .where(
            *_in(suspect.cell),
            _e.c.id > found.experiment,
            _e.c.verdict.in_(NO_WORSE),
            *((_tail_is_no_worse(),) if found.in_tail else ()),
            _e.c.control_build.is_not(None),
            _p.c.repository == suspect.cell.repository,
            _p.c.run_type.in_(OF_COMMITS),
            newer.c.position >= found.newer,
            newer.c.position < suspect.newer,
            older.c.position >= found.older,
            older.c.position < found.newer,
        )
    )
    return connection.execute(no_worse.limit(1)).first() is not None


def _tail_is_no_worse() -> sa.ColumnElement[bool]:
    """Of what is no worse: whether its slow iterations were judged too, and did not look slower; or its programs are the same."""
    judged = sa.exists().where(_b.c.experiment == _e.c.id, _b.c.treatment_tail.is_not(None)).correlate(_e)
    return sa.or_(_e.c.verdict == model.Verdict.IDENTICAL, sa.and_(judged, _e.c.reason != model.TAIL_UNSURE))


def sighted(transaction: store.Transaction, finding: int, experiment: int) -> None:
    """An experiment shows what a finding has shown."""
    transaction.connection.execute(schema.sightings.insert().values(experiment=experiment, finding=finding))
    transaction.announce("finding.sighted", id=finding, experiment=experiment)


def released(transaction: store.Transaction, finding: int) -> None:
    """The search of a finding has ended: what lies within its commits, and it does not name, is a suspect by itself."""
    connection = transaction.connection
    of = suspect(connection, connection.execute(sa.select(_f.c.suspect).where(_f.c.id == finding)).scalar_one())
    now = next((one for one in known(connection, of.cell) if one.finding == finding), None)
    for experiment in connection.scalars(
        sa.select(schema.sightings.c.experiment).where(schema.sightings.c.finding == finding)
    ).all():
        if now is not None and suspicion.no_more(suspect(connection, experiment), now):
            connection.execute(schema.sightings.delete().where(schema.sightings.c.experiment == experiment))


def add(transaction: store.Transaction, suspect: int, state: str, reason: str = "") -> int:
    """A new finding."""
    found: int = transaction.connection.execute(
        _f.insert().values(suspect=suspect, state=state, reason=reason, search="", found_at=datetime.now(UTC)).returning(_f.c.id)
    ).scalar_one()
    transaction.announce(f"finding.{state}", id=found, experiment=suspect)
    return found


def verify(
    transaction: store.Transaction,
    of: suspicion.Range,
    suspects: Mapping[int, int],
    e_value: float,
    copy: int,
    known: Mapping[int, float] = MappingProxyType({}),
) -> None:
    """Measure suspects of one pair of commits again, in rounds of their own.

    Args:
        suspects: experiments by their findings.
        e_value: that a regression must have.
        copy: which builds: 0 for the same ones; else as :attr:`aibenchd.store.builds.Entry.copy`.
        known: by finding, what findings within its range explain, at most, as a ratio minus 1: more has to be left.
    """
    layout = builds.layout_of(copy)
    pair = again.new_pair(transaction, of.repository, of.treatment, of.control, model.RunType.VERIFY)
    for finding, experiment in suspects.items():
        row = transaction.connection.execute(sa.select(_e).where(_e.c.id == experiment)).one()
        rank = row.priority + PRIORITY
        arms = [again.build(transaction, build, rank, copy=copy) for build in (row.treatment_build, row.control_build)]
        rule = {"e_value": e_value, "known": known.get(finding, 0.0)}
        again.experiment(transaction, row, pair, arms, rank, rule=rule, finding=finding, layout=layout)


def verify_on(transaction: store.Transaction, unsure: Verified, evidence: float, e_value: float, reason: str) -> None:
    """Measure a suspect once more, which what measured it again left unsure.

    Args:
        evidence: the logarithm of its e-value so far.
        e_value: that the next experiment must have.
        reason: for people.
    """
    row = transaction.connection.execute(sa.select(_e).where(_e.c.id == unsure.verify)).one()
    of = unsure.of
    pair = again.new_pair(transaction, of.repository, of.treatment, of.control, model.RunType.VERIFY)
    arms = [row.treatment_build, row.control_build]
    rule = {"e_value": e_value, "known": row.design["rule"].get("known", 0.0)}
    again.experiment(
        transaction, row, pair, arms, row.priority, rule=rule, finding=unsure.finding, layout=row.design.get("layout", 0)
    )
    values = {"evidence": evidence, "reason": reason}
    transaction.connection.execute(_f.update().where(_f.c.id == unsure.finding).values(values))


def to_settle(connection: sa.Connection) -> list[Verified]:
    """All suspects, each with what measures it again: the newest, where there are several."""
    verifying, pair, newer, its = _e.alias("verifying"), _p.alias("pair"), _e.alias("newer"), _p.alias("its")
    newest = (
        sa.select(sa.func.max(newer.c.id))
        .join(its, sa.and_(its.c.id == newer.c.pair, its.c.run_type == model.RunType.VERIFY))
        .where(newer.c.finding == _f.c.id)
        .correlate(_f)
        .scalar_subquery()
    )
    rows = connection.execute(
        sa.select(
            _f.c.id.label("finding"), _f.c.suspect, _f.c.evidence, verifying, pair.c.repository, pair.c.treatment, pair.c.control
        )
        .select_from(_f)
        .join(verifying, verifying.c.id == newest)
        .join(pair, pair.c.id == verifying.c.pair)
        .where(_f.c.state == suspicion.SUSPECT)
        .order_by(verifying.c.state.in_(schema.UNDECIDED_STATES), _f.c.id)  # some may wait for ever
        .limit(LIMIT)
    ).all()
    return [
        Verified(
            row.finding,
            row.suspect,
            suspicion.Range(row.repository, row.treatment, row.control),
            row.device,
            row.id,
            row.state,
            model.Verdict(row.verdict) if row.verdict else None,
            row.reason,
            row.estimate,
            row.low,
            row.high,
            experiments.design_of(row.design),
            valid_blocks(connection, row.id) if row.verdict else (),
            _unmoved(connection, row),
            row.evidence or 0.0,
        )
        for row in rows
    ]


def _unmoved(connection: sa.Connection, row: sa.Row[Any]) -> list[model.ArmName]:
    if not row.design.get("layout"):
        return []
    arms = {model.ArmName.TREATMENT: row.treatment_build, model.ArmName.CONTROL: row.control_build}
    return [arm for arm, build in arms.items() if builds.came_out_the_same(connection, build)]


def begun(connection: sa.Connection, since: datetime, until: datetime) -> int:
    """How many suspects were found in that time, to be measured again."""
    verifying = sa.exists().where(_e.c.finding == _f.c.id, _p.c.id == _e.c.pair, _p.c.run_type == model.RunType.VERIFY)
    within = (_f.c.found_at >= since, _f.c.found_at < until)
    return connection.execute(sa.select(sa.func.count()).select_from(_f).where(*within, verifying)).scalar_one()


def family(connection: sa.Connection, of: suspicion.Range) -> Family:
    """All of the treatment that is measured against any control, as it is at one time."""
    of_commit = (_p.c.repository == of.repository, _p.c.treatment == of.treatment, _e.c.control_build.is_not(None))
    found = connection.execute(
        sa.select(_f.c.state, _f.c.evidence).join(_e, _e.c.id == _f.c.suspect).join(_p, _p.c.id == _e.c.pair).where(*of_commit)
    ).all()
    undecided = connection.scalars(
        sa.select(_e.c.device)
        .join(_p, _p.c.id == _e.c.pair)
        .where(
            *of_commit,
            _p.c.run_type.in_(OF_COMMITS),
            _p.c.request.is_(None),
            sa.or_(_e.c.state.in_(schema.UNDECIDED_STATES), sa.and_(_e.c.verdict.in_(suspicion.BAD), ~_SEEN)),
        )
    ).all()
    settled = [one.evidence for one in found if one.evidence is not None and one.state != suspicion.SUSPECT]
    return Family(settled, len(found), undecided)


def settle(transaction: store.Transaction, settled: suspicion.Settled, explained: model.Json) -> None:
    """What became of a suspect; ``explained`` is what it is made of, where it is confirmed.

    Where it is not, its sightings are suspects by themselves.
    """
    values = {"state": settled.state, "reason": settled.reason, "evidence": settled.evidence, "explained": explained}
    transaction.connection.execute(_f.update().where(_f.c.id == settled.finding).values(**values, verified_at=datetime.now(UTC)))
    if settled.state != suspicion.OPEN:  # what was taken for the same has shown something by itself
        transaction.connection.execute(schema.sightings.delete().where(schema.sightings.c.finding == settled.finding))
    transaction.announce(f"finding.{settled.state}", id=settled.finding, reason=settled.reason)


def confirmed(connection: sa.Connection, finding: int) -> Confirmed:
    """One that is open."""
    row = connection.execute(
        sa.select(_e.c.id, _f.c.evidence, _f.c.explained)
        .join(_e, _e.c.finding == _f.c.id)
        .join(_p, _p.c.id == _e.c.pair)
        .where(_f.c.id == finding, _p.c.run_type == model.RunType.VERIFY, _e.c.verdict.in_(suspicion.BAD))
        .order_by(_e.c.id.desc())
        .limit(1)
    ).one()
    return Confirmed(finding, row.id, row.evidence, row.explained)


def between(connection: sa.Connection, experiment: int) -> int | None:
    """How many commits came after an experiment's control, up to its treatment; None where one of them is not on the branch."""
    distance = sa.select(_newer.c.position - _older.c.position).select_from(_e).join(_p, _p.c.id == _e.c.pair)
    on_branch = distance.join(_newer, _on_branch(_newer, _p.c.treatment)).join(_older, _on_branch(_older, _p.c.control))
    return connection.execute(on_branch.where(_e.c.id == experiment)).scalar_one_or_none()


def commits(connection: sa.Connection, finding: int, commits: Collection[str]) -> dict[str, dict[str, str]]:
    """``subject`` and ``author`` of commits of a finding's repository, by commit, the oldest first."""
    rows = connection.execute(
        sa.select(_r.c.commit, _r.c.subject, _r.c.author)
        .join(_p, _p.c.repository == _r.c.repository)
        .join(_e, _e.c.pair == _p.c.id)
        .join(_f, _f.c.suspect == _e.c.id)
        .where(_f.c.id == finding, _r.c.commit.in_(commits))
        .order_by(_r.c.time)
    )
    return {row.commit: {"subject": row.subject, "author": row.author} for row in rows}


def mends(connection: sa.Connection, since: datetime) -> Mends:
    """The open findings that what was decided since then shows to be gone, by the rule of :func:`standing`, each once."""
    until = connection.scalar(sa.select(sa.func.max(_e.c.decided_at)).where(_decided(since)))
    no_worse = (
        _e.c.verdict.in_(NO_WORSE),
        sa.or_(~_suspect.c.in_tail, _tail_is_no_worse()),
        _e.c.id > _suspect.c.id,
        _its_older.c.position <= _older.c.position,
        _older.c.position < _its_newer.c.position,
    )
    rows = connection.execute(_after_open_findings().where(_decided(since), *no_worse).order_by(_e.c.id)).all()
    first: dict[int, Mend] = {}
    for row in rows:
        first.setdefault(row.finding, Mend(row.finding, row.id, row.treatment))
    return Mends(list(first.values()), since if until is None or len(rows) == LIMIT else until)


def perhaps_mended(connection: sa.Connection) -> list[Doubt]:
    """The open findings that may be gone, where nothing newer compares with what was before them.

    So it is where each commit is compared with the one before it: that one of them improved may undo what an earlier one did,
    and where neither arm fails any more, what had broken works again. That may have been measured before the finding was
    confirmed.
    """
    works = sa.and_(_suspect.c.verdict == model.Verdict.BROKEN, _e.c.verdict == model.Verdict.UNCHANGED)
    rows = connection.execute(
        _after_open_findings()
        .where(
            sa.or_(_e.c.verdict == model.Verdict.IMPROVED, works),
            _its_newer.c.position <= _older.c.position,
            ~_compared_with_before(),
        )
        .order_by(_newer.c.position.desc(), _e.c.id.desc())
    ).all()
    newest: dict[int, Doubt] = {}
    for row in rows:
        newest.setdefault(row.finding, Doubt(row.finding, _cell_of(row), row.treatment, row.before))
    return list({(one.cell, one.commit, one.before): one for one in newest.values()}.values())


def _decided(since: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(_e.c.verdict.is_not(None), _e.c.decided_at >= since)


def _after_open_findings() -> sa.Select[Any]:
    """What was decided of commits after an open finding in the same cell; ``LIMIT`` at most."""
    return (
        sa.select(_f.c.id.label("finding"), _e, _p.c.repository, _p.c.treatment, _own.c.control.label("before"))
        .select_from(_e)
        .join(_p, _p.c.id == _e.c.pair)
        .join(_newer, _on_branch(_newer, _p.c.treatment))
        .join(_older, _on_branch(_older, _p.c.control))
        .join(_suspect, sa.and_(*(_suspect.c[name] == _e.c[name] for name in schema.CELL)))
        .join(_own, sa.and_(_own.c.id == _suspect.c.pair, _own.c.repository == _p.c.repository))
        .join(_f, _f.c.suspect == _suspect.c.id)
        .join(_its_newer, _at(_its_newer, _own.c.repository, _own.c.treatment))
        .join(_its_older, _at(_its_older, _own.c.repository, _own.c.control))
        .where(
            _e.c.verdict.is_not(None),
            _e.c.control_build.is_not(None),
            _p.c.run_type.in_(OF_COMMITS),
            _f.c.state == suspicion.OPEN,
            _f.c.mended.is_(None),
            _newer.c.position > _its_newer.c.position,
        )
        .limit(LIMIT)
    )


def _compared_with_before() -> sa.ColumnElement[bool]:
    """Whether a finding's control is being compared with a later commit, or was with this one or a newer one.

    Or with any, where it broke: the first that works says all there is.
    """
    other, pair, compared = _e.alias("other"), _p.alias("other_pair"), _r.alias("compared")
    return sa.exists().where(
        *(other.c[name] == _e.c[name] for name in schema.CELL),
        other.c.id > _suspect.c.id,
        pair.c.id == other.c.pair,
        pair.c.repository == _p.c.repository,
        pair.c.run_type == model.RunType.ANCHOR,
        pair.c.control == _own.c.control,
        _at(compared, pair.c.repository, pair.c.treatment),
        sa.or_(
            other.c.state.in_(schema.UNDECIDED_STATES),
            compared.c.position >= _newer.c.position,
            _suspect.c.verdict == model.Verdict.BROKEN,
        ),
    )


def _cell_of(row: sa.Row[Any]) -> suspicion.Cell:
    return suspicion.Cell(row.repository, row.benchmark, row.device, row.backend, row.identifier)


def mended(transaction: store.Transaction, mend: Mend) -> None:
    """Write down that a finding is gone, and what shows it."""
    transaction.connection.execute(_f.update().where(_f.c.id == mend.finding).values(mended=mend.experiment))
    transaction.announce("finding.mended", id=mend.finding, experiment=mend.experiment, commit=mend.commit)


def decision_of(connection: sa.Connection, experiment: int) -> model.Decision:
    """What an experiment ended with, or has come to."""
    row = connection.execute(
        sa.select(*(_e.c[name] for name in ("verdict", "blocks", "estimate", "low", "high", "reason", "in_tail"))).where(
            _e.c.id == experiment
        )
    ).one()
    return decision(row)


def decision(row: Any) -> model.Decision:
    """Of a row that has the columns of an experiment."""
    estimate, low, high = (math.nan if value is None else value for value in (row.estimate, row.low, row.high))
    verdict = model.Verdict(row.verdict) if row.verdict else None
    return model.Decision(verdict, row.blocks, estimate, low, high, row.reason, row.in_tail)


def fingerprint_of(connection: sa.Connection, experiment: int) -> Mapping[str, str]:
    """What its device was in its last block; empty where it ran none."""
    table = schema.fingerprints
    query = (
        sa.select(table.c.facts)
        .join(schema.blocks, schema.blocks.c.fingerprint == table.c.id)
        .where(schema.blocks.c.experiment == experiment)
        .order_by(schema.blocks.c.number.desc())
        .limit(1)
    )
    return connection.scalar(query) or {}


def suspects(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Experiments, and where their commits are on the watched line, as :func:`suspect_of` reads them; to be narrowed down."""
    newer, older = _r.alias("newer"), _r.alias("older")
    columns = (
        _e.c.id,
        _e.c.benchmark,
        _e.c.identifier,
        _e.c.device,
        _e.c.backend,
        _e.c.verdict,
        _e.c.reason,
        _e.c.estimate,
        _e.c.low,
        _e.c.high,
        _e.c.in_tail,
        _e.c.control_build,
        _p.c.repository,
        _p.c.treatment,
        _p.c.control,
        newer.c.position.label("newer"),
        older.c.position.label("older"),
    )
    return (
        sa.select(*columns, *more)
        .select_from(_e)
        .join(_p, _p.c.id == _e.c.pair)
        .outerjoin(newer, _on_branch(newer, _p.c.treatment))
        .outerjoin(older, _on_branch(older, _p.c.control))
    )


def _in(cell: suspicion.Cell) -> tuple[sa.ColumnElement[bool], ...]:
    """Experiments in a cell, of whatever repository."""
    return (_e.c.benchmark == cell.benchmark, _e.c.device == cell.device, _e.c.backend == cell.backend)


def _on_branch(revision: sa.FromClause, commit: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return _at(revision, _p.c.repository, commit)


def _at(revision: sa.FromClause, repository: sa.ColumnElement[str], commit: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.and_(revision.c.repository == repository, revision.c.commit == commit, revision.c.on_branch)


def suspect_of(row: sa.Row[Any]) -> suspicion.Suspect:
    """One row of :func:`suspects`; without a build of its control it is measured alone, whatever its pair says."""
    return suspicion.Suspect(
        experiment=row.id,
        cell=suspicion.Cell(row.repository, row.benchmark, row.device, row.backend, row.identifier),
        of=suspicion.Range(row.repository, row.treatment, row.control if row.control_build is not None else None),
        newer=row.newer,
        older=row.older,
        verdict=model.Verdict(row.verdict),
        reason=row.reason,
        estimate=row.estimate,
        low=row.low,
        high=row.high,
        in_tail=row.in_tail,
    )


def valid_blocks(connection: sa.Connection, experiment: int) -> list[experiments.Journalled]:
    """The blocks of an experiment whose trials count, in their order."""
    return [block for block in experiments.journalled(connection, experiment) if block.valid]


def in_tail(blocks: Iterable[experiments.Journalled]) -> list[experiments.Journalled]:
    """Blocks by the numbers of their slow iterations."""
    return [dataclasses.replace(one, treatment=one.treatment_tail, control=one.control_tail) for one in blocks]


def log_ratios(blocks: Iterable[experiments.Journalled]) -> list[float]:
    """Of treatment over control, natural; nothing of blocks that lack one of them, or have a number that is 0."""
    return [math.log(one.treatment / one.control) for one in blocks if one.treatment and one.control]
