"""What follows from verdicts: a suspect is measured again; what is confirmed is reported, and the commits at fault are searched.

It reads the journal and writes its next steps there, as the planner does; a crash anywhere is a restart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from aibenchd import bisecting, events, model, telling, verifying
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.report import recording
from aibenchd.store import findings, searches, series, store, triage

if TYPE_CHECKING:
    from aibenchd.watch import base as watch

LOOK_BACK = timedelta(days=1)  # over what was decided while nobody looked
TOPICS = ("experiment.decided", "experiment.skipped", "experiment.cancelled", "finding.", "search.", "build.failed", "daemon.")

log = structlog.get_logger()


class Following:
    """What breaks of one commit or one search holds up no other: it is raised when the rest is done.

    Args:
        current: gives the settings as they are now.
        recorder: makes what is reported of a regression.
        clone: gives a repository's clone.
        away: names devices that are configured, and no block can be run on now.
    """

    def __init__(
        self,
        journal: store.Store,
        current: Callable[[], configuration.Settings],
        recorder: recording.Recorder,
        clone: Callable[[configuration.RepositorySettings], watch.Repository],
        away: Callable[[], Collection[str]],
    ) -> None:
        self._store, self._current, self._recorder = journal, current, recorder
        self._telling = telling.Telling(journal, current, recorder)
        self._verifying = verifying.Verifying(journal, current, recorder, self._telling)
        self._bisecting = bisecting.Bisecting(journal, current, recorder, self._telling, clone, away)
        self._mends_until = datetime.now(UTC) - LOOK_BACK

    async def run(self) -> None:
        """Follow for ever."""
        await events.whenever(self._store.events, TOPICS, self.look)

    async def look(self) -> None:
        """Do whatever there is to do now."""
        await self._let_lapse()
        broken = await events.each([await self._accepted()], self._tell_accepted)
        broken += await events.each((await self._store.read(searches.to_stop)).items(), self._stop)
        broken += await events.each(await self._verifying.suspects(), self._verifying.take_up)
        broken += await events.each(await self._verifying.verified(), self._verifying.settle)
        broken += await self._look_for_mends()
        if self._current().bisect.enabled:
            broken += await events.each(
                suspicion.by_range(await self._store.read(searches.to_search)).values(), self._bisecting.search
            )
        if broken:
            raise broken[0]

    async def _let_lapse(self) -> None:
        now = datetime.now(UTC)
        if ended := await self._store.read(functools.partial(triage.lapsed, now=now)):
            await self._store.write(functools.partial(triage.lapse, findings=ended, now=now))

    async def _accepted(self) -> list[triage.Accepted]:
        return await self._store.read(functools.partial(triage.accepted, since=datetime.now(UTC) - LOOK_BACK))

    async def _tell_accepted(self, accepted: Sequence[triage.Accepted]) -> None:
        """In their order: what breaks is told at the next look, and those after it then."""
        for one in accepted:
            left = await self._telling.told(one.finding, "accepted", number=one.number, by=one.by, why=one.why)
            write = functools.partial(self._write_accepted, number=one.number, left=left)
            await self._store.write(write)

    def _write_accepted(self, tx: store.Transaction, number: int, left: recording.Left) -> None:
        triage.told(tx, number)
        self._recorder.queue(tx, left)

    async def _stop(self, accepted: tuple[int, model.Json]) -> None:
        """End the search of a finding that was accepted; what it found so far is kept."""
        finding, found = accepted
        await self._bisecting.end(finding, suspicion.STOPPED, found)

    async def _look_for_mends(self) -> list[Exception]:
        since = self._mends_until
        found = await self._store.read(functools.partial(findings.mends, since=since))
        broken = await events.each(found.mends, self._mend)
        broken += await events.each(await self._store.read(findings.perhaps_mended), self._doubt)
        if not broken:
            self._mends_until = found.until
        return broken

    async def _mend(self, mend: findings.Mend) -> None:
        left = await self._telling.told(mend.finding, "mended", mended=mend.commit)

        def write(tx: store.Transaction) -> None:
            findings.mended(tx, mend)
            self._recorder.queue(tx, left)

        await self._store.write(write)
        log.info("mended", finding=mend.finding, commit=mend.commit)

    async def _doubt(self, doubt: findings.Doubt) -> None:
        """Have a commit compared with what was before a finding: nothing else may ever show that it is gone."""
        compare = functools.partial(series.compare, cell=doubt.cell, older=doubt.before, newer=doubt.commit)
        await self._store.write(compare)
        log.info("compared with what was before a finding", finding=doubt.finding, commit=doubt.commit, before=doubt.before)
