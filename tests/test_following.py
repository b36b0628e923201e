"""What follows from verdicts, on a journal in which experiments end as it is told."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import bisecting, creeping, events, following, histories, model, profiling, settings
from aibenchd.plan import searching, suspicion
from aibenchd.report import recording
from aibenchd.report.formats import webhook
from aibenchd.store import findings, noises, outbox, planning, profiles, schema, searches, selfchecks, series, store, triage

INSTALLATION = "0d7a3b9e-8a53-4a0f-9c1e-5c9f2b1f7c11"
DESIGN = planning.design_json(
    model.Design(model.Benchmark({"name": "net"}, {"identifier": "squeeze", "metric": "delay"}), "pytorch", model.Rule(), seed=1)
)
SLOWER = statusd.decided("regressed")
e, f, p = schema.experiments, schema.findings, schema.pairs


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


class Clone:
    """Of merges, what they brought in: ``sides``, by merge."""

    def __init__(self, **sides: list[list[model.Revision]]) -> None:
        self._sides = sides

    async def sides(self, merge: str, _onto: str, _limit: int) -> list[list[model.Revision]]:
        return self._sides[merge]


def follower(journal: store.Store, *, history: Any = None, away: Collection[str] = (), **sections: Any) -> following.Following:
    chosen = settings.Settings.model_validate(statusd.CONFIGURATION | sections)
    recorder = recording.Recorder(lambda: chosen, INSTALLATION)
    return following.Following(journal, lambda: chosen, recorder, lambda _: history or Clone(), lambda: away)


class Line:
    """A branch of commits ``c0 c1 …``, all of which are built, and experiments on it."""

    def __init__(self, tx: store.Transaction, commits: int) -> None:
        self.tx = tx
        self.builds = [statusd.build(tx, f"c{number}", digest=f"d{number}") for number in range(commits)]
        for number in range(commits):
            statusd.revision(tx, f"c{number}", number)

    def compared(self, newer: int, older: int, *, of: dict[str, Any] | None = None, **facts: Any) -> int:
        """An experiment of two commits, ``of`` a pair that is such."""
        return self.of_pair(statusd.pair(self.tx, f"c{newer}", f"c{older}", **(of or {})), newer, older, **facts)

    def of_pair(self, pair: int, newer: int, older: int, **facts: Any) -> int:
        builds = {"control_build": self.builds[older], "design": DESIGN}
        number = statusd.experiment(self.tx, pair, self.builds[newer], **builds | facts)
        blocks(self.tx, number, facts.get("estimate", 0.0))
        return number


def blocks(tx: store.Transaction, experiment: int, change: float, count: int = 20, after: int = 0) -> None:
    """Blocks, up to so many ``after`` those that are there, in which the treatment takes so much longer."""
    rng = random.Random(experiment * 1_000 + after)
    for number in range(after, count):
        row = {"experiment": experiment, "number": number, "order": rng.choice(("TC", "CT")), "valid": True, "control": 1.0}
        times = {"started_at": statusd.NOW, "finished_at": statusd.NOW, "treatment": (1 + change) * (1 + rng.gauss(0, 0.003))}
        tx.connection.execute(schema.blocks.insert().values(row | times))
    tx.connection.execute(e.update().where(e.c.id == experiment).values(blocks=count))


def ended(tx: store.Transaction, experiment: int, verdict: str, change: float = 0.05, *, count: int = 20, **facts: Any) -> None:
    """An experiment that waited ends so, with blocks that say it."""
    tx.connection.execute(
        e.update().where(e.c.id == experiment).values(statusd.decided(verdict) | {"estimate": change, "low": change / 2} | facts)
    )
    blocks(tx, experiment, change, count)


async def rows(journal: store.Store, *columns: Any, **where: Any) -> list[tuple[Any, ...]]:
    table = columns[0].table
    query = sa.select(*columns).where(*(table.c[name] == value for name, value in where.items())).order_by(table.c.id)
    return [tuple(row) for row in await journal.read(lambda connection: connection.execute(query).all())]


async def verifying(journal: store.Store) -> dict[int, int]:
    """The experiments that measure findings again."""
    return {finding: experiment for experiment, finding in await rows(journal, e.c.id, e.c.finding) if finding}


async def test_of_two_suspects_of_one_cell_and_two_commits_one_is_measured_again(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        line.compared(1, 0, **SLOWER)
        line.compared(1, 0, of={"run_type": "anchor"}, **SLOWER)

    await journal.write(write)
    one = follower(journal)
    await one.look()
    await one.look()
    assert len(await rows(journal, f.c.id)) == 1
    assert await journal.read(lambda connection: connection.execute(sa.select(schema.sightings)).all()) == [(2, 1)]


async def test_what_is_seen_again_in_the_same_look_is_one_finding(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 4)
        for newer in (3, 2, 1):
            line.compared(newer, 0, **SLOWER)

    await journal.write(write)
    await follower(journal).look()
    assert await rows(journal, f.c.suspect) == [(3,)]


async def test_what_was_seen_again_of_a_suspect_that_is_refuted_is_a_suspect_itself(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 3)
        line.compared(1, 0, **SLOWER)
        line.compared(2, 0, **SLOWER)

    await journal.write(write)
    one = follower(journal)
    await one.look()
    assert await rows(journal, f.c.suspect) == [(1,)]
    await journal.write(lambda tx: ended(tx, 3, "unchanged", 0.0))
    await one.look()
    await one.look()
    assert await rows(journal, f.c.suspect, f.c.state) == [(1, "refuted"), (2, "suspect")]


async def test_a_regression_that_was_mended_hides_no_later_one(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 5)
        statusd.finding(tx, line.compared(1, 0, **SLOWER), state="open", search="found")
        line.compared(2, 0, **SLOWER)
        line.compared(3, 0, **statusd.decided("unchanged"))
        line.compared(4, 0, **SLOWER)

    await journal.write(write)
    await follower(journal).look()
    assert await rows(journal, f.c.suspect) == [(1,), (4,)]
    assert await journal.read(lambda connection: connection.scalars(sa.select(schema.sightings.c.experiment)).all()) == [2]


async def test_a_benchmark_in_flight_joins_what_an_anchor_has_found_and_is_let_go_where_another_is_named(
    journal: store.Store,
) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 10)
        statusd.finding(tx, line.compared(9, 0, of={"run_type": "anchor"}, **SLOWER), state="open", search="running")
        line.compared(5, 4, **SLOWER)

    await journal.write(write)
    one = follower(journal)
    await one.look()
    assert await rows(journal, f.c.id) == [(1,)]
    sighted = sa.select(schema.sightings.c.experiment, schema.sightings.c.finding)
    assert await journal.read(lambda connection: connection.execute(sighted).all()) == [(2, 1)]

    def names(tx: store.Transaction, commit: str) -> None:
        culprit = {"commits": [commit], "within": [], "probability": 1.0, "effect": 0.05, "low": 0.04, "high": 0.06}
        searches.found(tx, 1, "found", {"culprits": [culprit], "commits": 9})
        findings.released(tx, 1)

    await journal.write(lambda tx: names(tx, "c5"))
    await one.look()
    assert await rows(journal, f.c.id) == [(1,)]
    await journal.write(lambda tx: names(tx, "c6"))
    await one.look()
    assert await rows(journal, f.c.suspect) == [(1,), (2,)]


async def test_a_drift_over_findings_is_what_they_do_not_explain(journal: store.Store) -> None:
    """Two findings of 3 % each, and an old control: 12 % are more than these explain, 7 % are not."""

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 10)
        for newer in (3, 5):
            own = SLOWER | {"estimate": 0.03, "low": 0.025, "high": 0.035}
            finding = statusd.finding(tx, line.compared(newer, newer - 1, **own), state="open", search="found")
            again = {"run_type": "verify"}
            line.compared(newer, newer - 1, of=again, finding=finding, **own)
            only = {"commits": [f"c{newer}"], "within": [], "probability": 1.0, "effect": 0.03, "low": 0.02, "high": 0.04}
            searches.found(tx, finding, "found", {"culprits": [only], "commits": 1})
        line.compared(9, 0, of={"run_type": "anchor"}, **SLOWER | {"estimate": 0.12, "low": 0.1, "high": 0.14})

    await journal.write(write)
    one = follower(journal)
    await one.look()
    again = (await verifying(journal))[3]
    design = (await rows(journal, e.c.design, id=again))[0][0]
    assert design["rule"]["known"] == pytest.approx(1.035**2 - 1)
    await journal.write(lambda tx: ended(tx, again, "regressed", 0.12, low=0.11, high=0.13))
    await one.look()
    ((state, reason, explained),) = await rows(journal, f.c.state, f.c.reason, f.c.explained, id=3)
    assert state == "open"
    assert "of it findings 1, 2 explain +6.1% ± 1.0%; +5.6% (+3.6% … +7.6%) is left" in reason
    assert explained["findings"]["of"] == [1, 2]
    known = (await journal.read(lambda connection: searches.searched(connection, 3))).known
    assert known == pytest.approx({"c3": math.log1p(0.03), "c5": math.log1p(0.03)})
    own = [one.confirmed for one in await journal.read(lambda connection: findings.known(connection, CELL)) if one.finding == 3]
    assert [one and one.estimate for one in own] == [pytest.approx(1.12 / 1.03**2 - 1)]  # what is left, for what comes later


async def test_what_breaks_when_it_is_measured_again_is_found_whatever_explains_its_time(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 10)
        finding = statusd.finding(tx, line.compared(3, 2, **SLOWER), state="open", search="found")
        line.compared(3, 2, of={"run_type": "verify"}, finding=finding, **SLOWER)
        line.compared(9, 0, of={"run_type": "anchor"}, **SLOWER | {"estimate": 0.12, "low": 0.1, "high": 0.14})

    await journal.write(write)
    one = follower(journal)
    await one.look()
    again = (await verifying(journal))[2]
    failed = {"reason": "the treatment failed", "high": 0.06}
    await journal.write(lambda tx: ended(tx, again, "broken", 0.05, **failed))
    await one.look()
    ((state, reason, explained),) = await rows(journal, f.c.state, f.c.reason, f.c.explained, id=2)
    assert (state, reason) == ("open", "the treatment failed")
    assert "findings" not in explained


async def test_a_regression_whose_outputs_are_wrong_explains_no_time(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 4)
        for newer, low in ((1, -0.01), (3, 0.01)):
            finding = statusd.finding(tx, line.compared(newer, newer - 1, **SLOWER), state="open")
            line.compared(newer, newer - 1, of={"run_type": "verify"}, finding=finding, **SLOWER | {"low": low})

    await journal.write(write)
    known = await journal.read(lambda connection: findings.known(connection, CELL))
    assert {one.finding: one.confirmed and one.confirmed.low for one in known} == {1: None, 2: 0.01}


MERGED = {"within": ["c3"], "probability": 1.0, "low": 0.01, "high": 0.2}


@pytest.mark.parametrize(
    ("culprits", "effect"),
    [
        ([{"commits": ["s1"], "effect": 0.03}, {"commits": ["s5"], "effect": 0.04}], 1.03 * 1.04 - 1),
        ([{"commits": ["s1"], "effect": 0.03}, {"commits": ["s5"], "effect": None}], 0.03),
        ([{"commits": ["s1"], "effect": 0.03}, {"commits": ["c3"], "effect": 0.1, "within": []}], 0.1),  # the whole merge
        ([{"commits": ["t1"], "effect": 0.02, "within": ["c3", "s2"]}, {"commits": ["s2"], "effect": 0.05}], 0.05),
    ],
)
async def test_what_a_merge_brought_in_adds_up_to_its_effect(
    journal: store.Store, culprits: list[dict[str, Any]], effect: float
) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 6)
        finding = statusd.finding(tx, line.compared(5, 0, **SLOWER), state="open")
        searches.found(tx, finding, "found", {"culprits": [MERGED | one for one in culprits], "commits": 9})

    await journal.write(write)
    (known,) = await journal.read(lambda connection: findings.known(connection, CELL))
    assert (known.named, known.by_commit) == ([3], {"c3": pytest.approx(math.log1p(effect))})


async def test_what_is_known_is_not_searched_again(journal: store.Store) -> None:
    line = [f"c{place}" for place in range(10)]
    whole = [math.log1p(0.12)] * 12
    known = searching.Known(line, frozenset(line), frozenset(), [], whole, 0.02)
    rule = settings.BisectSettings()
    without = searching.step(known, rule)
    taken_off = searching.step(dataclasses.replace(known, known={"c3": math.log1p(0.12)}), rule)
    assert (without.search, taken_off.search) == ("running", "no culprit")


async def test_a_budget_that_is_spent_refutes_nothing(journal: store.Store) -> None:
    await journal.write(lambda tx: Line(tx, 2).compared(1, 0, **SLOWER))
    one = follower(journal)
    await one.look()
    await journal.write(lambda tx: ended(tx, 2, "inconclusive", reason="the budget of blocks is spent"))
    await one.look()
    assert await rows(journal, f.c.state, f.c.reason) == [
        ("unconfirmed", "measured again: inconclusive (+5.0%); the budget of blocks is spent")
    ]


async def test_what_waits_on_a_device_that_is_gone_holds_up_no_other_suspect(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        pair = statusd.pair(tx, "c1", "c0")
        line.of_pair(pair, 1, 0, **SLOWER)
        line.of_pair(pair, 1, 0, device="sold", **SLOWER)
        line.of_pair(pair, 1, 0, device="sold", backend="cpu", state="open")

    await journal.write(write)
    one = follower(journal)
    await one.look()
    again = await verifying(journal)
    await journal.write(lambda tx: ended(tx, again[1], "regressed", 0.001, low=0.0001))
    await one.look()
    reasons = await rows(journal, f.c.reason)
    assert "one of 3 of its commit" in reasons[0][0]
    assert reasons[0][0].endswith("it is measured on")
    on = await verifying(journal)
    assert on[1] != again[1]
    assert on[2] == again[2]


def asked_for(journal: store.Store, experiment: int) -> Any:
    query = sa.select(e.c.design).where(e.c.id == experiment)
    return journal.read(lambda connection: connection.scalars(query).one()["rule"]["e_value"])


async def test_a_profile_goes_behind_what_measures_suspects_again_and_before_searches(journal: store.Store) -> None:
    await journal.write(lambda tx: Line(tx, 3).compared(2, 0, priority=3, **SLOWER))
    one = follower(journal)
    await one.look()
    await journal.write(lambda tx: ended(tx, 2, "regressed"))
    await one.look()
    assert await rows(journal, f.c.state) == [("open",)]
    await journal.write(lambda tx: profiles.ask(tx, 1))
    by_type = sa.select(p.c.run_type, e.c.priority).join(p, p.c.id == e.c.pair).order_by(e.c.priority.desc()).distinct()
    order = await journal.read(lambda connection: connection.execute(by_type).all())
    assert [row.run_type for row in order] == ["verify", "profile", "regress", "benchmark"]


async def test_of_a_commit_that_regresses_in_many_cells_the_clearest_few_are_profiled(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        pair = statusd.pair(tx, "c1", "c0")
        for number in range(7):
            facts = {"backend": f"b{number}", "estimate": 0.05 + number / 100, "low": 0.03, "high": 0.2}
            finding = statusd.finding(tx, line.of_pair(pair, 1, 0, **SLOWER | facts), state="open", verified_at=statusd.NOW)
            again = statusd.pair(tx, "c1", "c0", run_type="verify")
            line.of_pair(again, 1, 0, finding=finding, **SLOWER | facts)

    def ask(tx: store.Transaction) -> None:
        for finding in profiles.wanted(tx.connection, statusd.NOW):
            profiles.ask(tx, finding)

    await journal.write(write)
    assert await journal.read(lambda connection: profiles.wanted(connection, statusd.NOW)) == [7, 6, 5, 4]
    await journal.write(ask)
    assert await journal.read(lambda connection: profiles.wanted(connection, statusd.NOW)) == []
    left_out = await journal.read(lambda connection: profiles.of_finding(connection, 1))
    assert left_out is not None
    assert left_out["reason"] == "the 4 clearest findings of its commit are"


async def test_one_look_has_all_profiled_that_wait_for_it(
    journal: store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "LIMIT", 1)

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 4)
        for number in range(1, 4):
            suspect = line.compared(number, number - 1, **SLOWER)
            finding = statusd.finding(tx, suspect, state="open", verified_at=datetime.now(UTC))
            line.compared(number, number - 1, of={"run_type": "verify"}, finding=finding, **SLOWER)

    await journal.write(write)
    chosen = settings.Settings.model_validate(statusd.CONFIGURATION | {"verify": {"profile": True}})
    looks = profiling.Profiling(journal, lambda: chosen, tmp_path)
    await looks.look()
    made = sa.select(schema.profiles.c.finding, schema.profiles.c.made_at).order_by(schema.profiles.c.finding)
    before = await journal.read(lambda connection: connection.execute(made).all())
    assert [row.finding for row in before] == [1, 2, 3]
    own = sa.select(schema.profiles.c.experiment)
    await journal.write(lambda tx: tx.connection.execute(e.update().where(e.c.id.in_(own)).values(state="skipped")))
    await looks.look()
    assert None not in [row.made_at for row in await journal.read(lambda connection: connection.execute(made).all())]


async def test_what_a_search_is_given_is_what_it_takes_still(journal: store.Store) -> None:
    facts: dict[str, float | int | None] = {"blocks": 40, "scale": 0.01, "expected": 30.0, "seconds": 5.0}

    def write(tx: store.Transaction) -> None:
        statusd.finding(tx, Line(tx, 3).compared(2, 0, **SLOWER), state="open", search="running")
        noises.put(tx, CELL, facts, model.Summary())
        searches.give(tx, 1, {("c1", "c0"): 4})
        tx.connection.execute(e.update().where(e.c.finding == 1).values(state="open", blocks=4, blocks_left=0, seconds_left=0))
        searches.give(tx, 1, {("c1", "c0"): 6})

    await journal.write(write)
    assert await rows(journal, e.c.quota, e.c.blocks_left, e.c.seconds_left, finding=1) == [(10, 6, 30)]


@pytest.mark.parametrize(("verdict", "state"), [("regressed", "open"), ("unchanged", "refuted"), ("inconclusive", "unconfirmed")])
async def test_a_suspect_whose_family_grew_is_measured_on_until_it_is_sure(
    journal: store.Store, verdict: str, state: str
) -> None:
    """Nine others of its commit become suspects once it is measured again, and come to nothing."""

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        pair = statusd.pair(tx, "c1", "c0")
        line.of_pair(pair, 1, 0, **SLOWER)
        for number in range(9):
            line.of_pair(pair, 1, 0, backend=f"b{number}", state="open")

    one = follower(journal)
    await journal.write(write)
    await one.look()
    again = await verifying(journal)
    assert await asked_for(journal, again[1]) == 20
    # Seven blocks that all say so are too few for one of ten.
    await journal.write(lambda tx: ended(tx, again[1], "regressed", 0.05, count=7))
    await one.look()
    assert await rows(journal, f.c.state) == [("suspect",)]
    all_regressed = e.update().where(e.c.id.between(2, 10)).values(SLOWER)
    await journal.write(lambda tx: tx.connection.execute(all_regressed) and None)
    await one.look()
    others = await verifying(journal)
    assert len(others) == 10
    await journal.write(lambda tx: [ended(tx, others[number], "unchanged", 0.0) for number in range(2, 11)] and None)
    await one.look()
    on = (await verifying(journal))[1]
    ((now, reason, evidence),) = await rows(journal, f.c.state, f.c.reason, f.c.evidence, id=1)
    assert (now, on != again[1]) == ("suspect", True)
    assert "for one of 10" in reason
    assert await asked_for(journal, on) * math.exp(evidence) == pytest.approx(200)
    await one.look()
    assert (await verifying(journal))[1] == on  # asked for once
    await journal.write(lambda tx: ended(tx, on, verdict, 0.05))
    await one.look()
    ((now, whole),) = await rows(journal, f.c.state, f.c.evidence, id=1)
    assert now == state
    assert whole is None or whole >= math.log(200)


async def test_what_regressed_and_is_not_a_finding_yet_is_of_the_family(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        pair = statusd.pair(tx, "c1", "c0")
        statusd.finding(tx, line.of_pair(pair, 1, 0, **SLOWER), state="refuted")
        line.of_pair(pair, 1, 0, backend="new", **SLOWER)
        line.of_pair(pair, 1, 0, backend="open")
        line.of_pair(pair, 1, 0, backend="same", **statusd.decided("unchanged"))

    await journal.write(write)
    family = await journal.read(lambda connection: findings.family(connection, suspicion.Range("engine", "c1", "c0")))
    assert (family.findings, family.undecided, family.size) == (1, ["lab-host", "lab-host"], 3)


async def confirmed(journal: store.Store, one: following.Following, **facts: Any) -> None:
    """A finding that is confirmed, of commits ``c9`` and ``c0``; its search has begun."""
    await journal.write(lambda tx: Line(tx, 10).compared(9, 0, **SLOWER | facts))
    await one.look()
    await journal.write(
        lambda tx: ended(tx, 2, "regressed", reason="", **{name: facts[name] for name in ("low",) if name in facts})
    )
    await one.look()
    assert await rows(journal, f.c.state) == [("open",)]


WEBHOOK = {"name": "chat", "kind": "http", "url": "http://localhost:1/", "format": "webhook"}


def waiting(connection: sa.Connection) -> list[model.Record]:
    return [row.record for row in outbox.batch(connection, "chat", records=99, size=1 << 20)]


async def alerts(journal: store.Store) -> list[tuple[Any, ...]]:
    """Event, finding, effect and commits that are named, of what waits for a webhook."""
    found = await journal.read(
        lambda connection: [row.record for row in outbox.batch(connection, "chat", records=99, size=1 << 20)]
    )
    assert {record.kind for record in found} <= {"alert"}
    told: list[Any] = [record.payload for record in found]
    return [(one["event"], one["finding"], one["estimate"], one["culprits"] and one["culprits"][0]["commits"]) for one in told]


async def test_what_is_confirmed_is_one_message(journal: store.Store) -> None:
    one = follower(journal, sinks=[WEBHOOK])
    await journal.write(lambda tx: Line(tx, 2).compared(1, 0, **SLOWER))
    await one.look()
    assert await alerts(journal) == []  # a suspect is none of anyone's business
    await journal.write(lambda tx: ended(tx, 2, "regressed", 0.06, reason=""))
    await one.look()
    await one.look()
    assert await rows(journal, f.c.state, f.c.search) == [("open", "found")]
    # Its only commit is the culprit: a message for those alone who do not hear of what is confirmed.
    assert await alerts(journal) == [("confirmed", 1, 0.06, []), ("culprit", 1, 0.06, ["c1"])]
    told, culprit = await journal.read(waiting)
    for on, expected in ((["confirmed", "culprit"], [told]), (["culprit"], [culprit]), (["confirmed"], [told])):
        own = webhook.Webhook(webhook.Webhook.Settings.model_validate({"kind": "webhook", "on": on}))
        assert [record for record in (told, culprit) if own.accepts(record)] == expected
    facts: Any = told.payload
    assert (facts["author"], facts["subject"], facts["commit"], facts["control_commit"]) == ("someone", "change 1", "c1", "c0")
    assert facts["promise"] == "at a false discovery rate of 0.05"
    assert math.log(facts["e_value"]) == pytest.approx((await rows(journal, f.c.evidence))[0][0])


async def test_what_is_accepted_is_one_message_each_time(journal: store.Store) -> None:
    one = follower(journal, sinks=[WEBHOOK])
    await confirmed(journal, one)

    async def made(action: str) -> None:
        wanted = triage.Wanted(1, action, "eve", "worth it")
        await journal.write(lambda tx: triage.apply(tx, wanted, datetime.now(UTC)))
        await one.look()

    for action in (triage.ACCEPT, triage.REOPEN, triage.ACCEPT):
        await made(action)
    await one.look()
    told = [record for record in await journal.read(waiting) if record.payload["event"] == "accepted"]
    assert len({record.id for record in told}) == len(told) == 2
    assert (told[0].payload["by"], told[0].payload["why"]) == ("eve", "worth it")


async def test_alerts_say_of_how_many_commits_a_finding_is_and_whose_those_are_that_are_named(journal: store.Store) -> None:
    one = follower(journal, sinks=[WEBHOOK])
    await confirmed(journal, one)
    (told,) = [record.payload for record in await journal.read(waiting)]
    ((newer, older),) = await rows(journal, p.c.treatment, p.c.control, run_type="benchmark")
    assert told["between"] == int(newer.removeprefix("c")) - int(older.removeprefix("c")) > 1
    assert told["named"] == []
    only = {"commits": ["c4"], "within": [], "probability": 0.99, "effect": 0.05, "low": 0.04, "high": 0.06}
    found: Any = {"culprits": [only], "commits": 9}
    await one._bisecting.end(1, "found", found)
    *_, named = [record.payload for record in await journal.read(waiting)]
    assert (named["event"], named["named"]) == ("culprit", [{"commit": "c4", "subject": "change 4", "author": "someone"}])


async def test_the_culprit_among_many_is_a_message_of_its_own(journal: store.Store) -> None:
    one = follower(journal, sinks=[WEBHOOK])
    await confirmed(journal, one)
    done: dict[int, int] = {}
    while await rows(journal, f.c.search) == [("running",)]:
        for number, newer, older, state, quota in await steps(journal):
            if state == "waiting":
                slower = int(newer[1:]) >= 4 > int(older[1:])
                own = functools.partial(blocks, experiment=number, change=0.05 * slower, count=quota, after=done.get(number, 0))
                await journal.write(own)
                done[number] = quota
        await one.look()
    assert await rows(journal, f.c.search) == [("found",)]
    assert await alerts(journal) == [("confirmed", 1, 0.05, []), ("culprit", 1, 0.05, ["c4"])]


async def test_what_is_seen_again_is_no_message_and_what_is_mended_is_one(journal: store.Store) -> None:
    one, now = follower(journal, sinks=[WEBHOOK]), datetime.now(UTC)
    await confirmed(journal, one)
    before = await alerts(journal)

    def write(tx: store.Transaction) -> None:
        for number in (10, 11, 12):
            statusd.revision(tx, f"c{number}", number)
            statusd.build(tx, f"c{number}", digest=f"d{number}")
        line = Line.__new__(Line)
        line.tx, line.builds = tx, list(range(1, 14))
        line.compared(10, 0, **SLOWER | {"decided_at": now})
        line.compared(11, 10, **statusd.decided("unchanged") | {"decided_at": now})  # neither of the two is from before it
        line.compared(12, 0, **statusd.decided("unchanged") | {"decided_at": now})

    await journal.write(write)
    await one.look()
    await one.look()
    told = [alert[:2] for alert in await alerts(journal)]
    assert told == [alert[:2] for alert in before] + [("mended", 1)]
    query = sa.select(p.c.treatment).join(e, e.c.pair == p.c.id).join(f, f.c.mended == e.c.id)
    assert await journal.read(lambda connection: connection.scalars(query).all()) == ["c12"]
    assert await journal.read(lambda connection: connection.scalar(sa.select(schema.sightings.c.finding))) == 1


def found_at_1(tx: store.Transaction, **facts: Any) -> Line:
    """A branch of six commits, the second of which has a confirmed finding that was searched."""
    line = Line(tx, 6)
    first = line.compared(1, 0, **SLOWER | facts)
    finding = statusd.finding(tx, first, state="open", search="found", verified_at=statusd.NOW)
    line.compared(1, 0, of={"run_type": "verify"}, finding=finding, **SLOWER | facts)
    return line


async def anchors(journal: store.Store) -> list[tuple[Any, ...]]:
    query = sa.select(e.c.id, p.c.treatment, p.c.control).join(p).where(p.c.run_type == "anchor").order_by(e.c.id)
    return [tuple(row) for row in await journal.read(lambda connection: connection.execute(query).all())]


async def test_what_improved_after_a_finding_is_compared_with_what_was_before_it(journal: store.Store) -> None:
    now = datetime.now(UTC)

    def write(tx: store.Transaction) -> None:
        line = found_at_1(tx)
        line.compared(2, 1, **statusd.decided("unchanged") | {"decided_at": now})
        line.compared(3, 2, **statusd.decided("improved") | {"decided_at": now})
        line.compared(4, 3, **statusd.decided("improved") | {"decided_at": now})  # the newest tells for both

    await journal.write(write)
    one = follower(journal, sinks=[WEBHOOK])
    await one.look()
    await one.look()
    ((anchor, *commits),) = await anchors(journal)
    assert commits == ["c4", "c0"]
    assert await alerts(journal) == []
    await journal.write(lambda tx: ended(tx, anchor, "unchanged", 0.0, decided_at=datetime.now(UTC)))
    await one.look()
    assert [alert[:2] for alert in await alerts(journal)] == [("mended", 1)]
    assert await rows(journal, f.c.mended) == [(anchor,)]
    await one.look()
    assert len(await anchors(journal)) == 1


async def test_what_improved_before_a_finding_was_confirmed_is_compared_once_it_is(journal: store.Store) -> None:
    """A revert may be decided while what it reverts is still measured again, and while another anchor is pending."""
    now = datetime.now(UTC)

    def write(tx: store.Transaction) -> None:
        line = found_at_1(tx)
        tx.connection.execute(f.update().values(state="suspect"))
        line.compared(3, 2, **statusd.decided("improved") | {"decided_at": now - timedelta(minutes=2)})
        line.compared(4, 3, **statusd.decided("unchanged") | {"decided_at": now})

    def improved(tx: store.Transaction) -> None:
        line = Line.__new__(Line)
        line.tx, line.builds = tx, list(range(1, 7))
        line.compared(5, 4, **statusd.decided("improved") | {"decided_at": datetime.now(UTC)})

    await journal.write(write)
    one = follower(journal, verify={"enabled": False})
    findings_open = f.update().values(state="open")
    await journal.write(lambda tx: tx.connection.execute(findings_open) and None)
    one._mends_until = now
    await one.look()
    assert [tuple(row[1:]) for row in await anchors(journal)] == [("c3", "c0")]
    await journal.write(improved)
    await one.look()
    assert len(await anchors(journal)) == 1  # one at a time
    ((anchor, *_),) = await anchors(journal)
    await journal.write(lambda tx: ended(tx, anchor, "inconclusive", 0.0, decided_at=datetime.now(UTC)))
    await one.look()
    assert [tuple(row[1:]) for row in await anchors(journal)] == [("c3", "c0"), ("c5", "c0")]


async def test_what_is_still_slower_than_before_a_finding_is_a_sighting_of_it_until_something_improves_again(
    journal: store.Store,
) -> None:
    def improved(tx: store.Transaction, newer: int) -> None:
        line = Line.__new__(Line)
        line.tx, line.builds = tx, list(range(1, 7))
        line.compared(newer, newer - 1, **statusd.decided("improved") | {"decided_at": datetime.now(UTC)})

    await journal.write(lambda tx: found_at_1(tx) and None)
    one = follower(journal)
    for newer in (3, 5):
        await journal.write(functools.partial(improved, newer=newer))
        await one.look()
        anchor, *commits = (await anchors(journal))[-1]
        assert commits == [f"c{newer}", "c0"]
        await journal.write(functools.partial(ended, experiment=anchor, verdict="regressed", decided_at=datetime.now(UTC)))
        await one.look()
        await one.look()
    assert await rows(journal, f.c.id, f.c.mended) == [(1, None)]
    assert len(await journal.read(lambda connection: connection.execute(sa.select(schema.sightings)).all())) == 2
    assert len(await anchors(journal)) == 2


async def test_what_works_again_after_it_broke_is_compared_with_what_was_before(journal: store.Store) -> None:
    now = datetime.now(UTC)

    def write(tx: store.Transaction) -> None:
        line = found_at_1(tx, verdict="broken")
        line.compared(2, 1, **statusd.decided("inconclusive") | {"decided_at": now})
        line.compared(3, 2, **statusd.decided("inconclusive") | {"decided_at": now})

    def works(tx: store.Transaction, newer: int = 4) -> None:
        line = Line.__new__(Line)
        line.tx, line.builds = tx, list(range(1, 7))
        line.compared(newer, newer - 1, **statusd.decided("unchanged") | {"decided_at": now})

    await journal.write(write)
    one = follower(journal)
    await one.look()
    assert await anchors(journal) == []
    await journal.write(works)
    await one.look()
    ((anchor, *commits),) = await anchors(journal)
    assert commits == ["c4", "c0"]
    await journal.write(lambda tx: ended(tx, anchor, "regressed", decided_at=datetime.now(UTC)))  # it works, and is slower
    await journal.write(functools.partial(works, newer=5))
    await one.look()
    assert len(await anchors(journal)) == 1  # nothing new could come of another one


@pytest.mark.parametrize(
    ("verdict", "tail", "reason", "mended"),
    [
        ("unchanged", 1.0, "", True),
        ("unchanged", None, "", False),  # too few iterations
        ("unchanged", 1.0, model.TAIL_UNSURE, False),
        ("identical", None, "", True),
    ],
)
async def test_what_is_slower_in_the_tail_is_mended_by_what_looked_at_the_tail(
    journal: store.Store, verdict: str, tail: float | None, reason: str, mended: bool
) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 5)
        first = line.compared(1, 0, **SLOWER | {"in_tail": True})
        finding = statusd.finding(tx, first, state="open", search="found", verified_at=statusd.NOW)
        line.compared(1, 0, of={"run_type": "verify"}, finding=finding, **SLOWER)
        number = line.compared(3, 0, **statusd.decided(verdict) | {"decided_at": datetime.now(UTC), "reason": reason})
        own = schema.blocks.c.experiment == number
        tx.connection.execute(schema.blocks.update().where(own).values(treatment_tail=tail, control_tail=tail))
        line.compared(4, 0, **SLOWER | {"in_tail": True})

    await journal.write(write)
    await follower(journal).look()
    assert await rows(journal, f.c.mended) == ([(3,), (None,)] if mended else [(None,)])
    assert await rows(journal, f.c.suspect) == ([(1,), (4,)] if mended else [(1,)])  # else it is seen again


async def test_without_a_webhook_there_is_no_message(journal: store.Store) -> None:
    await confirmed(journal, follower(journal))
    depths = await journal.read(outbox.depths)
    assert {depth.kind for depth in depths} == {"verdict"}


async def steps(journal: store.Store) -> list[tuple[Any, ...]]:
    query = sa.select(e.c.id, p.c.treatment, p.c.control, e.c.state, e.c.quota).join(p).where(p.c.run_type == "regress")
    return [tuple(row) for row in await journal.read(lambda connection: connection.execute(query.order_by(e.c.id)).all())]


async def test_a_pair_that_cannot_be_measured_is_not_given_more_blocks(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    for _ in range(20):  # as many as there are commits, at most: each look passes one over
        open_ = [row for row in await steps(journal) if row[3] == "waiting"]
        if not open_:
            break
        for number, *_ in open_:
            lost = e.update().where(e.c.id == number).values(statusd.decided("inconclusive") | {"reason": "the device was lost"})
            await journal.write(lambda tx, lost=lost: tx.connection.execute(lost) and None)
        await one.look()
    found = await steps(journal)
    assert len({row[1:3] for row in found}) == len(found)
    assert await rows(journal, f.c.search) in ([("found",)], [("inconclusive",)])
    before = await rows(journal, e.c.quota)
    await one.look()
    assert await rows(journal, e.c.quota) == before


async def test_a_search_on_a_line_that_was_rewritten_leaves_no_experiment_open(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    assert {state for *_, state, _ in await steps(journal)} == {"waiting"}
    left = schema.revisions.update().where(schema.revisions.c.position > 5).values(on_branch=False)
    await journal.write(lambda tx: tx.connection.execute(left) and None)
    await one.look()
    assert {state for *_, state, _ in await steps(journal)} == {"cancelled"}
    assert await rows(journal, f.c.search, f.c.culprits) == [("impossible", {"reason": bisecting.OFF_BRANCH})]


def on_the_phone(tx: store.Transaction, like: int = 1, number: int = 100, **facts: Any) -> None:
    """A confirmed finding like that of an experiment, on another device."""
    row = tx.connection.execute(sa.select(e).where(e.c.id == like)).one()._asdict()
    tx.connection.execute(e.insert().values(row | {"id": number, "device": "phone", "backend": "gpu"} | facts))
    blocks(tx, number, 0.05)
    statusd.finding(tx, number, state="open", search="deferred", verified_at=statusd.NOW)


async def end_search(journal: store.Store, finding: int, search: str, *culprits: list[str]) -> None:
    found = {"culprits": [{"commits": commits, "within": [], "probability": 0.99} for commits in culprits]}

    def write(tx: store.Transaction) -> None:
        tx.connection.execute(f.update().where(f.c.id == finding).values(search=search, culprits=found))
        tx.connection.execute(e.update().where(e.c.finding == finding).values(state="cancelled"))

    await journal.write(write)


async def asked_of(journal: store.Store, finding: int) -> list[tuple[Any, ...]]:
    query = sa.select(p.c.treatment, p.c.control).join(e).where(p.c.run_type == "regress", e.c.finding == finding)
    return [tuple(row) for row in await journal.read(lambda connection: connection.execute(query.order_by(e.c.id)).all())]


async def test_another_device_searches_where_the_first_one_is_gone(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await follower(journal, devices=[{"name": "phone", "kind": "local"}]).look()
    assert await rows(journal, f.c.search) == [("running",), ("running",)]
    assert await asked_of(journal, 2)


OTHER = {"identifier": "other", "benchmark": "e" * 64}


@pytest.mark.parametrize(("away", "searches_too"), [((), False), (("lab-host",), True)])
async def test_another_benchmark_on_another_device_is_searched_while_the_first_one_is_lost(
    journal: store.Store, away: tuple[str, ...], searches_too: bool
) -> None:
    await confirmed(journal, follower(journal))
    await journal.write(lambda tx: on_the_phone(tx, **OTHER))
    await follower(journal, away=away).look()
    assert await rows(journal, f.c.search) == [("running",), ("running" if searches_too else "deferred",)]
    assert bool(await asked_of(journal, 2)) is searches_too


async def run_steps(journal: store.Store, culprits: dict[int, int], of: Collection[int] = ()) -> None:
    """Run the blocks that searches were given, of some findings or of all; ``culprits`` is by finding."""
    columns = (e.c.id, e.c.finding, e.c.blocks, e.c.quota, p.c.treatment, p.c.control)
    query = sa.select(*columns).join(p).where(p.c.run_type == "regress", e.c.state == "waiting", e.c.blocks < e.c.quota)
    for row in await journal.read(lambda connection: connection.execute(query).all()):
        if row.finding in (of or culprits):
            change = 0.05 * (int(row.control[1:]) < culprits[row.finding] <= int(row.treatment[1:]))
            await journal.write(lambda tx, row=row, change=change: blocks(tx, row.id, change, row.quota, row.blocks))


async def end_both(journal: store.Store, one: following.Following, culprits: dict[int, int], of: Collection[int] = ()) -> None:
    """Searches carried out until those of some findings, or of all, have ended."""
    for _ in range(40):
        await one.look()
        await run_steps(journal, culprits, of)
        states = dict(await rows(journal, f.c.id, f.c.search))
        if all(states[finding] not in suspicion.UNSEARCHED for finding in of or culprits):
            return
    raise AssertionError("they never end")


async def commits_named(journal: store.Store) -> list[Any]:
    return [[one["commits"] for one in found["culprits"]] for (found,) in await rows(journal, f.c.culprits)]


@pytest.mark.parametrize(("culprits", "expected"), [({1: 6, 2: 6}, ["c6", "c6"]), ({1: 3, 2: 7}, ["c3", "c7"])])
async def test_devices_that_show_the_same_search_at_once_and_each_names_its_culprit(
    journal: store.Store, culprits: dict[int, int], expected: list[str]
) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await one.look()
    assert await rows(journal, f.c.search) == [("running",), ("running",)]
    await end_both(journal, one, culprits)
    assert await rows(journal, f.c.search) == [("found",), ("found",)]
    assert await commits_named(journal) == [[[commit]] for commit in expected]
    last = (await rows(journal, f.c.culprits))[1][0]
    assert set(last["devices"]) == {"lab-host", "phone"}
    assert all(last["devices"].values())
    asked = {commit for pair in [*await asked_of(journal, 1), *await asked_of(journal, 2)] for commit in pair} - {"c0", "c9"}
    assert last["builds"] <= len(asked)  # each once, whoever asked for it


async def test_the_first_one_to_search_names_the_devices_that_begin_with_it(journal: store.Store) -> None:
    await confirmed(journal, follower(journal))
    await run_steps(journal, {1: 6})
    await journal.write(on_the_phone)
    await follower(journal).look()
    (first,), (second,) = await rows(journal, f.c.culprits)
    assert first["devices"] == second["devices"] == {"lab-host": 4, "phone": 0}


async def test_a_device_that_is_lost_leaves_the_search_to_the_others_and_goes_on_once_it_is_back(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await one.look()
    culprits = {1: 6, 2: 6}
    await run_steps(journal, culprits)
    await one.look()  # the phone has blocks to run, and is lost
    waits = await asked_of(journal, 2)
    await end_both(journal, follower(journal, away=("phone",)), culprits, of=[1])
    assert await rows(journal, f.c.search) == [("found",), ("running",)]
    assert await asked_of(journal, 2) == waits
    await end_both(journal, one, culprits)
    assert await commits_named(journal) == [[["c6"]], [["c6"]]]


async def test_what_is_built_for_another_platform_waits_for_the_answer(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)

    def write(tx: store.Transaction) -> None:
        other = statusd.build(tx, "c9", platform="android", digest="a9")
        on_the_phone(tx, treatment_build=other)

    await journal.write(write)
    await one.look()
    assert await rows(journal, f.c.search) == [("running",), ("deferred",)]


async def test_what_one_search_found_is_asked_first_of_the_others_on_their_own_device(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await end_search(journal, 1, "found", ["c6"])
    await one.look()
    assert await rows(journal, f.c.search) == [("found",), ("running",)]
    assert await asked_of(journal, 2) == [("c6", "c5")]


async def test_what_the_others_do_not_show_they_search_for_by_themselves(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await end_search(journal, 1, "found", ["c6"])
    for _ in range(40):
        await one.look()
        for number, newer, older, state, quota in await steps(journal):
            if state != "waiting":
                continue
            has = await rows(journal, e.c.blocks, id=number)
            change = 0.05 * (int(older[1:]) < 2 <= int(newer[1:]))
            await journal.write(lambda tx, n=number, c=change, q=quota, h=has[0][0]: blocks(tx, n, c, q, h))
        if (await rows(journal, f.c.search, id=2)) == [("found",)]:
            break
    ((found,),) = await rows(journal, f.c.culprits, id=2)
    assert [culprit["commits"] for culprit in found["culprits"]] == [["c2"]]


async def test_a_search_that_found_nothing_stands_for_no_other(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    await journal.write(on_the_phone)
    await end_search(journal, 1, "inconclusive", ["c6"])
    await one.look()
    assert await rows(journal, f.c.search) == [("inconclusive",), ("running",)]
    assert await asked_of(journal, 2) != [("c6", "c5")]


async def test_what_broke_is_searched_apart_from_what_became_slower(journal: store.Store) -> None:
    one = follower(journal)
    await confirmed(journal, one)
    broken = {"verdict": "broken", "low": None, "high": None, "estimate": None}
    await journal.write(lambda tx: on_the_phone(tx, **broken))
    await journal.write(lambda tx: on_the_phone(tx, number=101, identifier="other", benchmark="e" * 64, low=-0.01))
    await one.look()
    assert await rows(journal, f.c.search) == [("running",), ("running",), ("running",)]
    await end_search(journal, 1, "found", ["c6"])
    await one.look()
    assert await asked_of(journal, 2) == await asked_of(journal, 3) == [("c5", "c0")]  # halved, each by itself


async def test_what_was_built_or_failed_before_a_search_is_none_of_its_builds(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        Line(tx, 10).compared(9, 0, **SLOWER)
        statusd.finding(tx, 1, state="open", verified_at=statusd.NOW)
        later = {"queued_at": statusd.NOW.replace(year=2027)}
        before = {"queued_at": statusd.NOW.replace(year=2025)}
        for commit, values in (
            ("c3", before),
            ("c4", before | {"state": "failed"}),
            ("c5", later),
            ("c6", later | {"state": "failed"}),
        ):
            tx.connection.execute(schema.builds.update().where(schema.builds.c.commit == commit).values(values))

    await journal.write(write)
    known = await journal.read(lambda connection: searches.searched(connection, 1))
    assert known.built == {"c3", "c4"}
    assert known.unbuildable == {"c4", "c6"}


async def test_a_merge_that_brought_in_more_commits_than_one_question_may_name_is_searched(journal: store.Store) -> None:
    many = [f"s{number}" for number in range(40_000)]  # SQLite takes 32,766 parameters

    def write(tx: store.Transaction) -> None:
        statusd.finding(tx, Line(tx, 4).compared(3, 0, **SLOWER), state="open", verified_at=statusd.NOW)
        tx.connection.execute(schema.revisions.update().where(schema.revisions.c.commit == "c2").values(parents=["c1", "s39999"]))
        merged = {"repository": "engine", "commit": "c2", "onto": "c1", "sides": [["c0", *many]]}
        tx.connection.execute(schema.merges.insert().values(merged))
        statusd.build(tx, "s35000", state="failed", queued_at=statusd.NOW)

    await journal.write(write)
    known = await journal.read(lambda connection: searches.searched(connection, 1))
    assert known.within.commits(known.line) == {"c0", "c1", "c2", "c3", *many}
    assert known.unbuildable == {"s35000"}


async def test_a_search_begins_with_the_noise_of_what_was_measured_before(journal: store.Store) -> None:
    """Not of the experiments that began it, nor of its own: their blocks are its evidence."""

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 6)
        line.compared(1, 0, **statusd.decided("unchanged", 1))
        line.compared(2, 1, **statusd.decided("unchanged", 1))
        line.compared(5, 2, **SLOWER)
        statusd.finding(tx, 3, state="open", verified_at=statusd.NOW)
        again = line.compared(5, 2, of={"run_type": "verify"}, **SLOWER)
        tx.connection.execute(e.update().where(e.c.id == again).values(finding=1))
        line.compared(4, 2, **statusd.decided("unchanged", 1))

    await journal.write(write)
    known = await journal.read(lambda connection: searches.searched(connection, 1))
    assert [len(one.blocks) for one in known.earlier] == [20, 20]
    assert len(known.shown) == 40


async def test_what_breaks_of_one_commit_holds_up_no_other(journal: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 4)
        line.compared(1, 0, **SLOWER)
        line.compared(3, 2, **SLOWER)

    await journal.write(write)
    verify = findings.verify

    def breaks(tx: store.Transaction, of: suspicion.Range, *rest: Any) -> None:
        if of.treatment == "c1":
            raise ValueError("a bug")
        verify(tx, of, *rest)

    one = follower(journal)
    with monkeypatch.context() as broken:
        broken.setattr(findings, "verify", breaks)
        with pytest.raises(ValueError, match="a bug"):
            await one.look()
        assert await rows(journal, f.c.suspect) == [(2,)]
        await journal.write(lambda tx: ended(tx, 3, "unchanged", 0.0))
        with pytest.raises(ValueError, match="a bug"):
            await one.look()
    assert await rows(journal, f.c.suspect, f.c.state) == [(2, "refuted")]
    await one.look()
    assert await rows(journal, f.c.suspect) == [(2,), (1,)]


CELL = suspicion.Cell("engine", statusd.DIGEST, "lab-host", "", "squeeze")


async def test_commits_that_are_far_apart_are_compared_as_those_are_that_no_one_asked_for(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 4)
        asked = {"repository": "engine", "treatment": "c3", "benchmarks": [], "devices": [], "state": "planned"}
        tx.connection.execute(schema.requests.insert().values(asked | {"id": 1, "created_at": statusd.NOW}))
        line.compared(1, 0, priority=3, **statusd.decided("unchanged"))
        line.compared(2, 1, of={"run_type": "verify"}, priority=203, **statusd.decided("unchanged"))
        line.compared(3, 2, of={"request": 1}, priority=1003, **statusd.decided("unchanged"))
        series.compare(tx, CELL, "c0", "c3")

    await journal.write(write)
    assert (await rows(journal, e.c.priority))[-1] == (3 + series.PRIORITY,)


async def test_an_anchor_that_came_to_nothing_is_not_tried_at_each_commit(journal: store.Store) -> None:
    rule = settings.CreepSettings()

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 14)
        for newer in range(1, 12):
            line.compared(newer, newer - 1, **statusd.decided("inconclusive") | {"estimate": 0.0, "low": -0.05, "high": 0.05})

    await journal.write(write)
    wanted = creeping.wanted(await journal.read(lambda connection: series.of_cell(connection, CELL)), rule)
    assert wanted is not None
    assert (wanted.older, wanted.newer) == ("c0", "c11")

    def skipped(tx: store.Transaction) -> None:
        series.compare(tx, CELL, "c0", "c11")
        tx.connection.execute(e.update().where(e.c.state == "waiting").values(state="skipped"))
        tx.connection.execute(schema.builds.update().where(schema.builds.c.commit == "c0").values(state="failed"))

    await journal.write(skipped)
    assert creeping.wanted(await journal.read(lambda connection: series.of_cell(connection, CELL)), rule) is None
    left = e.update().where(e.c.state == "skipped").values(pair=1, backend="elsewhere")
    await journal.write(lambda tx: tx.connection.execute(left) and None)
    wanted = creeping.wanted(await journal.read(lambda connection: series.of_cell(connection, CELL)), rule)
    assert wanted is not None
    assert wanted.older == "c1"  # c0 does not build any more


async def test_an_anchor_begins_after_the_newest_known_change(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 14)
        for newer in range(1, 12):
            line.compared(newer, newer - 1, **statusd.decided("unchanged") | {"estimate": 0.0, "low": -0.05, "high": 0.05})
        found = line.compared(4, 1, **SLOWER)
        statusd.finding(tx, found, state="open", search="running")

    await journal.write(write)
    rule = settings.CreepSettings()
    wanted = creeping.wanted(await journal.read(lambda connection: series.of_cell(connection, CELL)), rule)
    assert wanted is not None
    assert (wanted.older, wanted.newer) == ("c4", "c11")
    only = {"commits": ["c3"], "within": [], "probability": 1.0, "effect": 0.05, "low": 0.04, "high": 0.06}
    await journal.write(lambda tx: searches.found(tx, 1, "found", {"culprits": [only], "commits": 3}))
    wanted = creeping.wanted(await journal.read(lambda connection: series.of_cell(connection, CELL)), rule)
    assert wanted is not None
    assert (wanted.older, wanted.newer) == ("c3", "c11")


@pytest.mark.parametrize(("body", "known"), [(0.0, []), (-0.05, [(3, 4)])])
async def test_levels_go_on_over_a_finding_in_the_tail_as_the_rest_of_the_times_did(
    journal: store.Store, body: float, known: list[tuple[int, int]]
) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 9)
        for newer in range(1, 8):
            if newer != 4:
                line.compared(newer, newer - 1, **statusd.decided("unchanged") | {"estimate": 0.0, "low": -0.01, "high": 0.01})
        found = line.compared(4, 3, **SLOWER | {"in_tail": True})
        tx.connection.execute(schema.blocks.delete().where(schema.blocks.c.experiment == found))
        blocks(tx, found, body)
        statusd.finding(tx, found, state="open", search="running")

    await journal.write(write)
    history = await journal.read(lambda connection: series.of_cell(connection, CELL))
    assert history.known == []
    levels: Any = creeping.levels(history, settings.CreepSettings())["levels"]
    assert [one["commit"] for one in levels] == [f"c{number}" for number in range(8)]
    assert [one["ratio"] for one in levels[3:5]] == pytest.approx([1.0, 1 + body], abs=0.01)
    assert creeping.compared(history).known == known


async def test_levels_begin_where_the_number_that_is_compared_was_first(journal: store.Store) -> None:
    """An eighth of the iterations and all of them need not change alike; whether it creeps both are asked."""

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 40)
        for newer in range(1, 39):
            number = dataclasses.asdict(model.Summary(high=1 / 8 if newer <= 20 else 1.0))
            small = {"estimate": 0.005, "low": 0.0, "high": 0.01}
            line.compared(newer, newer - 1, design=DESIGN | {"summary": number}, **statusd.decided("unchanged") | small)

    await journal.write(write)
    history = await journal.read(lambda connection: series.of_cell(connection, CELL))
    found: Any = creeping.levels(history, settings.CreepSettings())
    assert [one["commit"] for one in found["levels"]] == [f"c{number}" for number in range(20, 39)]
    assert found["number"] == "mean of the whole"
    assert found["creep"]["creeps"] is True
    assert found["creep"]["estimate"] > 0.12  # over all 38


async def test_what_is_decided_while_one_looks_is_seen_by_the_next_look(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 3)
        line.compared(1, 0, **statusd.decided("unchanged", 1))

    await journal.write(write)
    first = await journal.read(lambda connection: series.decided_since(connection, statusd.NOW))
    assert (len(first.cells), first.until) == (1, statusd.decided("unchanged", 1)["decided_at"])
    again = await journal.read(lambda connection: series.decided_since(connection, first.until))
    assert again == series.Decided([], first.until)


async def test_what_has_one_arm_is_not_compared_with_itself(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        pair = statusd.pair(tx, "c1", "c0")
        line.of_pair(pair, 1, 0)
        statusd.experiment(tx, pair, line.builds[1], backend="alone", design=dict(DESIGN) | {"arms": 1})
        selfchecks.plan(tx, pair, 1.0)

    await journal.write(write)
    query = sa.select(e.c.backend).join(p).where(p.c.run_type == "selfcheck")
    assert await journal.read(lambda connection: connection.scalars(query).all()) == [""]


async def test_the_noise_of_one_repository_s_programs_is_not_that_of_another_s(journal: store.Store) -> None:
    facts = {"blocks": 20, "scale": 0.01, "slot": None, "slot_low": None, "slot_high": None, "smallest": 0.02}
    for repository, scale in (("engine", 0.01), ("fork", 0.05), ("engine", 0.02)):
        cell = dataclasses.replace(CELL, repository=repository)
        await journal.write(lambda tx, cell=cell, scale=scale: noises.put(tx, cell, facts | {"scale": scale}, model.Summary()))
    listed = await journal.read(noises.listing)
    assert {one["repository"]: one["scale"] for one in listed} == {"engine": 0.02, "fork": 0.05}


@pytest.mark.parametrize(("metric", "chosen"), [("delay", model.Summary(high=1.0)), ("accuracy", model.Summary())])
async def test_iterations_say_nothing_of_what_is_no_time(journal: store.Store, metric: str, chosen: model.Summary) -> None:
    """Iterations of 5 % of noise, of which the mean of all is the steadiest: an accuracy hangs on none of them."""
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "squeeze", "metric": metric})
    design = planning.design_json(model.Design(benchmark, "pytorch", model.Rule(), seed=1))
    rng, now = random.Random(2), datetime.now(UTC)

    def write(tx: store.Transaction) -> None:
        line = Line(tx, 2)
        for _ in range(6):
            number = line.compared(
                1,
                0,
                **statusd.decided("unchanged")
                | {"estimate": 0.0, "low": -0.01, "high": 0.01}
                | {"decided_at": now, "design": design},
            )
            for block, arm in itertools.product(range(20), model.ArmName):
                of = {"experiment": number, "block": block, "arm": arm.value}
                trial = tx.connection.execute(
                    schema.trials.insert().values(**of, seconds=1.0, started_at=now, outcome="ok").returning(schema.trials.c.id)
                ).scalar_one()
                values = [math.exp(rng.gauss(0, 0.05)) for _ in range(20)]
                sample = {"trial": trial, "type": "NET", "metric": "latency", "unit": "us", "values": values}
                tx.connection.execute(schema.samples.insert().values(sample))

    await journal.write(write)
    for _ in range(2):
        looked = histories.Histories(journal, lambda: settings.Settings.model_validate(statusd.CONFIGURATION))
        await looked.look()
    assert await journal.read(lambda connection: noises.now(connection, CELL)) == chosen
    (listed,) = await journal.read(noises.listing)
    if metric == "accuracy":
        assert listed["scale"] == pytest.approx(0.003, rel=0.2)  # that of the numbers of its blocks


async def test_one_look_takes_note_of_the_noise_of_all_cells(journal: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "CELLS", 1)

    def write(tx: store.Transaction) -> None:
        line, now = Line(tx, 2), datetime.now(UTC)
        for number in range(3):
            facts = {**statusd.decided("unchanged"), "decided_at": now + timedelta(seconds=number)}
            line.compared(1, 0, backend=f"b{number}", **facts)

    await journal.write(write)
    await histories.Histories(journal, lambda: settings.Settings.model_validate(statusd.CONFIGURATION)).look()
    assert {row["backend"] for row in await journal.read(noises.listing)} == {"b0", "b1", "b2"}


async def test_a_budget_of_pages_asks_more_of_each_suspect_of_a_month(journal: store.Store) -> None:
    def rows(tx: store.Transaction) -> None:
        line = Line(tx, 8)
        for newer in range(1, 8):
            line.compared(newer, newer - 1, **SLOWER)

    await journal.write(rows)
    await follower(journal, verify={"pages_a_month": 0.5}).look()
    query = sa.select(e.c.design).join(p, p.c.id == e.c.pair).where(p.c.run_type == "verify").order_by(e.c.id)
    wanted = [design["rule"]["e_value"] for design in await journal.read(lambda connection: list(connection.scalars(query)))]
    assert wanted == sorted(wanted)
    assert sum(1 / one for one in wanted) < 0.5  # of each at most so much is false, by Markov's inequality
    assert len(wanted) == 7


async def test_a_search_ends_where_its_finding_is_accepted_and_begins_anew_where_it_is_reopened(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> int:
        line = Line(tx, 9)
        return statusd.finding(tx, line.compared(8, 0, **SLOWER), state="open")

    finding = await journal.write(write)
    one = follower(journal)
    await one.look()
    assert await rows(journal, f.c.search) == [("running",)]
    wanted = triage.Wanted(finding, triage.ACCEPT, "kim", "it is worth it")
    await journal.write(lambda tx: triage.apply(tx, wanted, statusd.NOW))
    await one.look()
    assert await rows(journal, f.c.search, f.c.state) == [("stopped", "accepted")]
    assert await rows(journal, e.c.id, state="waiting") == []
    assert await rows(journal, e.c.id, state="open") == []
    await journal.write(lambda tx: triage.apply(tx, dataclasses.replace(wanted, action=triage.REOPEN), statusd.NOW))
    await one.look()
    assert await rows(journal, f.c.search, f.c.state) == [("running", "open")]


async def test_a_mute_that_has_ended_is_taken_off(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        finding = statusd.finding(tx, Line(tx, 2).compared(1, 0, **SLOWER), state="unconfirmed")
        triage.apply(tx, triage.Wanted(finding, triage.MUTE, "kim", "noise", statusd.NOW), statusd.NOW)

    await journal.write(write)
    with journal.events.bell("finding.reopened") as bell:
        await follower(journal).look()
        assert await bell.wait(0)
    assert await rows(journal, f.c.triage) == [("",)]
