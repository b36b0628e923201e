"""Runs the planner: whenever something that it depends on has changed, each repository's window is planned anew."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import crashpoints, errors, events, model, plugins
from aibenchd import settings as configuration
from aibenchd.plan import coverage, planner
from aibenchd.store import comparisons, planning, promotion, requests, revisions, store, window
from aibenchd.watch import base as watch

REQUEST_PRIORITY = 1_000  # a person's request goes first
TOPICS = ("revision.", "build.", "experiment.decided", "experiment.skipped", "request.new", "follow.", "daemon.")

log = structlog.get_logger()

Identical = Callable[[store.Transaction, int], None]


@dataclass(frozen=True, slots=True)
class World:
    """What there is to plan with, at one time.

    Attributes:
        clone: gives a repository's clone.
        found: what devices turned out to be.
    """

    settings: configuration.Settings
    selected: Sequence[coverage.Selected]
    clone: Callable[[configuration.RepositorySettings], watch.Repository]
    found: coverage.Found = field(default_factory=dict)

    def cells(self, repository: configuration.RepositorySettings) -> tuple[coverage.Cell, ...]:
        """The cells that a repository's builds are measured in."""
        return coverage.cells(repository, self.selected, self.settings.devices, known_backends(repository.framework), self.found)

    def homes(self) -> tuple[coverage.Home, ...]:
        """All cells of the matrix, also those that are impossible."""
        return homes(self.settings, self.selected, self.found)

    def named(self, repository: str) -> configuration.RepositorySettings | None:
        """A repository's settings; the only one's where no name is given."""
        if not repository and len(self.settings.repositories) == 1:
            return self.settings.repositories[0]
        return next((one for one in self.settings.repositories if one.name == repository), None)


def homes(
    chosen: configuration.Settings, selected: Sequence[coverage.Selected], found: coverage.Found
) -> tuple[coverage.Home, ...]:
    """As :meth:`World.homes`, of what is selected."""
    own = (
        coverage.Home(one.name, one.framework, cell)
        for one in chosen.repositories
        for cell in coverage.matrix(one, selected, chosen.devices, known_backends(one.framework), found)
    )
    return (*own, *coverage.homeless(chosen.repositories, selected, chosen.devices, found))


def known_backends(framework: str) -> tuple[str, ...]:
    """What a framework can be asked for; empty where it does not say, or is not installed, which its experiments will say."""
    try:
        return tuple(plugins.load("frameworks", framework).backends)  # type: ignore[attr-defined]
    except errors.UnknownKindError:
        return ()


class Planning:
    """``world`` gives what there is now; ``identical`` ends an experiment whose builds turned out to be the same."""

    def __init__(self, journal: store.Store, world: Callable[[], World], identical: Identical) -> None:
        self._store = journal
        self._world = world
        self._identical = identical

    async def run(self) -> None:
        """Plan for ever."""
        with self._store.events.bell(*TOPICS) as bell:
            while True:
                again_in = await self.look()
                await bell.wait(again_in)

    async def look(self) -> float:
        """Plan whatever there is to plan now; seconds until the next look is due though nothing happens."""
        world = self._world()
        await self._take_requests(world)
        again_in = events.LOOK_SECONDS
        for repository in world.settings.repositories:
            again_in = min(again_in, await self._plan(world, repository))
        while await self._store.read(promotion.promotable):
            await self._store.write(lambda tx: promotion.promote(tx, self._identical))
        # Experiments of a platform that no device has any more wait for one, and not for its builds.
        platforms = {device.platform for device in world.settings.devices}
        lost = [entry for entry in await self._store.read(promotion.evicted_but_needed) if entry.platform in platforms]
        if lost:
            await self._store.write(lambda tx: promotion.want_again(tx, lost))
        return again_in

    async def _plan(self, world: World, repository: configuration.RepositorySettings) -> float:

        def look(connection: sa.Connection) -> planner.Plan:
            seen = window.of(connection, repository, world.settings.devices, datetime.now(UTC))
            return planner.plan(seen, repository, world.cells(repository))  # of which there may be many

        def write(tx: store.Transaction) -> None:
            share = world.settings.selfcheck.share
            planning.carry_out(tx, repository, made.steps, world.settings.experiment, selfchecks_share=share)
            crashpoints.reach("plan.before-commit")

        made = await self._store.read(look)
        if made.steps:
            await self._store.write(write)
            crashpoints.reach("plan.after-commit")
            log.info("planned", repository=repository.name, steps=len(made.steps))
        if made.again_at is None:
            return events.LOOK_SECONDS
        return max(0.0, (made.again_at - datetime.now(UTC)).total_seconds())

    async def _take_requests(self, world: World) -> None:
        while new := await self._store.read(requests.new):
            for request in new:
                try:
                    await self._take(world, request)
                except errors.AibenchdError as error:
                    await self._store.write(functools.partial(requests.refuse, request=request.id, reason=str(error)))

    async def _take(self, world: World, request: sa.Row[Any]) -> None:
        """Plan what a person asked for.

        Raises:
            AibenchdError: it cannot be done; the message says why, to who asked.
        """
        repository = world.named(request.repository)
        if repository is None:
            known = ", ".join(one.name for one in world.settings.repositories) or "none"
            raise errors.UnknownRevisionError(f"no repository {request.repository!r}; there are: {known}")
        cells = _wanted(world.cells(repository), request.benchmarks, request.devices)
        clone = world.clone(repository)
        treatment = await _resolved(clone, request.treatment)
        named = await _resolved(clone, request.control) if request.control else None

        def write(tx: store.Transaction) -> None:
            seen = window.of(tx.connection, repository, world.settings.devices, datetime.now(UTC))
            by_rule = functools.partial(planner.pairs, treatment, seen, repository.baseline, cells)
            steps = [planner.PlanPair(treatment, named, cells)] if named else by_rule()
            revisions.remember(tx, {one for step in steps for one in (step.treatment, step.control) if one is not None})
            priority = REQUEST_PRIORITY + request.priority
            planning.carry_out(tx, repository, steps, world.settings.experiment, request=request.id, priority=priority)
            requests.granted(tx, request.id)

        await self._store.write(write)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a person asks for: a model, and two of its cells as :func:`aibenchd.plan.coverage.find` takes them."""

    model: str
    treatment: str
    control: str
    priority: int
    requested_by: str


async def compare(journal: store.Store, world: World, wanted: Comparison) -> int:
    """Plan a comparison of two cells: interleaved on their device, or each by itself on its own; the number of the request.

    Raises:
        CommandError: it cannot be done; the message says why, to who asked.
    """
    homes = await anyio.to_thread.run_sync(world.homes)
    names = coverage.rows(homes)
    sides = []
    for place in (wanted.treatment, wanted.control):
        found = coverage.find(homes, names, wanted.model, place)
        sides.append(await journal.read(functools.partial(_built, found=found)))
    (treatment, newer), (control, older) = sides
    by_name = {repository.name: repository for repository in world.settings.repositories}
    arms = [
        (
            comparisons.Side(by_name[one.repository], newer.commit, one.cell),
            comparisons.Side(by_name[other.repository], older.commit, other.cell),
        )
        for one, other in coverage.side_by_side(treatment, control, names)
    ]
    plan = comparisons.compare if treatment[0].cell.device == control[0].cell.device else comparisons.compare_apart
    return await journal.write(
        lambda tx: plan(tx, arms, world.settings.experiment, REQUEST_PRIORITY + wanted.priority, wanted.requested_by)
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a person asks for: to compare a commit with itself on a device, in so many blocks of each benchmark."""

    device: str
    repository: str
    benchmarks: Sequence[str]
    blocks: int
    requested_by: str


