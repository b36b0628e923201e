"""What follows from verdicts: a suspect is measured again; what is confirmed is reported, and the commits at fault are searched.

It reads the journal and writes its next steps there, as the planner does; a crash anywhere is a restart.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import crashpoints, events, model
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.report import recording, records
from aibenchd.store import again, builds, experiments, findings, merges, noises, searches, series, store, triage

if TYPE_CHECKING:
    from aibenchd import creeping  # they import numpy
    from aibenchd.plan import bisect, inside, searching
    from aibenchd.watch import base as watch

LOOK_BACK = timedelta(days=1)  # over what was decided while nobody looked
LOOK_SECONDS = 300.0  # between two looks though nothing was told
NOT_VERIFIED = "it was not measured again: verify is off"
ALONE = "measured alone: there is nothing that it could have regressed from"
OFF_BRANCH = "its control is not on the branch below it: there is no line of commits to search"
TOO_LONG = f"more than {searches.LINE:,} commits lie between: too many to search"
SEARCH_ENDED = "the search that it was measured for has ended"
TOPICS = ("experiment.decided", "experiment.skipped", "experiment.cancelled", "finding.", "search.", "build.failed", "daemon.")
SERIES_TOPICS = ("experiment.decided", "daemon.")
SIDE = 20_000  # commits of a merge that are looked at, the newest
SHOWN = 500  # characters of what cannot be followed

log = structlog.get_logger()

T = TypeVar("T")
Sides: TypeAlias = Sequence[Sequence[model.Revision]]


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
        self._clone, self._away = clone, away
        self._mends_until = datetime.now(UTC) - LOOK_BACK

    async def run(self) -> None:
        """Follow for ever."""
        await whenever(self._store.events, TOPICS, self.look)

    async def look(self) -> None:
        """Do whatever there is to do now."""
        await self._let_lapse()
        broken = await each([await self._accepted()], self._tell_accepted)
        broken += await each((await self._store.read(searches.to_stop)).items(), self._stop)
        broken += await each(await self._suspects(), self._take_up)
        broken += await each(await self._verified(), self._settle)
        broken += await self._look_for_mends()
        if self._current().bisect.enabled:
            broken += await each(suspicion.by_range(await self._store.read(searches.to_search)).values(), self._search)
        if broken:
            raise broken[0]

    # ---- what people made of findings

    async def _let_lapse(self) -> None:
        now = datetime.now(UTC)
        if ended := await self._store.read(functools.partial(triage.lapsed, now=now)):
            await self._store.write(functools.partial(triage.lapse, findings=ended, now=now))

    async def _accepted(self) -> list[triage.Accepted]:
        return await self._store.read(functools.partial(triage.accepted, since=datetime.now(UTC) - LOOK_BACK))

    async def _tell_accepted(self, accepted: Sequence[triage.Accepted]) -> None:
        """In their order: what breaks is told at the next look, and those after it then."""
        for one in accepted:
            left = await self._told(one.finding, "accepted", number=one.number, by=one.by, why=one.why)
            write = functools.partial(self._write_accepted, number=one.number, left=left)
            await self._store.write(write)

    def _write_accepted(self, tx: store.Transaction, number: int, left: recording.Left) -> None:
        triage.told(tx, number)
        self._recorder.queue(tx, left)

    async def _stop(self, accepted: tuple[int, model.Json]) -> None:
        """End the search of a finding that was accepted; what it found so far is kept."""
        finding, found = accepted
        await self._end(finding, suspicion.STOPPED, found)

    # ---- suspects

    async def _suspects(self) -> list[list[suspicion.Suspect]]:
        """By their commits, oldest first: what the next ones show may be the same."""
        found = sorted(await self._store.read(findings.unseen), key=lambda one: (one.newer or 0, one.experiment))
        return [[one for one in found if one.of == of] for of in dict.fromkeys(one.of for one in found)]

    async def _take_up(self, suspects: Sequence[suspicion.Suspect]) -> None:
        """Suspects of one pair of commits: new ones, and what is known already."""
        fresh: dict[suspicion.Cell, suspicion.Suspect] = {}
        known: dict[int, float] = {}
        for suspect in suspects:
            standing = await self._store.read(functools.partial(findings.standing, suspect=suspect))
            finding = suspicion.sighting_of(suspect, standing, searched=self._current().bisect.enabled)
            if finding is None:
                fresh.setdefault(suspect.cell, suspect)  # at the next look another one of its cell is a sighting of this
                if found := suspicion.explained(suspect, standing):
                    known[suspect.experiment] = found.effect.high
            else:
                await self._store.write(functools.partial(findings.sighted, finding=finding, experiment=suspect.experiment))
        own, of = list(fresh.values()), suspects[0].of
        if of.control is None:
            await self._leave(own, ALONE)
        elif not self._current().verify.enabled:
            await self._leave(own, NOT_VERIFIED)
        elif own:
            await self._verify(of, own, known)

    async def _leave(self, suspects: Sequence[suspicion.Suspect], reason: str) -> None:
        def write(tx: store.Transaction) -> None:
            for one in suspects:
                findings.add(tx, one.experiment, suspicion.UNCONFIRMED, reason)

        await self._store.write(write)

    async def _verify(self, of: suspicion.Range, suspects: Sequence[suspicion.Suspect], known: Mapping[int, float]) -> None:
        """Measure suspects again; ``known``: by experiment, what findings explain of it, at most, as a ratio minus 1."""
        rule = self._current().verify
        paged = None if rule.pages_a_month is None else await self._paged(rule.pages_a_month, len(suspects))

        def write(tx: store.Transaction) -> None:
            added = {findings.add(tx, one.experiment, suspicion.SUSPECT): one.experiment for one in suspects}
            family = findings.family(tx.connection, of).findings
            e_value = family / rule.false_discovery_rate if paged is None else paged
            at_most = {finding: known.get(experiment, 0.0) for finding, experiment in added.items()}
            findings.verify(tx, of, added, e_value, _copy(rule.builds, of), at_most)
            crashpoints.reach("verify.before-commit")

        await self._store.write(write)
        log.info("suspects", repository=of.repository, treatment=of.treatment, count=len(suspects))

    async def _paged(self, pages: float, count: int) -> float:
        """The e-value that each of so many new suspects must have, so that false pages stay within a month's budget."""
        now = datetime.now(UTC)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        before = (month - timedelta(days=1)).replace(day=1)
        usual = await self._store.read(functools.partial(findings.begun, since=before, until=month))
        number = count + await self._store.read(functools.partial(findings.begun, since=month, until=now))
        return await anyio.to_thread.run_sync(_needed, pages, usual, number)

    # ---- what measured them again

    async def _verified(self) -> list[list[findings.Verified]]:
        """By their commit, where any of them has ended."""
        found: dict[tuple[str, str], list[findings.Verified]] = {}
        for one in await self._store.read(findings.to_settle):
            found.setdefault((one.of.repository, one.of.treatment), []).append(one)
        return [own for own in found.values() if any(one.ended for one in own)]

    async def _settle(self, verified: Sequence[findings.Verified]) -> None:
        """All suspects of one commit together."""
        family = await self._store.read(functools.partial(findings.family, of=verified[0].of))
        ended = [one for one in verified if one.ended]
        weighed = await anyio.to_thread.run_sync(_weighed, ended)
        rule = self._current().verify
        if rule.pages_a_month is None:
            chosen = await anyio.to_thread.run_sync(_chosen, weighed, family.earlier, family.size, rule.false_discovery_rate)
        else:
            chosen = {one.finding for one, again in zip(weighed, ended, strict=True) if _has_what_it_needs(one, again)}
        # Those of a device that is gone are of the family, but nothing waits for them.
        there = {device.name for device in self._current().devices}
        promise = _promise(rule)
        waiting = sum(device in there for device in [*(one.device for one in verified if not one.ended), *family.undecided])
        by_finding = {one.finding: one for one in ended}
        if not waiting and rule.pages_a_month is None:
            # The family has grown since they began: each has to show as much as one of so many needs.
            for unsure in suspicion.unsure(weighed, chosen):
                needed = await anyio.to_thread.run_sync(_certain, family.size, rule.false_discovery_rate)
                said = f"{suspicion.not_surely(unsure, family.size, promise)}; it is measured on"
                await self._measure_on(by_finding[unsure.finding], unsure.evidence, math.exp(needed - unsure.evidence), said)
                waiting += 1
        for settled in suspicion.settled(weighed, chosen, waiting, family.size, promise):
            await self._conclude(settled, by_finding[settled.finding])

    async def _measure_on(self, unsure: findings.Verified, evidence: float, e_value: float, reason: str) -> None:
        def write(tx: store.Transaction) -> None:
            findings.verify_on(tx, unsure, evidence, e_value, reason)
            crashpoints.reach("verify.before-commit")

        await self._store.write(write)
        log.info("suspect is measured on", finding=unsure.finding, evidence=evidence, e_value=e_value)

    async def _conclude(self, settled: suspicion.Settled, verified: findings.Verified) -> None:
        left, explained = [], None
        within = await self._store.read(functools.partial(_within, verified=verified))
        whole = suspicion.Effect.of(verified) if verified.slower else None  # what broke has no time to take anything off
        settled = suspicion.beyond(settled, within, whole) if settled.state == suspicion.OPEN else settled
        if settled.state == suspicion.OPEN:
            measured = await self._store.read(functools.partial(_measured, experiment=verified.verify))
            facts = dataclasses.replace(measured, decision=dataclasses.replace(measured.decision, reason=settled.reason))
            first = await self._store.read(functools.partial(findings.decision_of, experiment=verified.suspect))
            explained = await self._store.read(functools.partial(_explained, experiment=verified.verify))
            if within and whole:
                explained = {**explained, "findings": within.as_json(whole)}
            confirmed = findings.Confirmed(settled.finding, verified.verify, settled.evidence, explained)
            left = [
                await anyio.to_thread.run_sync(
                    self._recorder.of_confirmation,
                    facts.experiment,
                    facts.decision,
                    first,
                    facts.series,
                    facts.backend,
                    facts.fingerprint,
                ),
                await self._alert(facts, confirmed, "confirmed"),
            ]

        def write(tx: store.Transaction) -> None:
            findings.settle(tx, settled, explained)
            for one in left:
                self._recorder.write(tx, verified.verify, one)
            crashpoints.reach("confirm.before-commit")

        await self._store.write(write)
        log.info("suspect settled", finding=settled.finding, state=settled.state, reason=settled.reason)
        if verified.unmoved:
            log.warning("builds came out as the first ones", experiment=verified.verify, advice=suspicion.LAY_OUT)

    # ---- what people are told

    async def _alert(self, facts: _Measured, confirmed: findings.Confirmed, event: str, **more: Any) -> recording.Left:
        """``facts`` are of what confirmed it; ``more`` is what has come of it since."""
        treatment = facts.experiment.treatment
        alert = records.Alert(
            event=event,
            finding=confirmed.finding,
            author=treatment.author,
            subject=treatment.subject,
            evidence=confirmed.evidence,
            promise=_promise(self._current().verify),
            explained=confirmed.explained or {},
            **more,
        )
        return await anyio.to_thread.run_sync(
            self._recorder.of_alert, facts.experiment, alert, facts.decision, facts.series, facts.backend, facts.fingerprint
        )

    async def _told(self, finding: int, event: str, **more: Any) -> recording.Left:
        """Of a finding that was confirmed before."""
        if not self._recorder.wanted("alerts"):
            return recording.Left()
        confirmed = await self._store.read(functools.partial(findings.confirmed, finding=finding))
        facts = await self._store.read(functools.partial(_measured, experiment=confirmed.verify))
        return await self._alert(facts, confirmed, event, **more)

    async def _look_for_mends(self) -> list[Exception]:
        found = await self._store.read(functools.partial(findings.mends, since=self._mends_until))
        broken = await each(found.mends, self._mend)
        if not broken:
            self._mends_until = found.until
        return broken

    async def _mend(self, mend: findings.Mend) -> None:
        left = await self._told(mend.finding, "mended", mended=mend.commit)

        def write(tx: store.Transaction) -> None:
            findings.mended(tx, mend)
            self._recorder.queue(tx, left)

        await self._store.write(write)
        log.info("mended", finding=mend.finding, commit=mend.commit)

    # ---- the commits at fault

    async def _search(self, confirmed: Sequence[suspicion.Confirmed]) -> None:
        """Go on with the searches of findings of two commits and one fault.

        The clearest is searched first, on all devices that show it. Once that is found, all others begin with its answer, each
        by blocks of its own; where it ends with nothing found, the next clearest is searched.
        """
        suspect = confirmed[0].suspect
        named = await self._store.read(functools.partial(searches.named, of=suspect.of, fault=suspect.fault))
        at_once = suspicion.together(confirmed, self._measuring())
        for one in confirmed:
            if named or one in at_once:
                await self._step(one)
            elif one.search == suspicion.NOT_YET:
                await self._store.write(functools.partial(searches.found, finding=one.finding, search=suspicion.DEFERRED))

    async def _step(self, one: suspicion.Confirmed) -> None:
        if one.goes_on:
            return
        known = await self._store.read(functools.partial(searches.searched, finding=one.finding))
        if not known.line:
            await self._end(one.finding, suspicion.IMPOSSIBLE, {"reason": OFF_BRANCH})
        elif len(known.line) > searches.LINE:
            await self._end(one.finding, suspicion.IMPOSSIBLE, {"reason": TOO_LONG})
        elif any(step.waits for step in known.steps):
            return
        else:
            await self._go_on(one, known)

    async def _go_on(self, one: suspicion.Confirmed, known: searches.Searched) -> None:
        step = await self._looked(one, known)
        while step.unlisted:
            if not await self._look_into(known.repository, step.unlisted):
                return  # its repository is not configured: it waits, as its builds do
            known = await self._store.read(functools.partial(searches.searched, finding=one.finding))
            step = await self._looked(one, known)
        if not step.wanted:
            await self._end(one.finding, step.search, step.found)
            return

        def write(tx: store.Transaction) -> None:
            searches.give(tx, one.finding, step.wanted)
            searches.found(tx, one.finding, step.search, step.found)
            crashpoints.reach("search.before-commit")

        await self._store.write(write)

    async def _looked(self, one: suspicion.Confirmed, known: searches.Searched) -> searching.Step:
        """One look at a search, with what other devices say of the same change, and what searches of other benchmarks named."""
        others = await self._store.read(functools.partial(searches.beside, finding=one.finding))
        told = [other.finding for other in others]
        suspect = one.suspect
        named = await self._store.read(functools.partial(searches.named, of=suspect.of, fault=suspect.fault, but=told))
        beside = _Beside(self._current().bisect, named, others, self._measuring())
        return await anyio.to_thread.run_sync(_step, known, beside)

    async def _look_into(self, repository: str, unlisted: Sequence[tuple[str, str]]) -> bool:
        """Journal what merges brought in; whether there is a clone to tell it."""
        chosen = next((one for one in self._current().repositories if one.name == repository), None)
        if chosen is None:
            return False
        for merge, onto in unlisted:
            sides = await self._clone(chosen).sides(merge, onto, SIDE)

            def write(tx: store.Transaction, merge: str = merge, onto: str = onto, sides: Sides = sides) -> None:
                merges.put(tx, repository, merge, onto, sides)
                crashpoints.reach("merge.before-commit")

            await self._store.write(write)
            log.info("looked into a merge", repository=repository, merge=merge, sides=[len(side) - 1 for side in sides])
        return True

    def _measuring(self) -> frozenset[str]:
        """The devices that blocks can be run on now."""
        return frozenset(device.name for device in self._current().devices) - frozenset(self._away())

    async def _end(self, finding: int, search: str, found: model.Json) -> None:
        """End a search with all its experiments; what they measured is reported."""
        steps = await self._store.read(functools.partial(searches.steps, finding=finding))
        ended = [await self._left_by(step.experiment) for step in steps if step.undecided and step.blocks]
        told = await self._told(finding, "culprit", culprits=found) if _names(search, found) else recording.Left()

        def write(tx: store.Transaction) -> None:
            for experiment, decision, left in ended:
                experiments.decide(tx, experiment, decision)
                self._recorder.write(tx, experiment, left)
            self._recorder.queue(tx, told)
            for step in steps:
                if step.undecided and not step.blocks:
                    searches.cancel(tx, step.experiment, SEARCH_ENDED)
            searches.found(tx, finding, search, found)
            if search != suspicion.STOPPED:
                findings.released(tx, finding)

        await self._store.write(write)
        log.info("search ended", finding=finding, search=search, found=found)

    async def _left_by(self, experiment: int) -> tuple[int, model.Decision, recording.Left]:
        """How an experiment ends whose search has, and what is reported of it."""
        facts = await self._store.read(functools.partial(_measured, experiment=experiment))
        decision = dataclasses.replace(facts.decision, verdict=model.Verdict.MEASURED, reason=SEARCH_ENDED)
        left = await anyio.to_thread.run_sync(
            self._recorder.of_decision, facts.experiment, decision, (), facts.series, facts.backend, facts.fingerprint
        )
        return experiment, decision, left


