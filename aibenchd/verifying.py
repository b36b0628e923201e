"""A suspect is measured again; what that shows is confirmed, refuted, or measured on."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import crashpoints, model, telling
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.report import recording
from aibenchd.store import again, builds, experiments, findings, store

NOT_VERIFIED = "it was not measured again: verify is off"
ALONE = "measured alone: there is nothing that it could have regressed from"

log = structlog.get_logger()


class Verifying:
    """Measures suspects again, and settles what that showed. ``current`` gives the settings as they are now."""

    def __init__(
        self,
        journal: store.Store,
        current: Callable[[], configuration.Settings],
        recorder: recording.Recorder,
        tell: telling.Telling,
    ) -> None:
        self._store, self._current, self._recorder, self._telling = journal, current, recorder, tell

    async def suspects(self) -> list[list[suspicion.Suspect]]:
        """By their commits, oldest first: what the next ones show may be the same."""
        found = sorted(await self._store.read(findings.unseen), key=lambda one: (one.newer or 0, one.experiment))
        return [[one for one in found if one.of == of] for of in dict.fromkeys(one.of for one in found)]

    async def take_up(self, suspects: Sequence[suspicion.Suspect]) -> None:
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
                log.info("seen again", finding=finding, experiment=suspect.experiment, treatment=suspect.of.treatment)
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

    async def verified(self) -> list[list[findings.Verified]]:
        """By their commit, where any of them has ended."""
        found: dict[tuple[str, str], list[findings.Verified]] = {}
        for one in await self._store.read(findings.to_settle):
            found.setdefault((one.of.repository, one.of.treatment), []).append(one)
        return [own for own in found.values() if any(one.ended for one in own)]

    async def settle(self, verified: Sequence[findings.Verified]) -> None:
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
        promise = telling.promise(rule)
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
            measured = await self._store.read(functools.partial(telling.measured, experiment=verified.verify))
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
                await self._telling.alert(facts, confirmed, "confirmed"),
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


def _needed(pages: float, usual: int, number: int) -> float:
    from aibenchd.decide import multiplicity

    return math.exp(multiplicity.needed(pages, max(usual, 1), number))


def _has_what_it_needs(weighed: suspicion.Ended, verified: findings.Verified) -> bool:
    """Whether it has the e-value that was asked of it when it began; where none was, the pages were not counted then."""
    asked = verified.design.rule.e_value
    return asked > 0 and weighed.evidence >= math.log(asked)
