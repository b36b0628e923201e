"""The search for the commits at fault of a confirmed regression, as the journal keeps it: what it knows, and what it is given."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import again, builds, experiments, findings, merges, noises, promotion, schema, store

LIMIT = 1_000  # findings that one look deals with
LINE = 2_000  # commits that a search can be over
PRIORITY = 100  # above what is measured with no one asking, below what measures suspects again
CHECKED = 3  # culprits of other searches that one begins with
FOUND = "found"
TIMED_BUILDS = 20  # whose time says what the next one costs

_e, _p, _f, _r, _b = schema.experiments, schema.pairs, schema.findings, schema.revisions, schema.builds


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search of one finding has to go on.

    Attributes:
        verdict: of the experiment that began it.
        line: commits from the control to the treatment, oldest first, the control included; empty where it is not on the branch,
            longer than :data:`LINE` where there are too many.
        within: the merges among them, and what is known of what they brought in.
        built: of all these, those whose programs were there for the platform before the search, or were known not to build.
        unbuildable: those that do not build.
        build_seconds, block_seconds: what they usually take.
        steps: what was measured for it.
        shown: log ratios of the blocks that showed the change between the ends.
        earlier: what was measured there before, newest first.
        known: by commit, what other findings have it do already, as a log ratio.
    """

    finding: int
    device: str
    repository: str
    slower: bool
    verdict: model.Verdict
    design: model.Design
    line: Sequence[str]
    within: merges.Known
    built: frozenset[str]
    unbuildable: frozenset[str]
    build_seconds: float
    block_seconds: float
    steps: Sequence[Step]
    shown: Sequence[float]
    earlier: Sequence[noises.Blocks]
    known: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """An experiment of a search: two commits, and what they have shown.

    Attributes:
        quota: blocks that it was given, None for as many as a verdict takes; ``blocks`` that it ran.
        useless: which of its commits cannot be measured, as far as its end tells; empty where both can.
        wrong: whether the newer one's outputs were not what they should be, in the last block.
    """

    experiment: int
    newer: str
    older: str
    state: str
    quota: int | None
    blocks: int
    useless: str
    wrong: bool
    ratios: Sequence[float]
    verdict: model.Verdict | None

    @property
    def waits(self) -> bool:
        """Whether it has blocks to run."""
        return self.undecided and (self.quota is None or self.blocks < self.quota)

    @property
    def left(self) -> int:
        """Blocks that it was given and has to run."""
        return self.quota - self.blocks if self.undecided and self.quota is not None else 0

    @property
    def undecided(self) -> bool:
        """Whether it may be given blocks."""
        return self.state in schema.UNDECIDED_STATES


def to_search(connection: sa.Connection) -> list[suspicion.Confirmed]:
    """The confirmed findings whose commits at fault are not named yet."""
    step, pair = _e.alias("step"), _p.alias("pair")
    waits = sa.exists().where(
        step.c.finding == _f.c.id,
        pair.c.id == step.c.pair,
        pair.c.run_type == model.RunType.REGRESS,
        step.c.state.in_(schema.UNDECIDED_STATES),
        sa.or_(step.c.quota.is_(None), step.c.blocks < step.c.quota),
    )
    rows = connection.execute(
        findings.suspects(_f.c.id.label("finding"), _f.c.search, waits.label("waits"), _e.c.treatment_build)
        .join(_f, _f.c.suspect == _e.c.id)
        .where(_f.c.state == suspicion.OPEN, _f.c.search.in_(suspicion.UNSEARCHED))
        .order_by(_f.c.id.desc())  # those of devices that are gone may wait for ever
        .limit(LIMIT)
    ).all()
    return [
        suspicion.Confirmed(row.finding, findings.suspect_of(row), row.search, bool(row.waits), row.treatment_build)
        for row in reversed(rows)
    ]


def to_stop(connection: sa.Connection) -> dict[int, model.Json]:
    """The findings that were accepted while they were searched, with what was found so far."""
    running = (_f.c.state == suspicion.ACCEPTED, _f.c.search == suspicion.RUNNING)
    return {row.id: row.culprits for row in connection.execute(sa.select(_f.c.id, _f.c.culprits).where(*running).limit(LIMIT))}


def named(connection: sa.Connection, of: suspicion.Range, fault: suspicion.Fault, but: Collection[int] = ()) -> Sequence[str]:
    """The commits at fault that ended searches of two commits and one fault have named, the merges around them too.

    Those of the most findings first; of a group of neighbours the last, which can be measured. None where none was found. What
    the findings ``but`` have named is left out.
    """
    rows = connection.execute(
        findings.suspects(_f.c.id.label("finding"), _f.c.culprits)
        .join(_f, _f.c.suspect == _e.c.id)
        .where(_p.c.repository == of.repository, _p.c.treatment == of.treatment, _p.c.control == of.control, _f.c.search == FOUND)
        .order_by(_f.c.id)
    )
    counted = Counter(
        (*culprit.get("within", ()), culprit["commits"][-1])
        for row in rows
        if findings.suspect_of(row).fault is fault and row.finding not in but
        for culprit in row.culprits["culprits"]
    )
    return [commit for path, _ in counted.most_common(CHECKED) for commit in path]


