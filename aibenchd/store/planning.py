"""What the planner reads and writes: a bounded window of a repository, and the steps that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model, settings
from aibenchd.devices import base
from aibenchd.plan import coverage, planner, suspicion
from aibenchd.store import again, builds, experiments, noises, requests, revisions, schema, selfchecks, store

LINE = 2_000  # revisions of the watched line that the planner sees
PENDING = 2_000  # revisions that wait for a plan; older ones are seen when these are dealt with
ORPHANS = 100
CALIBRATION_PRIORITY = 1_000  # as a person's request
CELL = ("benchmark", "device", "backend")  # columns that tell a repository's cells apart
NEW_CELL = "no control: measured here for the first time; the next revision is compared with one"
# What two cells are compared by: what is steady for the one need not be for the other, and neither is the older.
OF_CELLS = model.Summary(guard=False)
PROCESSES_APART = 10  # at least, of each of two cells on two devices
SAME_PROGRAMS = "no control: its programs are the same as these, and it has not been measured here before"
CONTROL_DOES_NOT_BUILD = schema.CONTROL_DOES_NOT_BUILD
REBUILT_DIFFERENTLY = "its programs were lost from the cache and came out different when they were built again"
TREATMENT_DOES_NOT_BUILD = "the treatment does not build"

# Two cells run the same programs in different ways; a search asks what blocks of two commits look like; a self-check wants this;
# a profile is of what was measured, equal or not.
MEASURED_ANYWAY = (model.RunType.COMPARE, model.RunType.REGRESS, model.RunType.SELFCHECK, model.RunType.PROFILE)

_revisions, _pairs, _experiments = schema.revisions, schema.pairs, schema.experiments


def window(
    connection: sa.Connection,
    repository: settings.RepositorySettings,
    devices: Sequence[base.DeviceSettings],
    now: datetime,
) -> planner.Window:
    """What the planner sees of ``repository``; only these ``devices`` hold a pair undecided."""
    name, platforms = repository.name, base.platforms(devices)
    return planner.Window(
        now=now,
        pending=_ranked(revisions.newest_pending(connection, name, PENDING)),
        line=_ranked(revisions.recent(connection, name, LINE)),
        undecided=_undecided(connection, name, [device.name for device in devices]),
        planned_at=connection.execute(
            sa.select(schema.repositories.c.planned_at).where(schema.repositories.c.name == name)
        ).scalar(),
        newest=_newest(connection, repository, platforms),
        orphans=_orphans(connection, name),
        unbuildable={platform: _unbuildable(connection, repository, platform) for platform in platforms},
        good=_good(connection, name),
    )


def carry_out(
    transaction: store.Transaction,
    repository: settings.RepositorySettings,
    steps: Iterable[planner.Step],
    experiment: settings.ExperimentSettings,
    *,
    request: int | None = None,
    priority: int = 0,
    selfchecks_share: float = 0.0,
) -> None:
    """Write the steps of a plan; experiments wait for their builds, which are queued.

    Args:
        selfchecks_share: of the experiments, whose treatment is also compared with itself.
    """
    now = datetime.now(UTC)
    for step in steps:
        match step:
            case planner.Coalesce(revision, into):
                _mark(transaction, revision, "coalesced", f"measured with {into.commit[:12]}")
            case planner.Extend(pair, cells):
                _add(transaction, repository, pair.id, pair.treatment.commit, None, cells, experiment, priority, now, NEW_CELL)
            case planner.PlanPair(treatment, control, cells, alone):
                commit = None if control is None else control.commit
                pair_id = again.new_pair(
                    transaction,
                    repository.name,
                    treatment.commit,
                    commit,
                    model.RunType.BENCHMARK,
                    request=request,
                    priority=repository.priority + priority,
                )
                _add(transaction, repository, pair_id, treatment.commit, commit, cells, experiment, priority, now, alone)
                selfchecks.plan(transaction, pair_id, selfchecks_share if control else 0.0)
                if request is None:
                    _mark(transaction, treatment, "planned", "")
                    _planned(transaction, repository.name, now)


@dataclass(frozen=True, slots=True)
class Side:
    """What one arm of a comparison runs: a cell, with the newest build that there is of a repository."""

    repository: settings.RepositorySettings
    commit: str
    cell: coverage.Cell


def compare(
    transaction: store.Transaction,
    arms: Sequence[tuple[Side, Side]],
    experiment: settings.ExperimentSettings,
    priority: int,
    requested_by: str,
) -> int:
    """Plan the comparison of two cells, an experiment for each test that both run; the number of the request.

    Args:
        arms: (treatment, control), each on the same device and of the same two commits; at least one.
    """
    now = datetime.now(UTC)
    treatment, control = arms[0]
    request = _compared(transaction, arms, [treatment.cell.device.name], priority, requested_by)
    commits = (treatment.commit, control.commit)
    rank_of_pair = treatment.repository.priority + priority
    pair = again.new_pair(
        transaction, treatment.repository.name, *commits, model.RunType.COMPARE, request=request, priority=rank_of_pair
    )
    for one, other in arms:
        rank = one.repository.priority + one.cell.selected.selection.priority + priority
        own = design_of(one.cell, one.repository.framework, experiment, 2, again.seed_of(pair, one.cell.key))
        design = dataclasses.replace(own, arms=2, control=_variant(other), summary=OF_CELLS)
        builds_of = [_wanted(transaction, side.repository, side.commit, side.cell, rank) for side in (one, other)]
        _new_experiment(transaction, pair, one.cell, design, builds_of[0], builds_of[1], rank, now)
    transaction.announce("experiment.planned", pair=pair, count=len(arms))
    granted(transaction, request)
    return request


def compare_apart(
    transaction: store.Transaction,
    arms: Sequence[tuple[Side, Side]],
    experiment: settings.ExperimentSettings,
    priority: int,
    requested_by: str,
) -> int:
    """Plan to measure two cells of two devices, each by itself: two experiments for each test; the number of the request.

    Nothing cancels between two devices, so neither waits for the other. :mod:`aibenchd.api.apart` lays them side by side.

    Args:
        arms: (treatment, control), each on the same two devices and of the same two commits; at least one.
    """
    now, places = datetime.now(UTC), [side.cell.device.name for side in arms[0]]
    request = _compared(transaction, arms, places, priority, requested_by)
    for sides in zip(*arms, strict=True):  # all treatments, then all controls
        repository, commit = sides[0].repository, sides[0].commit
        rank_of_pair = repository.priority + priority
        pair = again.new_pair(
            transaction, repository.name, commit, None, model.RunType.COMPARE, request=request, priority=rank_of_pair
        )
        for side in sides:
            rank = repository.priority + side.cell.selected.selection.priority + priority
            own = design_of(side.cell, repository.framework, experiment, 1, again.seed_of(pair, side.cell.key))
            design = dataclasses.replace(own, blocks=max(own.blocks, PROCESSES_APART), summary=OF_CELLS)
            build = _wanted(transaction, repository, commit, side.cell, rank)
            _new_experiment(transaction, pair, side.cell, design, build, None, rank, now)
        transaction.announce("experiment.planned", pair=pair, count=len(sides))
    granted(transaction, request)
    return request


def _compared(
    transaction: store.Transaction, arms: Sequence[tuple[Side, Side]], devices: Sequence[str], priority: int, requested_by: str
) -> int:
    """The request of a comparison of cells."""
    treatment, control = arms[0]
    return requests.add(
        transaction,
        repository=treatment.repository.name,
        treatment=treatment.commit,
        control=control.commit,
        benchmarks=[one.cell.selected.benchmark.identifier for one, _ in arms],
        devices=devices,
        priority=priority,
        requested_by=requested_by,
    )


def calibrate(
    transaction: store.Transaction, sides: Sequence[Side], experiment: settings.ExperimentSettings, blocks: int, requested_by: str
) -> int:
    """Plan to compare a commit with itself, in so many blocks of each cell, whatever they say; the number of the request.

    Args:
        sides: of one device, repository and commit; at least one.
    """
    now, first = datetime.now(UTC), sides[0]
    request = requests.add(
        transaction,
        repository=first.repository.name,
        treatment=first.commit,
        control=first.commit,
        benchmarks=[side.cell.selected.benchmark.identifier for side in sides],
        devices=[first.cell.device.name],
        priority=0,
        requested_by=requested_by,
    )
    commits = (first.commit, first.commit)
    rank = first.repository.priority + CALIBRATION_PRIORITY
    pair = again.new_pair(transaction, first.repository.name, *commits, model.RunType.SELFCHECK, request=request, priority=rank)
    for side in sides:
        own = design_of(side.cell, side.repository.framework, experiment, 2, again.seed_of(pair, side.cell.key))
        rule, summary = model.Rule.of_blocks(blocks, own.rule.min_effect), _summary(transaction, pair, side.cell)
        design = dataclasses.replace(own, arms=2, rule=rule, summary=summary)
        build = _wanted(transaction, side.repository, side.commit, side.cell, rank)
        _new_experiment(transaction, pair, side.cell, design, build, build, rank, now)
    transaction.announce("experiment.planned", pair=pair, count=len(sides))
    granted(transaction, request)
    return request


def submit(
    transaction: store.Transaction,
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
        transaction,
        repository=repository.name,
        treatment=treatment.commit,
        control=control.commit if control else "",
        benchmarks=sorted({cell.selected.benchmark.identifier for cell in cells}),
        devices=sorted({cell.device.name for cell in cells}),
        priority=priority,
        requested_by=requested_by,
    )
    revisions.remember(transaction, [one for one in (treatment, control) if one is not None])
    commit = None if control is None else control.commit
    pair = again.new_pair(
        transaction, repository.name, treatment.commit, commit, model.RunType.SUBMISSION, request=request, priority=priority
    )
    _add(transaction, repository, pair, treatment.commit, commit, cells, experiment, priority, datetime.now(UTC), "")
    for one in (treatment, control):
        if one is not None:
            builds.rebuild_all(transaction, repository.name, one.commit)  # which failed where it was not kept any more
    granted(transaction, request)
    return request


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
    return None if commit is None else revisions.one(connection, repository, commit)


def design_of(cell: coverage.Cell, framework: str, experiment: settings.ExperimentSettings, arms: int, seed: int) -> model.Design:
    """All that is frozen before an experiment's first block; the selection's own values win over the top-level section's."""
    own = cell.selected.selection.experiment.model_dump(exclude_none=True)
    chosen = experiment.model_copy(update=own)
    return model.Design(
        benchmark=cell.selected.benchmark,
        framework=framework,
        rule=model.Rule(chosen.alpha, chosen.beta, chosen.min_effect, chosen.max_blocks, chosen.max_time),
        backend=cell.backend,
        order=chosen.order,
        seed=seed,
        timeout=chosen.timeout,
        disturb_caches=chosen.disturb_caches,
        arms=min(arms, chosen.arms),
        blocks=chosen.blocks,
        env=cell.selected.selection.env,
        command_args=cell.selected.selection.command_args,
    )


