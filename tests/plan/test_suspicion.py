"""What is a suspect, what joins a finding, and what becomes of suspects that were measured again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from aibenchd import model
from aibenchd.plan import suspicion

CELL = suspicion.Cell("engine", "d" * 64, "host", "cpu", "net")
BAD = model.Verdict.REGRESSED


def suspect(experiment: int, older: int | None, newer: int | None, **facts: Any) -> suspicion.Suspect:
    of = suspicion.Range("engine", f"commit {newer}", f"commit {older}")
    usual: dict[str, Any] = {"verdict": model.Verdict.REGRESSED, "estimate": 0.05, "low": 0.03, "high": 0.07}
    return suspicion.Suspect(experiment, CELL, of, newer, older, **{**usual, **facts})


def known(finding: int, older: int, newer: int, **facts: Any) -> suspicion.Known:
    return suspicion.Known(finding, suspect(finding, older, newer, **facts))


@pytest.mark.parametrize(("low", "slower"), [(0.03, True), (0.0, True), (-0.01, False), (None, False)])
def test_a_verdict_of_time_has_an_interval_that_begins_at_no_change_or_beyond(low: float | None, slower: bool) -> None:
    assert suspect(1, 1, 2, low=low).slower is slower
    assert not suspect(1, 1, 2, low=low, verdict=model.Verdict.BROKEN).slower


@pytest.mark.parametrize(
    ("older", "newer", "finding"),
    [(1, 6, 7), (1, 4, 7), (3, 9, 7), (4, 6, None), (1, 3, None), (None, 6, None)],
    ids=["around it", "to its end", "from its beginning", "after it", "before it", "beside the branch"],
)
def test_what_spans_a_finding_shows_it_again(older: int | None, newer: int, finding: int | None) -> None:
    assert suspicion.sighting_of(suspect(9, older, newer), [known(7, 3, 4)]) == finding


def test_what_is_more_than_findings_explain_is_new() -> None:
    both = [known(7, 3, 4), known(8, 5, 6)]
    within = suspect(9, 1, 9, estimate=0.12, low=0.10, high=0.14)  # 1.07 ** 2 is 1.145
    beyond = suspect(9, 1, 9, estimate=0.2, low=0.17, high=0.23)
    assert suspicion.sighting_of(within, both) == 8
    assert suspicion.sighting_of(beyond, both) is None
    assert suspicion.sighting_of(within, both[:1]) is None


def test_what_is_slower_in_its_tail_alone_explains_nothing_of_the_rest() -> None:
    of_tail = known(7, 3, 4, low=0.3, high=0.5, in_tail=True)
    assert suspicion.sighting_of(suspect(9, 1, 6), [of_tail]) is None
    assert suspicion.sighting_of(suspect(9, 1, 6, in_tail=True), [of_tail]) == 7
    assert suspicion.sighting_of(suspect(9, 1, 6, in_tail=True), [known(7, 3, 4)]) == 7  # all of it is slower, and so is its tail


def test_a_change_of_the_tail_is_searched_apart() -> None:
    whole, tail = (suspicion.Confirmed(n, suspect(n, 1, 2, in_tail=n == 2), suspicion.NOT_YET) for n in (1, 2))
    assert tail.suspect.fault is suspicion.Fault.TAIL
    assert len(suspicion.by_range([whole, tail])) == 2


def effect(estimate: float, half: float) -> suspicion.Effect:
    return suspicion.Effect(estimate, estimate - half, estimate + half)


def test_what_lies_within_a_finding_is_its_own_while_that_may_name_it() -> None:
    anchor, neighbours = known(7, 0, 9), suspect(9, 4, 5)
    assert suspicion.sighting_of(neighbours, [anchor]) == 7
    assert suspicion.sighting_of(neighbours, [anchor], searched=False) is None  # nobody will ever name it
    named, others = dataclasses.replace(anchor, named=(5,)), dataclasses.replace(anchor, named=(6,))
    assert suspicion.sighting_of(neighbours, [named]) == 7
    assert suspicion.sighting_of(neighbours, [others]) is None
    assert suspicion.sighting_of(suspect(9, 4, 5, low=0.08, high=0.1), [anchor]) is None  # 7 % at most
    assert suspicion.sighting_of(suspect(9, 4, 5, verdict=model.Verdict.BROKEN), [anchor]) is None
    assert [suspicion.no_more(neighbours, one) for one in (named, others)] == [False, True]
    assert not suspicion.no_more(suspect(9, 0, 12), others)  # which spans it, and shows it in any case


def test_what_findings_explain_is_taken_off_with_its_bounds() -> None:
    one, two = (dataclasses.replace(known(n, n, n + 1), confirmed=effect(0.02, 0.01), by_commit={f"c{n}": 0.02}) for n in (3, 5))
    unsure = known(6, 6, 7)
    over = suspect(9, 1, 9, estimate=0.12, low=0.10, high=0.14)
    found = suspicion.explained(over, [two, unsure, one])
    assert found is not None
    assert (found.findings, found.by_commit) == ([3, 5], {"c3": 0.02, "c5": 0.02})
    assert found.effect.estimate == pytest.approx(1.02**2 - 1)
    assert (found.effect.low, found.effect.high) == pytest.approx((1.01**2 - 1, 1.03**2 - 1))
    left = effect(0.12, 0.02) - found.effect
    assert (left.low, left.high) == pytest.approx((1.10 / 1.03**2 - 1, 1.14 / 1.01**2 - 1))
    assert found.said(effect(0.12, 0.02)) == "of it findings 3, 5 explain +4.0% ± 2.0%; +7.7% (+3.7% … +11.8%) is left"
    assert suspicion.explained(over, [unsure]) is None


def test_what_an_unnamed_finding_holds_is_taken_off_once() -> None:
    """The newer one was found by neighbours within the older one's commits, once nobody searched these any more."""
    outer = dataclasses.replace(known(3, 0, 6), confirmed=effect(0.06, 0.01), named=(), by_commit={"c6": math.log(1.06)})
    inner = dataclasses.replace(known(5, 3, 4), confirmed=effect(0.03, 0.01), named=(4,), by_commit={"c4": math.log(1.03)})
    beside = dataclasses.replace(known(7, 7, 8), confirmed=effect(0.02, 0.01), named=(8,), by_commit={"c8": math.log(1.02)})
    over = suspect(9, 0, 9, estimate=0.12, low=0.10, high=0.14)
    found = suspicion.explained(over, [beside, inner, outer])
    assert found is not None
    assert found.findings == [3, 5, 7]
    assert found.effect.estimate == pytest.approx(1.06 * 1.02 - 1)
    assert found.by_commit == pytest.approx({"c4": math.log(1.03), "c6": math.log(1.06 / 1.03), "c8": math.log(1.02)})
    more, no_more = (dataclasses.replace(over, low=low) for low in (0.105, 0.1))  # 7 and 3 % at most, which is 10.2
    assert suspicion.sighting_of(more, [beside, inner, outer]) is None
    assert suspicion.sighting_of(no_more, [beside, inner, outer]) == 7
    apart = suspicion.explained(over, [beside, inner, dataclasses.replace(outer, beyond=(5,))])
    assert apart is not None
    assert apart.effect.estimate == pytest.approx(1.06 * 1.03 * 1.02 - 1)
    assert apart.by_commit["c6"] == pytest.approx(math.log(1.06))