def searched(connection: sa.Connection, finding: int) -> Searched:
    """What is known for the search of one finding."""
    row = connection.execute(
        findings.suspects(_e.c.design, _e.c.treatment_build, _f.c.found_at, _f.c.verified_at, _f.c.explained)
        .join(_f, _f.c.suspect == _e.c.id)
        .where(_f.c.id == finding)
    ).one()
    build = builds.by_id(connection, row.treatment_build)
    assert build is not None  # noqa: S101  a foreign key
    line = _line(connection, row.repository, row.treatment, row.control)
    within = merges.known(connection, row.repository, line)
    suspect = findings.suspect_of(row)
    began = row.verified_at or row.found_at
    of_platform = sa.select(_b.c.commit, _b.c.state, _b.c.queued_at).where(
        _b.c.repository == build.repository, _b.c.framework == build.framework, _b.c.platform == build.platform, _b.c.copy == 0
    )
    made = [
        one
        for commits in merges.parts(within.commits(line))
        for one in connection.execute(of_platform.where(_b.c.commit.in_(commits)))
    ]
    first = findings.valid_blocks(connection, row.id)
    shown = [findings.in_tail(first) if row.in_tail else first]
    shown += [findings.valid_blocks(connection, experiment) for experiment in _verifying(connection, finding)]
    blocks = [block for some in shown for block in some]
    design = experiments.design_of(row.design)
    if row.in_tail:
        design = _of_tail(design, row.low)
    return Searched(
        finding=finding,
        device=row.device,
        repository=row.repository,
        slower=suspect.slower,
        verdict=model.Verdict(row.verdict),
        design=design,
        line=line,
        within=within,
        built=frozenset(one.commit for one in made if one.state in ("built", "building", "failed") and one.queued_at < began),
        unbuildable=frozenset(one.commit for one in made if one.state == "failed"),
        build_seconds=_build_seconds(connection, build.key),
        block_seconds=sum(block.seconds for block in blocks) / max(1, len(blocks)),
        steps=steps(connection, finding),
        shown=findings.log_ratios(blocks),
        earlier=noises.newest_blocks(connection, suspect.cell, before=row.id),
        known=(row.explained or {}).get("findings", {}).get("by_commit", {}),
    )


def beside(connection: sa.Connection, finding: int) -> list[Searched]:
    """The searches for the same change on other devices, or by other backends, that have something to say or go on.

    Of the same two commits and benchmark, by builds for the same platform; none where it is no matter of time.
    """
    of_finding = findings.suspects(_f.c.id.label("finding"), _e.c.treatment_build).join(_f, _f.c.suspect == _e.c.id)
    own = connection.execute(of_finding.where(_f.c.id == finding)).one()
    step = _e.alias("step")
    pair = _p.alias("pair")
    measured = (
        sa.select(sa.func.coalesce(sa.func.sum(step.c.blocks), 0))
        .join(pair, pair.c.id == step.c.pair)
        .where(step.c.finding == _f.c.id, pair.c.run_type == model.RunType.REGRESS)
        .correlate(_f)
        .scalar_subquery()
    )
    runs = _f.c.search == suspicion.RUNNING
    rows = connection.execute(
        of_finding.where(
            _e.c.treatment_build == own.treatment_build,
            _e.c.benchmark == own.benchmark,
            _p.c.treatment == own.treatment,
            _p.c.control == own.control,
            _e.c.in_tail == own.in_tail,
            _f.c.id != finding,
            _f.c.state.in_((suspicion.OPEN, suspicion.ACCEPTED)),
            sa.or_(runs, measured > 0),
        )
        .order_by(runs.desc(), measured.desc(), _f.c.id)
        .limit(suspicion.FLEET - 1)
    )
    alike = [row.finding for row in rows if findings.suspect_of(row).slower and findings.suspect_of(own).slower]
    return [searched(connection, one) for one in alike]


def blocks_by_device(searched: Iterable[Searched]) -> dict[str, int]:
    """Valid blocks that were measured for searches."""
    found: Counter[str] = Counter()
    for one in searched:
        found[one.device] += sum(len(step.ratios) for step in one.steps)
    return dict(found)


def _of_tail(design: model.Design, low: float) -> model.Design:
    """What the search of a change of the slow iterations is judged by; ``low`` is how large that is at the least.

    They are many times as noisy as the others: what is less than half of what is to be explained is not looked for.
    """
    rule = dataclasses.replace(design.rule, min_effect=max(design.rule.min_effect, low / 2))
    return dataclasses.replace(design, summary=design.summary.tail, rule=rule)