class Histories:
    """What only many experiments show: noise, and drifts. Apart from what regressed, for long ones take seconds each.

    ``current`` gives the settings as they are now. What breaks of one series holds up no other, as in :class:`Following`.
    """

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings]) -> None:
        self._store, self._current = journal, current
        self._seen_until = datetime.now(UTC) - LOOK_BACK

    async def run(self) -> None:
        """Look for ever."""
        await whenever(self._store.events, SERIES_TOPICS, self.look)

    async def look(self) -> None:
        """Look at the series that have something new; each whole, so that none need be looked at for what came earlier."""
        found = await self._store.read(functools.partial(series.decided_since, when=self._seen_until))
        broken = [*await each(found.cells, self._note_noise), *await each(found.cells, self._creep)]
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
            await self._store.write(functools.partial(series.compare, series=history, older=wanted.older, newer=wanted.newer))
            log.info("compared far apart", cell=cell.identifier, device=cell.device, reason=wanted.reason)


async def whenever(told: events.Events, topics: Sequence[str], look: Callable[[], Awaitable[None]]) -> None:
    """Look now, whenever one of the topics is told of, and now and then; for ever."""
    with told.bell(*topics) as bell:
        while True:
            await look()
            await bell.wait(LOOK_SECONDS)


async def each(things: Iterable[T], follow: Callable[[T], Awaitable[None]]) -> list[Exception]:
    """Follow one after another; what broke."""
    broken: list[Exception] = []
    for one in things:
        try:
            await follow(one)
        except Exception as error:
            log.exception("cannot be followed", what=str(one)[:SHOWN])
            broken.append(error)
    return broken


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