def test_two_findings_of_one_commit_are_taken_off_once() -> None:
    one, two = (
        dataclasses.replace(known(n, 3, 4), confirmed=effect(n / 100, 0.01), named=(4,), by_commit={"c4": n / 100})
        for n in (3, 4)
    )
    found = suspicion.explained(suspect(9, 1, 9), [two, one])
    assert found is not None
    assert (found.effect.estimate, found.by_commit) == (pytest.approx(0.03), {"c4": 0.03})
    of_tail = dataclasses.replace(one, suspect=dataclasses.replace(one.suspect, in_tail=True))
    found = suspicion.explained(suspect(9, 1, 9, in_tail=True), [dataclasses.replace(two, finding=2), of_tail])
    assert found is not None
    assert found.effect.estimate == pytest.approx(0.03)  # what slowed down as a whole is in what the tail did


@pytest.mark.parametrize(("whole", "state"), [(effect(0.12, 0.02), "open"), (effect(0.04, 0.02), "unconfirmed")])
def test_what_is_confirmed_is_a_finding_by_what_is_left_alone(whole: suspicion.Effect, state: str) -> None:
    found = suspicion.Explained([1, 2, 3], effect(0.03, 0.01), {})
    settled = suspicion.beyond(suspicion.Settled(4, suspicion.OPEN, "once more"), found, whole)
    assert settled.state == state
    assert settled.reason.startswith("once more; of it findings 1 to 3 explain +3.0% ± 1.0%; ")
    assert suspicion.beyond(settled, None, whole) == settled


