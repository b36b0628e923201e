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