def promote(transaction: store.Transaction, identical: Callable[[store.Transaction, int], None]) -> int:
    """Open the experiments whose builds are there, and end those whose builds never will be; how many were moved.

    ``identical`` is called with each experiment whose two builds are byte for byte the same, to decide it. One that nobody
    asked for is opened with one arm instead where its cell would never be measured otherwise.
    """
    waiting = transaction.connection.execute(_ended_waits().limit(1_000)).all()
    for row in waiting:
        digests = f"{row.treatment_digest} {row.control_digest or '-'}"
        if row.treatment == "failed":
            experiments.skip(transaction, row.id, TREATMENT_DOES_NOT_BUILD)
        elif row.control == "failed":
            experiments.skip(transaction, row.id, CONTROL_DOES_NOT_BUILD)
        elif row.blocks and row.digests != digests:
            experiments.skip(transaction, row.id, REBUILT_DIFFERENTLY)
        elif row.treatment_digest != row.control_digest or row.run_type in MEASURED_ANYWAY:
            _open(transaction, row.id, digests=digests)
        elif (
            row.run_type == model.RunType.BENCHMARK
            and row.request is None
            and not _measured_otherwise(transaction.connection, row)
        ):
            _open_alone(transaction, row)
        else:
            identical(transaction, row.id)
    return len(waiting)


