"""Comparisons that a person asks for: of two cells, on one device or on two, and of a commit with itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aibenchd import model, settings
from aibenchd.plan import coverage
from aibenchd.store import again, planning, requests, store

CALIBRATION_PRIORITY = 1_000  # as a person's request
# What two cells are compared by: what is steady for the one need not be for the other, and neither is the older.
OF_CELLS = model.Summary(guard=False)
PROCESSES_APART = 10  # at least, of each of two cells on two devices


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
    request = _requested(transaction, arms, priority, requested_by)
    commits = (treatment.commit, control.commit)
    rank_of_pair = treatment.repository.priority + priority
    pair = again.new_pair(
        transaction, treatment.repository.name, *commits, model.RunType.COMPARE, request=request, priority=rank_of_pair
    )
    for one, other in arms:
        rank = one.repository.priority + one.cell.selected.selection.priority + priority
        own = planning.design_of(one.cell, one.repository.framework, experiment, 2, again.seed_of(pair, one.cell.key))
        design = dataclasses.replace(own, arms=2, control=_variant(other), summary=OF_CELLS)
        builds_of = [planning.wanted_build(transaction, side.repository, side.commit, side.cell, rank) for side in (one, other)]
        planning.add_experiment(transaction, pair, one.cell, design, builds_of[0], builds_of[1], rank, now)
    transaction.announce("experiment.planned", pair=pair, count=len(arms))
    requests.granted(transaction, request)
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
    now = datetime.now(UTC)
    request = _requested(transaction, arms, priority, requested_by)
    for sides in zip(*arms, strict=True):  # all treatments, then all controls
        repository, commit = sides[0].repository, sides[0].commit
        rank_of_pair = repository.priority + priority
        pair = again.new_pair(
            transaction, repository.name, commit, None, model.RunType.COMPARE, request=request, priority=rank_of_pair
        )
        for side in sides:
            rank = repository.priority + side.cell.selected.selection.priority + priority
            own = planning.design_of(side.cell, repository.framework, experiment, 1, again.seed_of(pair, side.cell.key))
            design = dataclasses.replace(own, blocks=max(own.blocks, PROCESSES_APART), summary=OF_CELLS)
            build = planning.wanted_build(transaction, repository, commit, side.cell, rank)
            planning.add_experiment(transaction, pair, side.cell, design, build, None, rank, now)
        transaction.announce("experiment.planned", pair=pair, count=len(sides))
    requests.granted(transaction, request)
    return request


def calibrate(
    transaction: store.Transaction, sides: Sequence[Side], experiment: settings.ExperimentSettings, blocks: int, requested_by: str
) -> int:
    """Plan to compare a commit with itself, in so many blocks of each cell, whatever they say; the number of the request.

    Args:
        sides: of one device, repository and commit; at least one.
    """
    now, first = datetime.now(UTC), sides[0]
    request = _requested(transaction, [(side, side) for side in sides], 0, requested_by)
    commits = (first.commit, first.commit)
    rank = first.repository.priority + CALIBRATION_PRIORITY
    pair = again.new_pair(transaction, first.repository.name, *commits, model.RunType.SELFCHECK, request=request, priority=rank)
    for side in sides:
        own = planning.design_of(side.cell, side.repository.framework, experiment, 2, again.seed_of(pair, side.cell.key))
        rule, summary = model.Rule.of_blocks(blocks, own.rule.min_effect), planning.summary_of(transaction, pair, side.cell)
        design = dataclasses.replace(own, arms=2, rule=rule, summary=summary)
        build = planning.wanted_build(transaction, side.repository, side.commit, side.cell, rank)
        planning.add_experiment(transaction, pair, side.cell, design, build, build, rank, now)
    transaction.announce("experiment.planned", pair=pair, count=len(sides))
    requests.granted(transaction, request)
    return request


def _requested(transaction: store.Transaction, arms: Sequence[tuple[Side, Side]], priority: int, requested_by: str) -> int:
    """The number of a request that is planned here, as it is made."""
    treatment, control = arms[0]
    return requests.add(
        transaction,
        repository=treatment.repository.name,
        treatment=treatment.commit,
        control=control.commit,
        benchmarks=[one.cell.selected.benchmark.identifier for one, _ in arms],
        devices=list(dict.fromkeys(side.cell.device.name for side in arms[0])),
        priority=priority,
        requested_by=requested_by,
    )


def _variant(side: Side) -> model.Variant:
    selected = side.cell.selected
    own = selected.selection
    return model.Variant(selected.benchmark, side.repository.framework, side.cell.backend, own.env, own.command_args)
