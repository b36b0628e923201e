"""The search for the commits at fault, from the journal to the next experiments of it, and its end."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio.to_thread
import structlog

from aibenchd import crashpoints, model, telling
from aibenchd import settings as configuration
from aibenchd.plan import suspicion
from aibenchd.report import recording
from aibenchd.store import experiments, findings, merges, noises, searches, store

if TYPE_CHECKING:
    from aibenchd.plan import bisect, inside, searching  # they import numpy
    from aibenchd.watch import base as watch

OFF_BRANCH = "its control is not on the branch below it: there is no line of commits to search"
TOO_LONG = f"more than {searches.LINE:,} commits lie between: too many to search"
SEARCH_ENDED = "the search that it was measured for has ended"
SIDE = 20_000  # commits of a merge that are looked at, the newest

log = structlog.get_logger()

Sides: TypeAlias = Sequence[Sequence[model.Revision]]


class Bisecting:
    """Searches the commits that are at fault for what is confirmed.

    Args:
        current: gives the settings as they are now.
        clone: gives a repository's clone.
        away: names devices that are configured, and no block can be run on now.
    """

    def __init__(
        self,
        journal: store.Store,
        current: Callable[[], configuration.Settings],
        recorder: recording.Recorder,
        tell: telling.Telling,
        clone: Callable[[configuration.RepositorySettings], watch.Repository],
        away: Callable[[], Collection[str]],
    ) -> None:
        self._store, self._current, self._recorder, self._telling = journal, current, recorder, tell
        self._clone, self._away = clone, away

    async def search(self, confirmed: Sequence[suspicion.Confirmed]) -> None:
        """Go on with the searches of findings of two commits and one fault.

        The clearest is searched first, on all devices that show it. Once that is found, all others begin with its answer, each
        by blocks of its own; where it ends with nothing found, the next clearest is searched.
        """
        suspect = confirmed[0].suspect
        named = await self._store.read(functools.partial(searches.named, of=suspect.of, fault=suspect.fault))
        at_once = suspicion.together(confirmed, self._measuring())
        for one in confirmed:
            if named or one in at_once:
                await self._step(one, [other.suspect.cell.device for other in at_once] if one in at_once else ())
            elif one.search == suspicion.NOT_YET:
                await self._store.write(functools.partial(searches.found, finding=one.finding, search=suspicion.DEFERRED))

    async def _step(self, one: suspicion.Confirmed, at_once: Sequence[str]) -> None:
        """One step of a search that goes on ``at_once`` with those of the same change on these devices."""
        if one.goes_on:
            return
        known = await self._store.read(functools.partial(searches.searched, finding=one.finding))
        if not known.line:
            await self.end(one.finding, suspicion.IMPOSSIBLE, {"reason": OFF_BRANCH})
        elif len(known.line) > searches.LINE:
            await self.end(one.finding, suspicion.IMPOSSIBLE, {"reason": TOO_LONG})
        elif any(step.waits for step in known.steps):
            return
        else:
            await self._go_on(one, known, at_once)

    async def _go_on(self, one: suspicion.Confirmed, known: searches.Searched, at_once: Sequence[str]) -> None:
        step = await self._looked(one, known, at_once)
        while step.unlisted:
            if not await self._look_into(known.repository, step.unlisted):
                return  # its repository is not configured: it waits, as its builds do
            known = await self._store.read(functools.partial(searches.searched, finding=one.finding))
            step = await self._looked(one, known, at_once)
        if not step.wanted:
            await self.end(one.finding, step.search, step.found)
            return

        def write(tx: store.Transaction) -> None:
            searches.give(tx, one.finding, step.wanted)
            searches.found(tx, one.finding, step.search, step.found)
            crashpoints.reach("search.before-commit")

        await self._store.write(write)

    async def _looked(self, one: suspicion.Confirmed, known: searches.Searched, at_once: Sequence[str]) -> searching.Step:
        """One look at a search, with what other devices say of the same change, and what searches of other benchmarks named."""
        others = await self._store.read(functools.partial(searches.beside, finding=one.finding))
        told = [other.finding for other in others]
        suspect = one.suspect
        named = await self._store.read(functools.partial(searches.named, of=suspect.of, fault=suspect.fault, but=told))
        beside = _Beside(self._current().bisect, named, others, self._measuring(), at_once)
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

    async def end(self, finding: int, search: str, found: model.Json) -> None:
        """End a search with all its experiments; what they measured is reported."""
        steps = await self._store.read(functools.partial(searches.steps, finding=finding))
        ended = [await self._left_by(step.experiment) for step in steps if step.undecided and step.blocks]
        told = await self._telling.named(finding, found) if _names(search, found) else recording.Left()

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
        facts = await self._store.read(functools.partial(telling.measured, experiment=experiment))
        decision = dataclasses.replace(facts.decision, verdict=model.Verdict.MEASURED, reason=SEARCH_ENDED)
        left = await anyio.to_thread.run_sync(
            self._recorder.of_decision, facts.experiment, decision, (), facts.series, facts.backend, facts.fingerprint
        )
        return experiment, decision, left


def _names(search: str, found: model.Json) -> bool:
    """Whether a search that ended has named commits."""
    return search == suspicion.FOUND and isinstance(found, Mapping) and bool(found["culprits"])


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a look at a search takes that is not its own.

    Attributes:
        named: commits that searches of other benchmarks have named: they are asked about first.
        others: the searches for the same change on other devices.
        measuring: devices that blocks can be run on now.
        at_once: devices on which it is searched at the same time, those included that have not begun.
    """

    rule: configuration.BisectSettings
    named: Sequence[str]
    others: Sequence[searches.Searched]
    measuring: Collection[str]
    at_once: Collection[str] = ()


def _step(known: searches.Searched, beside: _Beside) -> searching.Step:
    """What is to be measured next, or how the search ends; blocking, up to seconds for a long line."""
    from aibenchd.plan import inside

    by = _by_time if known.slower else _by_verdicts
    history = inside.History(known.within.merges, known.within.sides)
    step = inside.search(known.line, history, functools.partial(by, known, beside), known.design.rule.min_effect)
    devices = dict.fromkeys(beside.at_once, 0) | searches.blocks_by_device([known, *beside.others])
    return step if len(devices) == 1 else dataclasses.replace(step, found={**step.found, "devices": devices})


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
