"""The steps of a plan as experiments that wait for their builds, and all that is frozen of one before its first block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from aibenchd import model, settings
from aibenchd.plan import coverage, planner
from aibenchd.store import again, builds, noises, schema, selfchecks, store

NEW_CELL = "no control: measured here for the first time; the next revision is compared with one"

_revisions, _experiments = schema.revisions, schema.experiments


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
                add(transaction, repository, pair.id, pair.treatment.commit, None, cells, experiment, priority, now, NEW_CELL)
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
                add(transaction, repository, pair_id, treatment.commit, commit, cells, experiment, priority, now, alone)
                selfchecks.plan(transaction, pair_id, selfchecks_share if control else 0.0)
                if request is None:
                    _mark(transaction, treatment, "planned", "")
                    _planned(transaction, repository.name, now)


def add(
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
    """Plan experiments of a pair, one for each cell; of one arm where there is no ``control``.

    Args:
        treatment, control: commits.
        priority: added to the repository's and the cell's own.
        reason: why there is no control.
    """
    for cell in cells:
        own = design_of(cell, repository.framework, experiment, 1 if control is None else 2, again.seed_of(pair, cell.key))
        design = dataclasses.replace(own, summary=summary_of(transaction, pair, cell))
        rank = repository.priority + cell.selected.selection.priority + priority
        build = wanted_build(transaction, repository, treatment, cell, rank)
        against = None if control is None or design.arms == 1 else wanted_build(transaction, repository, control, cell, rank)
        add_experiment(transaction, pair, cell, design, build, against, rank, now, reason)
    transaction.announce("experiment.planned", pair=pair, count=len(cells))


def add_experiment(
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
    """Plan one experiment, which waits for its builds; they are given by their numbers, as :func:`wanted_build` has them."""
    key = (cell.selected.digest, cell.device.name, cell.backend)
    written = design_json(design)
    transaction.connection.execute(
        _experiments.insert().values(
            pair=pair,
            **dict(zip(schema.CELL, key, strict=True)),
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


def design_json(design: model.Design) -> model.JsonObject:
    """A design as the journal keeps it."""
    return dataclasses.asdict(design)


def summary_of(transaction: store.Transaction, pair: int, cell: coverage.Cell) -> model.Summary:
    """Which number of a process is decided on, by what the cell has shown up to now."""
    return noises.summary_of(transaction.connection, pair, (cell.selected.digest, cell.device.name, cell.backend))


def wanted_build(
    transaction: store.Transaction, repository: settings.RepositorySettings, commit: str, cell: coverage.Cell, rank: int
) -> int:
    """The number of the build of a commit for a cell's device; it is queued where there is none."""
    return builds.want(transaction, builds.Key(repository.name, commit, repository.framework, cell.device.platform), rank)


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