def _within(connection: sa.Connection, verified: findings.Verified) -> suspicion.Explained | None:
    """What other findings explain of one that was measured again."""
    suspect = findings.suspect(connection, verified.suspect)
    standing = findings.standing(connection, suspect)
    return suspicion.explained(suspect, [one for one in standing if one.finding != verified.finding])


def _explained(connection: sa.Connection, experiment: int) -> model.JsonObject:
    from aibenchd.measure import explaining

    design = experiments.by_id(connection, experiment).design
    measured = (explaining.Measured(*one) for one in experiments.samples_by_block(connection, experiment))
    return explaining.explained(measured, design.summary)


def _copy(builds_of: str, of: suspicion.Range) -> int:
    """Which builds of two commits suspects are measured again with."""
    if builds_of == "relaid":
        return again.layout_seed(of.treatment, of.control or "")
    return builds.FRESH if builds_of == "fresh" else 0


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


def _weighed(ended: Sequence[findings.Verified]) -> list[suspicion.Ended]:
    from aibenchd.measure import judging

    return [
        suspicion.Ended(
            one.finding,
            one.state,
            one.verdict,
            one.reason,
            one.estimate,
            one.earlier + judging.evidence(one.design, one.blocks, slower=one.slower)
            if one.verdict in suspicion.BAD
            else -math.inf,
            relaid=bool(one.design.layout),
            unmoved=one.unmoved,
        )
        for one in ended
    ]