def test_another_cell_shows_nothing_of_a_finding() -> None:
    elsewhere = suspicion.Cell("engine", "d" * 64, "phone", "cpu", "net")
    other = suspicion.Known(
        7, suspicion.Suspect(7, elsewhere, suspicion.Range("engine", "b", "a"), 4, 3, model.Verdict.REGRESSED)
    )
    assert suspicion.sighting_of(suspect(9, 1, 6), [other]) is None


def ended(finding: int, verdict: model.Verdict | None, state: str = "decided", evidence: float = -math.inf) -> suspicion.Ended:
    return suspicion.Ended(finding, state, verdict, "", 0.05, evidence)


def test_suspects_are_settled_by_what_measured_them_again() -> None:
    again = [
        ended(1, model.Verdict.REGRESSED, evidence=6.0),
        ended(2, model.Verdict.UNCHANGED),
        ended(3, None, "skipped"),
        ended(4, model.Verdict.REGRESSED, evidence=2.0),
    ]
    found = {one.finding: one for one in suspicion.settled(again, {1}, 0, 4, "at a rate of 5 %")}
    assert {finding: one.state for finding, one in found.items()} == {
        1: suspicion.OPEN,
        2: suspicion.REFUTED,
        3: suspicion.UNCONFIRMED,
        4: suspicion.UNCONFIRMED,
    }
    assert found[1].evidence == 6.0
    assert found[2].reason == "measured again: unchanged (+5.0%)"
    assert "could not be measured again: skipped" in found[3].reason
    assert "not surely enough for one of 4" in found[4].reason


def test_a_suspect_whose_builds_had_another_layout_says_so() -> None:
    relaid = dataclasses.replace(ended(1, model.Verdict.UNCHANGED), relaid=True)
    (only,) = suspicion.settled([relaid], set(), 0, 1, "at a rate of 5 %")
    assert only.reason == "built with another memory layout and measured again: unchanged (+5.0%)"


def test_a_layout_that_did_not_change_is_not_taken_for_another() -> None:
    both = (model.ArmName.TREATMENT, model.ArmName.CONTROL)
    slower = dataclasses.replace(ended(1, model.Verdict.REGRESSED, evidence=6.0), relaid=True, unmoved=both)
    mended = dataclasses.replace(ended(2, model.Verdict.UNCHANGED), relaid=True, unmoved=both[:1])
    found = {one.finding: one for one in suspicion.settled([slower, mended], {1}, 0, 2, "at a rate of 5 %")}
    assert {finding: one.state for finding, one in found.items()} == {1: suspicion.OPEN, 2: suspicion.REFUTED}
    assert found[1].reason.startswith("built again with another memory layout, the treatment and the control came out the same")
    assert found[2].reason.startswith(
        "measured again: unchanged (+5.0%); built again with another memory layout, the treatment came"
    )
    assert all(one.reason.endswith(suspicion.LAY_OUT) for one in found.values())


def test_what_cannot_be_built_with_another_layout_says_what_to_set() -> None:
    lost = dataclasses.replace(ended(1, None, "skipped"), relaid=True, reason="the treatment does not build")
    (only,) = suspicion.settled([lost], set(), 0, 1, "at a rate of 5 %")
    assert only.state == suspicion.UNCONFIRMED
    assert only.reason.startswith("it could not be measured again: the treatment does not build; both commits were to be built")
    assert "builds.layout" in only.reason