def _measured_otherwise(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a cell has been measured with no one asking, or another of its experiments is to tell."""
    known = sa.exists().where(
        schema.cells.c.repository == row.repository,
        *(schema.cells.c[name] == row._mapping[name] for name in CELL),
        schema.cells.c.decided.is_not(None),
    )
    other = sa.exists().where(
        _experiments.c.state.in_(("waiting", "open")),
        *(_experiments.c[name] == row._mapping[name] for name in CELL),
        _experiments.c.id != row.id,
        _pairs.c.id == _experiments.c.pair,
        _pairs.c.repository == row.repository,
        _pairs.c.request.is_(None),
        _pairs.c.run_type == model.RunType.BENCHMARK,
    )
    return bool(connection.scalar(sa.select(sa.or_(known, other))))


def _open(transaction: store.Transaction, experiment: int, **values: object) -> None:
    opened = _experiments.update().where(_experiments.c.id == experiment).values(state="open", **values)
    device = transaction.connection.execute(opened.returning(_experiments.c.device)).scalar_one()
    transaction.announce(f"experiment.open.{device}", id=experiment)  # of a thousand devices, this one is woken


def _open_alone(transaction: store.Transaction, row: sa.Row[Any]) -> None:
    """Open an experiment with its treatment alone."""
    design = transaction.connection.scalars(sa.select(_experiments.c.design).where(_experiments.c.id == row.id)).one()
    design = {**design, "arms": 1}
    alone = {"control_build": None, "design": design, "reason": SAME_PROGRAMS}
    expected = noises.expected(transaction.connection, row.pair, (row.benchmark, row.device, row.backend), design)
    _open(transaction, row.id, digests=f"{row.treatment_digest} -", **alone, **expected)


def promotable(connection: sa.Connection) -> bool:
    """Whether there is anything for :func:`promote`."""
    return bool(connection.execute(_ended_waits().limit(1)).first())


def evicted_but_needed(connection: sa.Connection) -> list[builds.Entry]:
    """Builds that experiments need and the cache no longer holds."""
    table = schema.builds
    needed = [
        sa.exists().where(_experiments.c[arm] == table.c.id, _experiments.c.state.in_(("waiting", "open")))
        for arm in ("treatment_build", "control_build")
    ]
    found = connection.scalars(sa.select(table.c.id).where(table.c.state == "evicted", sa.or_(*needed)).limit(1_000)).all()
    return [entry for build in found if (entry := builds.by_id(connection, build)) is not None]


def want_again(transaction: store.Transaction, lost: Iterable[builds.Entry]) -> None:
    """Queue builds that were evicted."""
    for entry in lost:
        builds.want(transaction, entry.key, entry.priority)


def new_requests(connection: sa.Connection) -> Sequence[sa.Row[tuple[object, ...]]]:
    """What people asked for and has not been planned yet, oldest first."""
    requests = schema.requests
    return connection.execute(sa.select(requests).where(requests.c.state == "new").order_by(requests.c.id).limit(100)).all()


def granted(transaction: store.Transaction, request: int) -> None:
    """What a person asked for is planned."""
    _settle(transaction, request, "planned", "")


def refuse(transaction: store.Transaction, request: int, reason: str) -> None:
    """What a person asked for cannot be done; ``reason`` is for them."""
    _settle(transaction, request, "refused", reason)


def design_json(design: model.Design) -> model.JsonObject:
    """A design as the journal keeps it."""
    return dataclasses.asdict(design)


def _ended_waits() -> sa.Select[Any]:
    """Experiments that wait for builds which are there, or never will be, with what is known of these."""
    treatment, control = schema.builds.alias("treatment"), schema.builds.alias("control")
    return (
        sa.select(
            _experiments.c.id,
            treatment.c.state.label("treatment"),
            control.c.state.label("control"),
            treatment.c.digest.label("treatment_digest"),
            control.c.digest.label("control_digest"),
            _experiments.c.pair,
            _experiments.c.blocks,
            _experiments.c.digests,
            _pairs.c.run_type,
            _pairs.c.request,
            _pairs.c.repository,
            *(_experiments.c[name] for name in CELL),
        )
        .join(_pairs, _pairs.c.id == _experiments.c.pair)
        .join(treatment, treatment.c.id == _experiments.c.treatment_build)
        .outerjoin(control, control.c.id == _experiments.c.control_build)
        .where(
            _experiments.c.state == "waiting",
            sa.or_(
                treatment.c.state == "failed",
                control.c.state == "failed",
                sa.and_(treatment.c.state == "built", sa.or_(control.c.state == "built", control.c.id.is_(None))),
            ),
        )
    )


def _ranked(known: Iterable[revisions.Known]) -> list[planner.Ranked]:
    return [planner.Ranked(one.revision, one.state) for one in known]


def _undecided(connection: sa.Connection, repository: str, present: Collection[str]) -> int:
    waits = sa.exists().where(_experiments.c.pair == _pairs.c.id, schema.UNDECIDED, _experiments.c.device.in_(present))
    recent = _recent(repository)
    return connection.execute(sa.select(sa.func.count(_pairs.c.treatment.distinct())).where(*recent, waits)).scalar_one()


def _recent(repository: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The newest pairs that were planned without being asked for; a bound on what any query here reads."""
    planned = (_pairs.c.repository == repository, _pairs.c.request.is_(None), _pairs.c.run_type == model.RunType.BENCHMARK)
    oldest = sa.select(_pairs.c.id).where(*planned).order_by(_pairs.c.id.desc()).limit(1).offset(LINE).scalar_subquery()
    return (*planned, _pairs.c.id > sa.func.coalesce(oldest, 0))


def _newest(
    connection: sa.Connection, repository: settings.RepositorySettings, platforms: Sequence[str]
) -> dict[str, planner.Pair]:
    """By platform, the newest pair whose treatment may build there."""
    rows = {platform: _newest_of(connection, repository, platform) for platform in platforms}
    made = {
        row.id: planner.Pair(row.id, revisions.one(connection, repository.name, row.treatment), _covered(connection, row))
        for row in {row.id: row for row in rows.values() if row}.values()
    }
    return {platform: made[row.id] for platform, row in rows.items() if row}


def _newest_of(connection: sa.Connection, repository: settings.RepositorySettings, platform: str) -> sa.Row[Any] | None:
    unbuildable = sa.exists().where(_failed(repository, platform), schema.builds.c.commit == _pairs.c.treatment)
    return connection.execute(
        sa.select(_pairs)
        .join(_revisions, sa.and_(_revisions.c.repository == _pairs.c.repository, _revisions.c.commit == _pairs.c.treatment))
        .where(*_recent(repository.name), ~unbuildable)
        .order_by(_revisions.c.position.desc(), _pairs.c.id.desc())
        .limit(1)
    ).one_or_none()


def _unbuildable(connection: sa.Connection, repository: settings.RepositorySettings, platform: str) -> frozenset[str]:
    commits = sa.select(schema.builds.c.commit).where(_failed(repository, platform))
    return frozenset(connection.scalars(commits.order_by(schema.builds.c.id.desc()).limit(LINE)))


def _failed(repository: settings.RepositorySettings, platform: str) -> sa.ColumnElement[bool]:
    """Builds of a repository that failed for a platform.

    That another's failed says nothing of it, nor does a copy's: one that is to be laid out otherwise may be more than its
    linker can do.
    """
    table = schema.builds
    return sa.and_(
        table.c.repository == repository.name,
        table.c.framework == repository.framework,
        table.c.platform == platform,
        table.c.copy == 0,
        table.c.state == "failed",
    )


def _covered(connection: sa.Connection, pair: sa.Row[Any]) -> frozenset[tuple[str, str, str]]:
    """The cells that are planned at a pair's treatment, whichever control each was given."""
    found = connection.execute(
        sa.select(*(_experiments.c[name] for name in CELL))
        .join(_pairs)
        .where(
            _pairs.c.repository == pair.repository,
            _pairs.c.treatment == pair.treatment,
            _pairs.c.request.is_(None),
            _pairs.c.run_type == model.RunType.BENCHMARK,
        )
    )
    return frozenset(tuple(cell) for cell in found)


def _orphans(connection: sa.Connection, repository: str) -> list[planner.Pair]:
    """Pairs with those of their cells whose control does not build and that have not been given another; newest first."""
    lost = (schema.ORPHANED, ~_replaced())
    rows = connection.execute(
        sa.select(_pairs.c.id, _pairs.c.treatment)
        .where(*_recent(repository), sa.exists().where(_experiments.c.pair == _pairs.c.id, *lost))
        .order_by(_pairs.c.id.desc())
        .limit(ORPHANS)
    ).all()
    named = (_experiments.c[name] for name in CELL)
    of_rows = _experiments.c.pair.in_([row.id for row in rows])
    cells: dict[int, list[tuple[str, str, str]]] = {row.id: [] for row in rows}
    for pair, *cell in connection.execute(sa.select(_experiments.c.pair, *named).join(_pairs).where(of_rows, *lost)):
        cells[pair].append(tuple(cell))
    return [planner.Pair(row.id, revisions.one(connection, repository, row.treatment), frozenset(cells[row.id])) for row in rows]


def _replaced() -> sa.ColumnElement[bool]:
    """Whether an experiment of :data:`_pairs` has a later one of the same cell and treatment."""
    later, again = _pairs.alias("later"), _experiments.alias("again")
    return (
        sa.exists()
        .where(
            later.c.request.is_(None),
            later.c.run_type == model.RunType.BENCHMARK,
            later.c.repository == _pairs.c.repository,
            later.c.treatment == _pairs.c.treatment,
            later.c.id > _pairs.c.id,
            again.c.pair == later.c.id,
            *(again.c[name] == _experiments.c[name] for name in CELL),
        )
        .correlate(_pairs, _experiments)
    )


def _good(connection: sa.Connection, repository: str) -> frozenset[str]:
    """Commits of which all has ended, and nothing regressed or broke.

    Of each pair, a row or none is read of each of two indexes that hold few; and where there is none, of one that was decided.
    """
    waits, bad, decided = (
        sa.exists().where(_experiments.c.pair == _pairs.c.id, *of).correlate(_pairs)
        for of in ([schema.UNDECIDED], [schema.BAD, ~_as_good()], [_experiments.c.verdict.is_not(None)])
    )
    ended_well = sa.case((sa.or_(waits, bad), False), (decided, True))  # NULL of a pair that says nothing
    rows = connection.execute(sa.select(_pairs.c.treatment, ended_well).where(*_recent(repository))).all()
    return frozenset(commit for commit, well in rows if well).difference(commit for commit, well in rows if well == 0)


def _as_good() -> sa.ColumnElement[bool]:
    """Whether what an experiment shows is refuted, or is accepted as the new baseline, be it there or before."""
    finding = schema.findings.c
    settled = sa.exists().where(finding.suspect == _experiments.c.id, finding.state.in_((suspicion.REFUTED, suspicion.ACCEPTED)))
    sighted = sa.exists().where(
        schema.sightings.c.experiment == _experiments.c.id,
        schema.sightings.c.finding == finding.id,
        finding.state == suspicion.ACCEPTED,
    )
    return sa.or_(settled, sighted)


def _settle(transaction: store.Transaction, request: int, state: str, reason: str) -> None:
    transaction.connection.execute(
        schema.requests.update().where(schema.requests.c.id == request).values(state=state, reason=reason)
    )
    transaction.announce(f"request.{state}", id=request, reason=reason)


def _mark(transaction: store.Transaction, revision: model.Revision, state: str, note: str) -> None:
    transaction.connection.execute(
        _revisions.update()
        .where(_revisions.c.repository == revision.repository, _revisions.c.commit == revision.commit)
        .values(state=state, note=note)
    )


def _planned(transaction: store.Transaction, repository: str, now: datetime) -> None:
    transaction.connection.execute(
        schema.repositories.update().where(schema.repositories.c.name == repository).values(planned_at=now)
    )


def _add(
    transaction: store.Transaction,
    repository: settings.RepositorySettings,
    pair: int,
    treatment: str,
    control: str | None,
    cells: Sequence[coverage.Cell],
    experiment: settings.ExperimentSettings,
    priority: int,
    now: datetime,
    reason: str,
) -> None:
    for cell in cells:
        own = design_of(cell, repository.framework, experiment, 1 if control is None else 2, again.seed_of(pair, cell.key))
        design = dataclasses.replace(own, summary=_summary(transaction, pair, cell))
        rank = repository.priority + cell.selected.selection.priority + priority
        build = _wanted(transaction, repository, treatment, cell, rank)
        against = None if control is None or design.arms == 1 else _wanted(transaction, repository, control, cell, rank)
        _new_experiment(transaction, pair, cell, design, build, against, rank, now, reason)
    transaction.announce("experiment.planned", pair=pair, count=len(cells))


def _summary(transaction: store.Transaction, pair: int, cell: coverage.Cell) -> model.Summary:
    """Which number of a process is decided on, by what the cell has shown up to now."""
    return noises.summary_of(transaction.connection, pair, (cell.selected.digest, cell.device.name, cell.backend))


def _wanted(
    transaction: store.Transaction, repository: settings.RepositorySettings, commit: str, cell: coverage.Cell, rank: int
) -> int:
    return builds.want(transaction, builds.Key(repository.name, commit, repository.framework, cell.device.platform), rank)


def _variant(side: Side) -> model.Variant:
    selected = side.cell.selected
    own = selected.selection
    return model.Variant(selected.benchmark, side.repository.framework, side.cell.backend, own.env, own.command_args)


def _new_experiment(
    transaction: store.Transaction,
    pair: int,
    cell: coverage.Cell,
    design: model.Design,
    treatment_build: int,
    control_build: int | None,
    rank: int,
    now: datetime,
    reason: str = "",
) -> None:
    key = (cell.selected.digest, cell.device.name, cell.backend)
    written = design_json(design)
    transaction.connection.execute(
        _experiments.insert().values(
            pair=pair,
            **dict(zip(CELL, key, strict=True)),
            identifier=cell.selected.benchmark.identifier,
            model=cell.selected.benchmark.name,
            treatment_build=treatment_build,
            control_build=control_build,
            design=written,
            **noises.expected(transaction.connection, pair, key, written),
            state="waiting",
            reason=reason,
            priority=rank,
            created_at=now,
        )
    )
