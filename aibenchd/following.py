"""What follows from verdicts: a suspect is measured again; what is confirmed is reported, and the commits at fault are searched.

It reads the journal and writes its next steps there, as the planner does; a crash anywhere is a restart.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import crashpoints, model
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.report import recording
from aibenchd.store import experiments, findings, noises, searches, series, store

if TYPE_CHECKING:
    from aibenchd import creeping  # they import numpy
    from aibenchd.plan import searching

LOOK_BACK = timedelta(days=1)  # over what was decided while nobody looked
LOOK_SECONDS = 300.0  # between two looks though nothing was told
FRESH_COPY = 1  # which copy of a build is one that was made anew
NOT_VERIFIED = "it was not measured again: verify is off"
ALONE = "measured alone: there is nothing that it could have regressed from"
OFF_BRANCH = "its control is not on the branch below it: there is no line of commits to search"
SEARCH_ENDED = "the search that it was measured for has ended"
TOPICS = ("experiment.decided", "experiment.skipped", "experiment.cancelled", "finding.", "search.", "build.failed", "daemon.")

log = structlog.get_logger()


class Following:
    """``current`` gives the settings as they are now; ``recorder`` makes what is reported of a regression."""

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings], recorder: recording.Recorder) -> None:
        self._store, self._current, self._recorder = journal, current, recorder
        self._seen_until = datetime.now(UTC) - LOOK_BACK

    async def run(self) -> None:
        """Follow for ever."""
        with self._store.events.bell(*TOPICS) as bell:
            while True:
                await self.look()
                await bell.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Do whatever there is to do now."""
        await self._take_up()
        await self._settle()
        if self._current().bisect.enabled:
            for confirmed in suspicion.by_range(await self._store.read(searches.to_search)).values():
                await self._search(confirmed)

        await self._look_at_series()

    # ---- what only many experiments show

    async def _look_at_series(self) -> None:
        """Look at the series that have something new; each whole, so that none need be looked at for what came earlier."""
        since, self._seen_until = self._seen_until, datetime.now(UTC)
        for cell in await self._store.read(functools.partial(series.decided_since, when=since)):
            await self._note_noise(cell)
            if self._current().creep.enabled:
                await self._creep(cell)

    async def _note_noise(self, cell: suspicion.Cell) -> None:
        newest = await self._store.read(functools.partial(noises.newest_blocks, cell=cell))
        facts = await anyio.to_thread.run_sync(_noise, newest)
        if facts:
            await self._store.write(functools.partial(noises.put, cell=cell, facts=facts))

    async def _creep(self, cell: suspicion.Cell) -> None:
        history = await self._store.read(functools.partial(series.of_cell, cell=cell))
        wanted = await anyio.to_thread.run_sync(_wanted, history, self._current().creep)
        if wanted is not None:
            await self._store.write(functools.partial(series.compare, series=history, older=wanted.older, newer=wanted.newer))
            log.info("compared far apart", cell=cell.identifier, device=cell.device, reason=wanted.reason)

    # ---- suspects

    async def _take_up(self) -> None:
        suspects = await self._store.read(findings.unseen)
        if not suspects:
            return
        known = await self._store.read(functools.partial(findings.known, cells={one.cell for one in suspects}))
        fresh = []
        for suspect in suspects:
            finding = suspicion.sighting_of(suspect, known)
            if finding is None:
                fresh.append(suspect)
            else:
                await self._store.write(functools.partial(findings.sighted, finding=finding, experiment=suspect.experiment))
        for of in dict.fromkeys(one.of for one in fresh):
            own = [one for one in fresh if one.of == of]
            if of.control is None:
                await self._leave(own, ALONE)
            elif self._current().verify.enabled:
                await self._verify(of, own)
            else:
                await self._leave(own, NOT_VERIFIED)

    async def _leave(self, suspects: Sequence[suspicion.Suspect], reason: str) -> None:
        def write(tx: store.Transaction) -> None:
            for one in suspects:
                findings.add(tx, one.experiment, suspicion.UNCONFIRMED, reason)

        await self._store.write(write)

    async def _verify(self, of: suspicion.Range, suspects: Sequence[suspicion.Suspect]) -> None:
        rule = self._current().verify

        def write(tx: store.Transaction) -> None:
            added = {findings.add(tx, one.experiment, suspicion.SUSPECT): one.experiment for one in suspects}
            family = len(findings.family(tx.connection, of.repository, of.treatment))
            copy = FRESH_COPY if rule.builds == "fresh" else 0
            findings.verify(tx, of, added, family / rule.false_discovery_rate, copy)
            crashpoints.reach("verify.before-commit")

        await self._store.write(write)
        log.info("suspects", repository=of.repository, treatment=of.treatment, count=len(suspects))

    # ---- what measured them again

    async def _settle(self) -> None:
        waiting = await self._store.read(findings.to_settle)
        for commit in dict.fromkeys((one.of.repository, one.of.treatment) for one in waiting):
            of_commit = [one for one in waiting if (one.of.repository, one.of.treatment) == commit]
            await self._settle_commit(*commit, of_commit)

    async def _settle_commit(self, repository: str, treatment: str, verified: Sequence[findings.Verified]) -> None:
        ended = [one for one in verified if one.state not in ("waiting", "open")]
        if not ended:
            return
        known = await self._store.read(functools.partial(findings.family, repository=repository, treatment=treatment))
        undecided = await self._store.read(functools.partial(findings.undecided, repository=repository, treatment=treatment))
        weighed = await anyio.to_thread.run_sync(_weighed, ended)
        earlier = [evidence for evidence in known.values() if evidence is not None]
        rate = self._current().verify.false_discovery_rate
        family = len(known) + undecided
        chosen = await anyio.to_thread.run_sync(_chosen, weighed, earlier, family, rate)
        waiting = undecided + len(verified) - len(ended)
        for settled in suspicion.settled(weighed, chosen, waiting, family, rate):
            verify = next(one.verify for one in ended if one.finding == settled.finding)
            await self._conclude(settled, verify)

    async def _conclude(self, settled: suspicion.Settled, verify: int) -> None:
        left, explained = recording.Left(), None
        if settled.state == suspicion.OPEN:
            facts = await self._store.read(functools.partial(_measured, experiment=verify))
            left = await anyio.to_thread.run_sync(
                self._recorder.of_confirmation, facts.experiment, facts.decision, facts.series, facts.backend, facts.fingerprint
            )
            explained = await self._store.read(functools.partial(_explained, experiment=verify))

        def write(tx: store.Transaction) -> None:
            findings.settle(tx, settled, explained)
            self._recorder.write(tx, verify, left)
            crashpoints.reach("confirm.before-commit")

        await self._store.write(write)
        log.info("suspect settled", finding=settled.finding, state=settled.state, reason=settled.reason)

    # ---- the commits at fault

    async def _search(self, confirmed: Sequence[suspicion.Confirmed]) -> None:
        """Go on with the search that stands for all findings of two commits; or take over what an earlier one found."""
        lead = suspicion.lead_of(confirmed)
        earlier = await self._store.read(functools.partial(searches.ended, of=lead.suspect.of, slower=lead.suspect.slower))
        if earlier is not None:
            for one in confirmed:
                await self._put(one.finding, earlier.search, earlier.culprits)
            return
        for one in confirmed:
            if one is not lead and one.search == suspicion.NOT_YET:
                await self._put(one.finding, suspicion.DEFERRED, None)
        await self._step(lead)

    async def _step(self, lead: suspicion.Confirmed) -> None:
        known = await self._store.read(functools.partial(searches.searched, finding=lead.finding))
        if not known.line:
            await self._put(lead.finding, suspicion.IMPOSSIBLE, None, OFF_BRANCH)
        elif any(step.waits for step in known.steps):
            return
        else:
            await self._go_on(lead, known)

    async def _go_on(self, lead: suspicion.Confirmed, known: searches.Searched) -> None:
        step = await anyio.to_thread.run_sync(_step, known, self._current().bisect)
        if step.wanted:

            def write(tx: store.Transaction) -> None:
                searches.give(tx, lead.finding, step.wanted)
                searches.found(tx, lead.finding, step.search, step.found)
                crashpoints.reach("search.before-commit")

            await self._store.write(write)
            return
        await self._close(known)
        await self._put(lead.finding, step.search, step.found)
        log.info("search ended", finding=lead.finding, search=step.search, found=step.found)

    async def _close(self, known: searches.Searched) -> None:
        """End the experiments of a search that has ended; what they measured is reported."""
        for step in known.steps:
            if step.state not in ("waiting", "open"):
                continue
            if step.blocks:
                await self._report(step.experiment)
            else:
                await self._store.write(functools.partial(searches.cancel, experiment=step.experiment, reason=SEARCH_ENDED))

    async def _report(self, experiment: int) -> None:
        """End an experiment of a search that has ended."""
        facts = await self._store.read(functools.partial(_measured, experiment=experiment))
        decision = dataclasses.replace(facts.decision, verdict=model.Verdict.MEASURED, reason=SEARCH_ENDED)
        left = await anyio.to_thread.run_sync(
            self._recorder.of_decision, facts.experiment, decision, (), facts.series, facts.backend, facts.fingerprint
        )

        def write(tx: store.Transaction) -> None:
            experiments.decide(tx, experiment, decision)
            self._recorder.write(tx, experiment, left)

        await self._store.write(write)

    async def _put(self, finding: int, search: str, culprits: model.Json, reason: str = "") -> None:
        await self._store.write(
            functools.partial(searches.found, finding=finding, search=search, culprits=culprits, reason=reason)
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """All that a record of an experiment is made of."""

    experiment: experiments.Experiment
    decision: model.Decision
    series: Mapping[model.ArmName, Sequence[model.Series]]
    backend: str
    fingerprint: Mapping[str, str]


def _measured(connection: sa.Connection, experiment: int) -> _Measured:
    whole = experiments.by_id(connection, experiment)
    series, backend = experiments.measured(connection, experiment, model.Block(whole.blocks, ()))
    decision = findings.decision_of(connection, experiment)
    return _Measured(whole, decision, series, backend, findings.fingerprint_of(connection, experiment))


def _explained(connection: sa.Connection, experiment: int) -> model.JsonObject:
    from aibenchd.measure import explaining

    return explaining.explained(explaining.Measured(*one) for one in experiments.samples_by_block(connection, experiment))


def _wanted(history: series.Series, rule: configuration.CreepSettings) -> creeping.Wanted | None:
    from aibenchd import creeping

    return creeping.wanted(history, rule)


def _noise(newest: Sequence[noises.Blocks]) -> dict[str, float | int | None]:
    from aibenchd.measure import noisiness

    return noisiness.facts(newest)


def _weighed(ended: Sequence[findings.Verified]) -> list[suspicion.Ended]:
    from aibenchd.measure import judging

    return [
        suspicion.Ended(
            one.finding,
            one.state,
            one.verdict,
            one.reason,
            one.estimate,
            judging.evidence(one.design, one.blocks, slower=one.slower) if one.verdict in suspicion.BAD else -math.inf,
        )
        for one in ended
    ]


def _chosen(weighed: Sequence[suspicion.Ended], earlier: Sequence[float], family: int, rate: float) -> set[int]:
    """The findings that are confirmed. Others of the family have no evidence yet; with it more may be chosen, never fewer."""
    from aibenchd.decide import multiplicity

    evidence = [*(one.evidence for one in weighed), *earlier]
    chosen = multiplicity.chosen([*evidence, *[-math.inf] * (family - len(evidence))], rate)
    return {one.finding for one, confirmed in zip(weighed, chosen, strict=False) if confirmed}


def _step(known: searches.Searched, rule: configuration.BisectSettings) -> searching.Step:
    from aibenchd.plan import searching

    line = [one.commit for one in known.line]
    if not known.slower:
        skipped = {one.newer for one in known.steps if one.verdict is None or one.verdict is model.Verdict.INCONCLUSIVE}
        bad = {one.newer: one.verdict in suspicion.BAD for one in known.steps if one.newer not in skipped}
        return searching.by_verdicts(line, bad, skipped | known.unbuildable, known.design.rule.alpha)
    return searching.step(
        searching.Known(
            line=line,
            built=known.built,
            unbuildable=known.unbuildable,
            pairs=[searching.Pair(one.newer, one.older, one.ratios, one.works) for one in known.steps],
            shown=known.shown,
            min_effect=known.design.rule.min_effect,
            build_seconds=known.build_seconds,
            block_seconds=known.block_seconds,
        ),
        rule,
    )
