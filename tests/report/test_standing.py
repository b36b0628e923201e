from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.report import standing


def cell(verdict: str = "", **facts: Any) -> standing.Cell:
    """One that has ended with a verdict, where there is one."""
    state = "decided" if verdict else "open"
    own = standing.Cell("squeeze", "lab", state, model.Verdict(verdict) if verdict else None, estimate=0.052 if verdict else None)
    return dataclasses.replace(own, **facts)


def bad(state: str | None, verdict: str = "regressed", **facts: Any) -> standing.Cell:
    return cell(verdict, **{"finding": 7, "finding_state": state, **facts})


FINE = cell("unchanged")
FAILED = bad(suspicion.OPEN)


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ([cell()], "pending"),
        ([FINE, cell(state="waiting")], "pending"),
        ([FINE, cell("improved"), cell("identical"), cell("measured")], "success"),
        ([FINE, bad(None)], "pending"),  # nobody has looked at it yet
        ([FINE, bad(suspicion.SUSPECT)], "pending"),
        ([FINE, bad(suspicion.REFUTED)], "success"),
        ([FINE, bad(suspicion.UNCONFIRMED)], "inconclusive"),
        ([FINE, bad(suspicion.UNCONFIRMED, unverified=True)], "failure"),
        ([FINE, bad(suspicion.UNCONFIRMED, "broken", unverified=True)], "failure"),
        ([FINE, bad(None, sighted=True)], "success"),  # another commit's doing
        ([FINE, FAILED], "failure"),
        ([FAILED, cell()], "failure"),  # whatever comes of the others
        ([FINE, cell("inconclusive")], "inconclusive"),
        ([FINE, cell("inconclusive"), cell(state="skipped", reason="the treatment does not build")], "error"),
        ([FINE, cell(state="skipped"), cell()], "pending"),
        ([FINE, cell(state="cancelled")], "success"),
    ],
)
def test_how_a_commit_stands(cells: list[standing.Cell], state: str) -> None:
    found = standing.of(cells)
    assert found is not None
    assert found.state == state
    assert standing.of(cells[::-1]) == dataclasses.replace(found)


def test_of_a_commit_without_a_cell_nothing_is_told() -> None:
    assert standing.of([]) is None
    assert standing.of([cell(state="cancelled")]) is None


def test_a_failure_names_the_worst_and_its_finding() -> None:
    found = standing.of([FAILED, bad(suspicion.OPEN, estimate=0.2, finding=8, device="phone"), FINE])
    assert found == standing.Standing("failure", "regressed +20.0%: squeeze on phone, and 1 more", 8, {"regressed": 2})
    broken = standing.of([FAILED, bad(suspicion.OPEN, "broken", estimate=None, finding=9)])
    assert broken is not None
    assert (broken.text, broken.finding) == ("broken: squeeze on lab, and 1 more", 9)


def test_an_error_says_why() -> None:
    found = standing.of([FINE, cell(state="skipped", reason="the treatment does not build")])
    assert found is not None
    assert found.text == "1 of 2 not measured: the treatment does not build"


def test_what_is_under_way_is_nothing_new() -> None:
    assert standing.of([cell(), cell()]) == standing.of([FINE, cell()])
    assert standing.of([FAILED, cell()]) == standing.of([FAILED, FINE])


def test_what_is_slower_in_its_tail_alone_is_told_so() -> None:
    found = standing.of([bad(suspicion.OPEN, in_tail=True)])
    assert found is not None
    assert found.text.startswith("regressed +5.2% in the tail: squeeze on lab")
