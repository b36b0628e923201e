"""What people see of findings: as they are measured again, while their search goes on, and when they are gone."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import anyio
import pytest
import statusd

from aibenchd.api import findings, screen
from aibenchd.store import schema, store, views


async def ask(daemon: statusd.Daemon, *words: str) -> str:
    """What the client prints."""
    asked = [sys.executable, "-m", "aibenchd.api.client", "-s", str(daemon.path), *words]
    return (await anyio.run_process(asked, stderr=subprocess.STDOUT)).stdout.decode()


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
        ({"state": "suspect"}, "regressed"),  # the second look goes on
    ],
)
def test_the_first_looks_verdict_does_not_go_with_a_second_interval_that_holds_zero(own: dict[str, Any], word: str) -> None:
    first = {"verdict": "regressed", "state": "unconfirmed", "run_type": "regression", "confirmed": False, "verify": 7}
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


async def test_what_is_measured_again_shows_what_was_seen_first_and_what_is_gone_is_mended(daemon: statusd.Daemon) -> None:
    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "b" * 40)
        first = statusd.experiment(tx, statusd.pair(tx, "b" * 40, "a" * 40), built, **statusd.decided("regressed"))
        found = statusd.finding(tx, first)
        so_far = {"state": "open", "estimate": 0.07, "low": -0.02, "high": 0.22, "finding": found}
        statusd.experiment(tx, statusd.pair(tx, "b" * 40, "a" * 40, run_type="verify"), built, **so_far)

    await daemon.house.store.write(rows)
    shown = await ask(daemon, "finding", "1")
    assert shown.startswith("finding 1: suspect, regressed +5.0 % (+3.0 … +7.0)\n")
    assert re.search(r"\n  measured again +experiment 2, not ended yet, so far \+7.0 % \(-2.0 … \+22.0\)\n", shown)
    gone = schema.findings.update().values(state="open", mended=2)
    await daemon.house.store.write(lambda tx: tx.connection.execute(gone) and None)
    shown = await ask(daemon, "finding", "1")
    assert shown.startswith("finding 1: mended, ")
    assert "experiment 2 shows it to be gone\n" in shown
    listed = await ask(daemon, "findings")
    assert listed.splitlines()[1].split()[:2] == ["1", "mended"]
    status = await ask(daemon, "status")
    assert re.search("^findings +1 mended$", status, re.MULTILINE)
    counted = await daemon.house.store.read(views.counts)
    assert counted.findings == {("mended", ""): 1}