def _chosen(weighed: Sequence[suspicion.Ended], earlier: Sequence[float], family: int, rate: float) -> set[int]:
    """The findings that are confirmed. Others of the family have no evidence yet; with it more may be chosen, never fewer."""
    from aibenchd.decide import multiplicity

    evidence = [*(one.evidence for one in weighed), *earlier]
    chosen = multiplicity.chosen([*evidence, *[-math.inf] * (family - len(evidence))], rate)
    return {one.finding for one, confirmed in zip(weighed, chosen, strict=False) if confirmed}


def _certain(family: int, rate: float) -> float:
    from aibenchd.decide import multiplicity

    return multiplicity.certain(family, rate)


def _names(search: str, found: model.Json) -> bool:
    """Whether a search that ended has named commits."""
    return search == suspicion.FOUND and isinstance(found, Mapping) and bool(found["culprits"])


def _promise(rule: configuration.VerifySettings) -> str:
    if rule.pages_a_month is None:
        return f"at a false discovery rate of {rule.false_discovery_rate:g}"
    return f"within {rule.pages_a_month:g} false pages a month"


def _needed(pages: float, usual: int, number: int) -> float:
    from aibenchd.decide import multiplicity

    return math.exp(multiplicity.needed(pages, max(usual, 1), number))


def _has_what_it_needs(weighed: suspicion.Ended, verified: findings.Verified) -> bool:
    """Whether it has the e-value that was asked of it when it began; where none was, the pages were not counted then."""
    asked = verified.design.rule.e_value
    return asked > 0 and weighed.evidence >= math.log(asked)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a look at a search takes that is not its own.

    Attributes:
        named: commits that searches of other benchmarks have named: they are asked about first.
        others: the searches for the same change on other devices.
        measuring: devices that blocks can be run on now.
    """

    rule: configuration.BisectSettings
    named: Sequence[str]
    others: Sequence[searches.Searched]
    measuring: Collection[str]


def _step(known: searches.Searched, beside: _Beside) -> searching.Step:
    """One look at a search."""
    from aibenchd.plan import inside

    look = _by_time if known.slower else _by_verdicts
    history = inside.History(known.within.merges, known.within.sides)
    step = inside.search(known.line, history, functools.partial(look, known, beside), known.design.rule.min_effect)
    if not beside.others:
        return step
    return dataclasses.replace(step, found={**step.found, "devices": searches.blocks_by_device([known, *beside.others])})


def _by_verdicts(known: searches.Searched, beside: _Beside, line: inside.Line, _spent: inside.Spent) -> searching.Step:
    from aibenchd.plan import searching

    shown = {one.newer: _shows(known.verdict, one) for one in known.steps if one.older == line.commits[0]}
    bad = {commit: same for commit, same in shown.items() if same is not None and commit in line.commits}
    useless = known.unbuildable | shown.keys() - bad.keys()
    end = line.commits[-1:] if line.shown else ()
    return searching.by_verdicts(line.commits, bad, useless, known.design.rule.alpha, shown=end, asked_first=beside.named)


def _by_time(known: searches.Searched, beside: _Beside, line: inside.Line, spent: inside.Spent) -> searching.Step:
    from aibenchd.plan import searching

    if len(line.commits) > searches.LINE:
        return searching.Step(suspicion.IMPOSSIBLE, {"reason": TOO_LONG}, {})
    rule = beside.rule
    left = {"max_blocks": rule.max_blocks - spent.blocks, "max_builds": rule.max_builds - spent.builds}
    others = [_other(one, line, beside.measuring) for one in beside.others]
    own = dataclasses.replace(_of_line(known, line), asked_first=beside.named, beside=others)
    return searching.step(own, rule.model_copy(update=left))


def _of_line(known: searches.Searched, line: inside.Line) -> searching.Known:
    """What one device knows of a line."""
    from aibenchd.plan import searching

    return searching.Known(
        line=line.commits,
        built=known.built,
        unbuildable=known.unbuildable,
        pairs=[
            searching.Pair(one.newer, one.older, one.ratios, one.useless)
            for one in known.steps
            if one.newer in line.commits and one.older in line.commits
        ],
        shown=known.shown if line.shown else (),
        min_effect=known.design.rule.min_effect,
        build_seconds=known.build_seconds,
        block_seconds=known.block_seconds,
        earlier=_earlier(known.earlier, known.design.summary),
        known=known.known,
    )


def _other(known: searches.Searched, line: inside.Line, measuring: Collection[str]) -> searching.Beside:
    """What another device knows of a line, and what it runs; one that is lost runs nothing."""
    from aibenchd.plan import searching

    running = {(one.newer, one.older): one.left for one in known.steps if one.left and known.device in measuring}
    return searching.Beside(_of_line(known, line), running)


def _earlier(measured: Sequence[noises.Blocks], rule: model.Summary) -> bisect.Earlier | None:
    """The noise that the search of a culprit starts from. It does not know orders: what a slot adds is noise to it."""
    from aibenchd.measure import outlook
    from aibenchd.plan import bisect

    noise = outlook.noise_of(measured, rule)
    scale = noise.scale if math.isnan(noise.slot) else math.hypot(noise.scale, noise.slot)
    return bisect.Earlier(scale, noise.degrees, noise.blocks) if scale > 0 else None


def _shows(verdict: model.Verdict, step: searches.Step) -> bool | None:
    """Whether a step shows what began its search, a program that fails or computes something else; None where it cannot tell."""
    if step.verdict is None or step.verdict is model.Verdict.INCONCLUSIVE:
        return None
    if verdict is model.Verdict.BROKEN:
        return step.verdict is model.Verdict.BROKEN
    return None if step.verdict is model.Verdict.BROKEN else step.verdict is model.Verdict.REGRESSED and step.wrong
