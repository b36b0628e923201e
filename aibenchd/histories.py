"""What is read from the history of a cell: how noisy it is, which number it is decided on, and whether it creeps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import events, following, model
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.store import noises, series, store

if TYPE_CHECKING:
    from aibenchd import creeping  # it imports numpy

TOPICS = ("experiment.decided", "daemon.")

log = structlog.get_logger()


class Histories:
    """What only many experiments show: noise, and drifts. Apart from what regressed, for long ones take seconds each.

    ``current`` gives the settings as they are now. What breaks of one series holds up no other: it is raised when the rest is
    done.
    """

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings]) -> None:
        self._store, self._current = journal, current
        self._seen_until = datetime.now(UTC) - following.LOOK_BACK

    async def run(self) -> None:
        """Look for ever."""
        await events.whenever(self._store.events, TOPICS, self.look)

    async def look(self) -> None:
        """Look at the series that have something new; each whole, so that none need be looked at for what came earlier."""
        while (found := await self._store.read(functools.partial(series.decided_since, when=self._seen_until))).cells:
            broken = [*await events.each(found.cells, self._note_noise), *await events.each(found.cells, self._creep)]
            if broken:
                raise broken[0]
            self._seen_until = found.until

    async def _note_noise(self, cell: suspicion.Cell) -> None:
        """How noisy a cell is, and which number of a process its next experiments are decided on."""
        known = await self._store.read(functools.partial(_history, cell=cell))
        facts, chosen = await anyio.to_thread.run_sync(_noise, known)
        if chosen != known.now:
            log.info("decided on another number from now on", cell=cell.identifier, device=cell.device, summary=chosen)
        if facts:
            put = functools.partial(noises.put, cell=cell, facts=facts, summary=chosen, chosen_at=known.due)
            await self._store.write(put)

    async def _creep(self, cell: suspicion.Cell) -> None:
        if not self._current().creep.enabled:
            return
        history = await self._store.read(functools.partial(series.of_cell, cell=cell))
        wanted = await anyio.to_thread.run_sync(_wanted, history, self._current().creep)
        if wanted is not None:
            await self._store.write(functools.partial(series.compare, cell=cell, older=wanted.older, newer=wanted.newer))
            log.info("compared far apart", cell=cell.identifier, device=cell.device, reason=wanted.reason)


def _wanted(history: series.Series, rule: configuration.CreepSettings) -> creeping.Wanted | None:
    from aibenchd import creeping

    return creeping.wanted(history, rule)


@dataclass(frozen=True, slots=True)
class _History:
    """What is known of a cell, of what was decided on its number ``now`` and of others.

    Attributes:
        iterations: where they are needed: to choose, or to say of blocks what they are by another number.
        due: its newest experiment, where its number is to be chosen anew.
    """

    newest: Sequence[noises.Blocks]
    iterations: Sequence[Sequence[noises.Iterations]]
    now: model.Summary
    due: int | None


def _history(connection: sa.Connection, cell: suspicion.Cell) -> _History:
    newest, now = noises.newest_blocks(connection, cell), noises.now(connection, cell)
    if any(one.design.benchmark.metric in model.OTHER_MEASURES for one in newest):
        return _History(newest, (), now, None)  # its numbers are no times: iterations say nothing of them
    due = noises.due(connection, cell)
    needed = due is not None or not all(one.design.summary.same_number(now) for one in newest)
    return _History(newest, noises.newest_iterations(connection, cell) if needed else (), now, due)


def _noise(known: _History) -> tuple[dict[str, float | int | None], model.Summary]:
    from aibenchd.measure import outlook

    chosen = known.now if known.due is None else outlook.chosen(known.iterations, known.now)
    return outlook.facts(known.newest, chosen, known.iterations), chosen