def give(transaction: store.Transaction, finding: int, wanted: Mapping[tuple[str, str], int | None]) -> None:
    """Give a search blocks: how many more, by (newer commit, older commit)."""
    row = transaction.connection.execute(
        sa.select(_e, _p.c.repository).join(_p).join(_f, _f.c.suspect == _e.c.id).where(_f.c.id == finding)
    ).one()
    there = {(step.newer, step.older): step.experiment for step in steps(transaction.connection, finding) if step.undecided}
    rank = row.priority + PRIORITY
    for (newer, older), blocks in wanted.items():
        if (newer, older) in there and blocks is not None:
            _give_more(transaction, there[newer, older], blocks)
            continue
        pair = again.new_pair(transaction, row.repository, newer, older, model.RunType.REGRESS)
        arms = [again.build(transaction, row.treatment_build, rank, commit=commit) for commit in (newer, older)]
        again.experiment(transaction, row, pair, arms, rank, finding=finding, quota=blocks)


def found(transaction: store.Transaction, finding: int, search: str, culprits: model.Json = None) -> None:
    """How far the search of a finding has come, or how it ended."""
    transaction.connection.execute(_f.update().where(_f.c.id == finding).values(search=search, culprits=culprits))
    transaction.announce("finding.searched", id=finding, search=search)


def cancel(transaction: store.Transaction, experiment: int, reason: str) -> None:
    """End an experiment that ran no block, and is not needed any more."""
    transaction.connection.execute(
        _e.update().where(_e.c.id == experiment).values(state="cancelled", reason=reason, decided_at=datetime.now(UTC))
    )
    transaction.announce("experiment.cancelled", id=experiment, reason=reason)


def _give_more(transaction: store.Transaction, experiment: int, blocks: int) -> None:
    """Of one that has run all that it was given."""
    row = transaction.connection.execute(sa.select(_e).where(_e.c.id == experiment)).one()
    ahead = noises.expected(transaction.connection, row.pair, (row.benchmark, row.device, row.backend), row.design, blocks)
    transaction.connection.execute(_e.update().where(_e.c.id == experiment).values(quota=row.quota + blocks, **ahead))
    transaction.announce(f"experiment.open.{row.device}", id=experiment)


def _verifying(connection: sa.Connection, finding: int) -> Iterable[int]:
    return connection.scalars(
        sa.select(_e.c.id).join(_p).where(_e.c.finding == finding, _p.c.run_type == model.RunType.VERIFY).order_by(_e.c.id)
    ).all()


def steps(connection: sa.Connection, finding: int) -> list[Step]:
    """What was measured for the search of a finding, in the order in which it was asked for."""
    rows = connection.execute(
        sa.select(_e, _p.c.treatment, _p.c.control)
        .join(_p)
        .where(_e.c.finding == finding, _p.c.run_type == model.RunType.REGRESS)
        .order_by(_e.c.id)
    ).all()
    return [_step(row, findings.valid_blocks(connection, row.id)) for row in rows]


def _step(row: sa.Row[Any], blocks: Sequence[experiments.Journalled]) -> Step:
    last = blocks[-1].agreements if blocks else {}
    return Step(
        row.id,
        row.treatment,
        row.control,
        row.state,
        row.quota,
        row.blocks,
        _useless(row),
        last.get(model.ArmName.TREATMENT) in (model.Agreement.WRONG, model.Agreement.DIFFERS),
        findings.log_ratios(blocks),
        model.Verdict(row.verdict) if row.verdict else None,
    )


def _useless(row: sa.Row[Any]) -> str:
    """The commit that cannot be measured, of an experiment that ended so."""
    if row.reason == promotion.REBUILT_DIFFERENTLY:
        return ""  # the two can be measured in another one
    if row.state == "skipped" or row.verdict == model.Verdict.BROKEN:
        return str(row.treatment)
    return str(row.control) if row.verdict == model.Verdict.INCONCLUSIVE else ""


def _line(connection: sa.Connection, repository: str, treatment: str, control: str) -> Sequence[str]:
    """The commits from a control to its treatment, oldest first; empty where either is not on the branch."""
    ends = dict(
        connection.execute(
            sa.select(_r.c.commit, _r.c.position).where(
                _r.c.repository == repository, _r.c.commit.in_((treatment, control)), _r.c.on_branch
            )
        ).all()
    )
    if len(ends) < 2:
        return []
    return connection.scalars(
        sa.select(_r.c.commit)
        .where(
            _r.c.repository == repository,
            _r.c.on_branch,
            _r.c.position.between(ends[control], ends[treatment]),
            sa.or_(_r.c.relevant, _r.c.commit.in_((treatment, control))),
        )
        .order_by(_r.c.position)
        .limit(LINE + 1)
    ).all()


def _build_seconds(connection: sa.Connection, build: builds.Key) -> float:
    """The median of the newest that were made for the same platform; 0 where there are none."""
    took = connection.execute(
        sa.select(_b.c.started_at, _b.c.finished_at)
        .where(
            _b.c.repository == build.repository,
            _b.c.framework == build.framework,
            _b.c.platform == build.platform,
            schema.MADE,
            _b.c.started_at.is_not(None),
        )
        .order_by(_b.c.id.desc())
        .limit(TIMED_BUILDS)
    ).all()
    seconds = sorted((row.finished_at - row.started_at).total_seconds() for row in took)
    return seconds[len(seconds) // 2] if seconds else 0.0