async def calibrate(journal: store.Store, world: World, wanted: Calibration) -> int:
    """Plan a calibration with the newest revision that is built; the number of the request.

    Raises:
        CommandError: it cannot be done; the message says why, to who asked.
    """
    cells = {
        one.name: [cell for cell in await anyio.to_thread.run_sync(world.cells, one) if cell.device.name == wanted.device]
        for one in world.settings.repositories
        if wanted.repository in ("", one.name)
    }
    measured = [name for name, own in cells.items() if own]
    if len(measured) != 1:
        told = f"of {' and '.join(measured)}; name one with --repository" if measured else "of no repository that is there"
        raise errors.CommandError(f"{wanted.device} measures benchmarks {told}")
    repository = next(one for one in world.settings.repositories if one.name == measured[0])
    chosen = _wanted(cells[repository.name], wanted.benchmarks, [])
    platform = chosen[0].device.platform
    newest = await journal.read(
        lambda connection: revisions.newest_built(connection, repository.name, repository.framework, platform)
    )
    if newest is None:
        raise errors.CommandError(
            f"no revision of {repository.name} is built for {platform} yet; 'aibenchctl builds' shows what there is"
        )
    sides = [comparisons.Side(repository, newest.commit, cell) for cell in chosen]
    return await journal.write(
        lambda tx: comparisons.calibrate(tx, sides, world.settings.experiment, wanted.blocks, wanted.requested_by)
    )


def _built(connection: sa.Connection, found: Sequence[coverage.Home]) -> tuple[list[coverage.Home], model.Revision]:
    """Of cells in one place, those of the repository whose newest revision that is built is the newest, and that revision."""
    platform = found[0].cell.device.platform
    revisions_of = {
        repository: revision
        for repository in dict.fromkeys(home.repository for home in found)
        if (revision := revisions.newest_built(connection, repository, found[0].framework, platform)) is not None
    }
    if not revisions_of:
        wanted = " or ".join(dict.fromkeys(home.repository for home in found))
        raise errors.CommandError(
            f"no revision of {wanted} is built for {found[0].framework}/{platform} yet; 'aibenchctl builds' shows what there is"
        )
    chosen = max(revisions_of.values(), key=lambda revision: revision.time)
    return [home for home in found if home.repository == chosen.repository], chosen


async def _resolved(clone: watch.Repository, name: str) -> model.Revision:
    try:
        return await clone.resolve(name)
    except errors.UnknownRevisionError:
        await clone.fetch()  # it may have been pushed since the last poll
        return await clone.resolve(name)


def _wanted(cells: Sequence[coverage.Cell], benchmarks: Sequence[str], on_devices: Sequence[str]) -> tuple[coverage.Cell, ...]:
    wanted = tuple(
        cell
        for cell in cells
        if (not benchmarks or any(fnmatch.fnmatchcase(cell.selected.benchmark.identifier, glob) for glob in benchmarks))
        and (not on_devices or cell.device.name in on_devices)
    )
    if not wanted:
        raise errors.CommandError("no benchmark on any device fits; 'aibenchctl coverage' shows what there is")
    return wanted