def test_what_is_not_sure_enough_waits_while_others_of_its_commit_may_come() -> None:
    (only,) = suspicion.settled(
        [ended(1, model.Verdict.UNCHANGED), ended(2, model.Verdict.REGRESSED)], set(), 1, 3, "at a rate of 5 %"
    )
    assert (only.finding, only.state) == (1, suspicion.REFUTED)


def test_of_findings_of_two_commits_and_one_fault_the_clearest_is_searched_first() -> None:
    plain, clear = suspect(1, 1, 5), suspect(2, 1, 5, low=0.045, high=0.055)
    wrong = suspect(3, 1, 5, low=None, high=None)
    broken = suspect(4, 1, 5, low=None, high=None, verdict=model.Verdict.BROKEN)
    confirmed = [suspicion.Confirmed(number, one, "") for number, one in enumerate((plain, clear, wrong, broken), 1)]
    groups = suspicion.by_range(confirmed)
    assert [[one.finding for one in group] for group in groups.values()] == [[1, 2], [3], [4]]
    timed = groups[plain.of, suspicion.Fault.SLOWER]
    assert suspicion.lead_of(timed, ()).finding == 2
    running = [suspicion.Confirmed(1, plain, suspicion.RUNNING), timed[1]]
    assert suspicion.lead_of(running, ()).finding == 1


def test_a_budget_that_is_spent_refutes_nothing() -> None:
    (only,) = suspicion.settled([ended(1, model.Verdict.INCONCLUSIVE)], set(), 0, 1, "at a rate of 5 %")
    assert only.state == suspicion.UNCONFIRMED


def test_a_device_that_is_gone_searches_nothing_while_another_can() -> None:
    phone = suspicion.Suspect(2, suspicion.Cell("engine", "d" * 64, "phone", "", "net"), suspect(1, 1, 5).of, 5, 1, BAD)
    both = [suspicion.Confirmed(1, suspect(1, 1, 5), suspicion.RUNNING), suspicion.Confirmed(2, phone, suspicion.DEFERRED)]
    assert suspicion.lead_of(both, {"host", "phone"}).finding == 1
    assert suspicion.lead_of(both, {"phone"}).finding == 2
    assert suspicion.lead_of(both, {"other"}).finding == 1


def on(number: int, device: str, search: str = "", **facts: Any) -> suspicion.Confirmed:
    """A finding on a device, of a benchmark and a build."""
    own = suspect(number, 1, 5, **{name: facts[name] for name in ("low", "high", "verdict") if name in facts})
    cell = suspicion.Cell("engine", facts.get("benchmark", "d" * 64), device, "", "net")
    return suspicion.Confirmed(number, dataclasses.replace(own, cell=cell), search, build=facts.get("build", 1))


def test_devices_that_show_the_same_are_searched_at_once() -> None:
    lead, same = on(1, "host", low=0.045, high=0.055), on(2, "phone")
    others = [on(3, "phone", low=0.02, high=0.08), on(4, "lost"), on(5, "box", benchmark="e" * 64), on(6, "tablet", build=2)]
    devices = {"host", "phone", "box", "tablet"}
    assert suspicion.together([*others, same, lead], devices) == [lead, same]
    running = on(7, "phone", suspicion.RUNNING, low=0.01, high=0.09)
    assert suspicion.together([lead, same, running], devices) == [running, lead]
    many = [on(number, f"phone{number}") for number in range(1, 20)]
    assert len(suspicion.together(many, {one.suspect.cell.device for one in many})) == suspicion.FLEET


def test_what_is_no_matter_of_time_is_searched_by_one_device() -> None:
    broken = {"low": None, "high": None, "verdict": model.Verdict.BROKEN}
    both = [on(1, "host", **broken), on(2, "phone", **broken)]
    assert len(suspicion.together(both, {"host", "phone"})) == 1
