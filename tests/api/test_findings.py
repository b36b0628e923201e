"""What people see of findings while their search goes on."""

from __future__ import annotations

from typing import Any

import pytest

from aibenchd.api import findings, screen


def searched(**found: Any) -> dict[str, Any]:
    return {"search": "running", "culprits": {"probability": 0.62, "blocks": 34, "builds": 5, "commits": 128} | found}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (searched(), "  searching 128 commits: ████████████░░░░░░░░ 62% sure, 34 blocks, 5 builds\n"),
        (searched(probability=1.0000001), "  searching 128 commits: ████████████████████ 100% sure, 34 blocks, 5 builds\n"),
        (searched(probability=0.0, blocks=None), "  searching 128 commits: ░░░░░░░░░░░░░░░░░░░░ 0% sure, 5 builds\n"),
        (searched() | {"search": "found"}, ""),
        ({"search": "running", "culprits": None}, ""),
    ],
)
def test_a_search_that_goes_on_says_how_far_it_is(answer: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    findings._searching(screen.Screen(), answer)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"blocks": 0, "by_commit": {"a" * 40: 0.5, "b" * 40: 0.5}}, "searching 128 commits, nothing measured yet"),
        ({"blocks": 0, "by_commit": {"a" * 40: 0.9, "b" * 40: 0.1}}, "running, aaaaaaaaaaaa 50%"),
        ({"blocks": 1, "by_commit": {"a" * 40: 0.5, "b" * 40: 0.5}}, "running, aaaaaaaaaaaa 50%"),
    ],
)
def test_a_search_names_no_commit_before_one_stands_out(found: dict[str, Any], said: str) -> None:
    culprit = {"commits": ["a" * 40], "probability": 0.5}
    answer = searched(**found, culprits=[culprit]) | {"commits": {"a" * 40: {"subject": "Add", "author": "Ada"}}}
    assert findings._culprits(answer) == said
    assert findings._whose(answer) == ("" if "nothing" in said else "Add (Ada)")


def test_what_a_search_says_is_labelled_and_its_commits_have_subjects(capsys: pytest.CaptureFixture[str]) -> None:
    culprit = {"commits": ["a" * 40], "probability": 0.9, "effect": 0.1, "low": 0.1, "high": 0.101}
    found = {"culprits": [culprit], "by_commit": {"a" * 40: 0.9, "b" * 40: 0.1}}
    findings._suspected(screen.Screen(), found, {"a" * 40: {"subject": "Add", "author": "Ada"}})
    told = capsys.readouterr().out
    assert "  by the search, aaaaaaaaaaaa: " in told
    assert "   90.0% aaaaaaaaaaaa Add\n   10.0% bbbbbbbbbbbb\n" in told


@pytest.mark.parametrize(
    ("own", "word"),
    [
        ({}, "inconclusive"),
        ({"low": 0.02}, "regressed"),
        ({"confirmed": True}, "regressed"),
        ({"verify": None}, "regressed"),
    ],
)
def test_the_first_looks_verdict_does_not_go_with_a_second_interval_that_holds_zero(own: dict[str, Any], word: str) -> None:
    first = {"verdict": "regressed", "state": "decided", "run_type": "regression", "confirmed": False, "verify": 7}
    assert findings._word(first | {"low": -0.07, "high": 0.33} | own) == word


def test_of_rows_that_samples_do_not_tell_a_profile_shows_the_few_largest(capsys: pytest.CaptureFixture[str]) -> None:
    counted = {"control": 9.0, "treatment": 5.0, "change": -4.0, "within": 7.0}
    rows = [{"name": f"row{n}", "told": n == 0, **counted} for n in range(7)]
    profile = {"per": "run", "profiler": "perf", "unit": "us", "rows": rows, "files": {}}
    findings._profile(screen.Screen(), profile)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("row")] == [
        "row0",
        "row1",
        "row2",
        "row3",
    ]
