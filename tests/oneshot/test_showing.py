from __future__ import annotations

import io
from dataclasses import replace

import pytest
import rich.console

from aibenchd.oneshot import results, showing

CHANGED = {"name": "conv", "status": "changed", "change": 9.0, "low": 8.0, "high": 10.0, "share": 0.9}
SAME = CHANGED | {"name": "relu", "status": "no change shown", "change": 0.1, "low": -1.0, "high": 1.0, "share": 0.0}
REST = CHANGED | {"name": "rest", "change": 1.0, "low": None, "high": None, "share": None}
COMPARED = results.Result(
    experiment=1,
    model="net",
    benchmark="net",
    metric="delay",
    framework="onnxruntime",
    device="host",
    backend="cpu",
    treatment="WORKTREE",
    control="main",
    commits={"treatment": "a" * 40, "control": "b" * 40},
    state="decided",
    verdict="regressed",
    reason="",
    blocks=7,
    estimate=0.1,
    low=0.08,
    high=0.12,
    unit="us",
    decided_on={"treatment": 110.0, "control": 100.0},
    outputs={"treatment": {"right": 6, "wrong": 1}, "control": {"right": 7}},
    explained={"unit": "us", "operators": [CHANGED, SAME], "rest": REST, "quantities": []},
)
ALONE = replace(
    COMPARED,
    control="",
    treatment="/bin/engine",
    verdict="measured",
    explained=None,
    outputs={},
    statistics={"treatment": {"p10": 99.0, "p50": 100.0, "p90": 130.0}},
    series=[{"key": "conv latency", "unit": "us", "info_string": "", "statistics": {"treatment": {"p50": 80.0}}}],
)


def shown(capsys: pytest.CaptureFixture[str], *found: results.Result, operators: bool = False) -> list[str]:
    showing.table(found, operators=operators)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_two_arms_are_a_row_and_what_a_change_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, COMPARED)
    assert lines[0] == "WORKTREE aaaaaaaaaa (treatment) against main bbbbbbbbbb (control)"
    assert "net host onnxruntime/cpu 100 us 110 us +10.0 % (+8.0 … +12.0) 13 right, 1 wrong 7 regressed" in lines
    assert "conv changed 9 us (8 us … 10 us) 90%" in lines
    assert "rest changed 1 us" in lines
    assert not any(line.startswith("relu") for line in lines)
    assert any(line.startswith("relu") for line in shown(capsys, COMPARED, operators=True))
    assert not any(line.startswith("conv") for line in shown(capsys, replace(COMPARED, verdict="unchanged")))


@pytest.mark.parametrize("one", [ALONE, replace(COMPARED, framework="generic", backend="", outputs={}, explained=None)])
def test_words_stay_whole_on_eighty_columns(one: results.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(showing, "console", lambda _: rich.console.Console(file=terminal, width=80))
    showing.table([replace(one, device="this-host")], operators=False)
    printed = terminal.getvalue().split()
    assert {"benchmark", "this-host", one.verdict} <= set(printed)
    assert "outputs" not in printed


def test_one_arm_is_its_median_and_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    assert "net host onnxruntime/cpu /bin/engine 100 us 99 us … 130 us 7 measured" in shown(capsys, ALONE)
    assert "conv 80 us" in shown(capsys, ALONE, operators=True)


def test_an_accuracy_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    own = {"treatment": {"p50": 0.5}, "control": {"p50": 0.8}}
    one = replace(COMPARED, metric="accuracy", unit="", decided_on={"treatment": 2.0, "control": 1.25}, statistics=own)
    assert any("onnxruntime/cpu 0.8 0.5 +10.0 %" in line for line in shown(capsys, one))


def test_what_did_not_end_says_so_and_nothing_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd = replace(ALONE, state="open", verdict="", statistics={}, benchmark="a\x1b[2J[red]b", reason="it is\nlost", blocks=0)
    showing.table([odd], operators=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "net a [2J[red]b" in out
    assert "not finished" in out
    assert "a [2J[red]b: it is\nlost\n" in out


def test_rows_of_a_compiler_stay_rows(capsys: pytest.CaptureFixture[str]) -> None:
    compiler = "x.c:3:5: error: unknown type\n    3 | \tfoo;\n      |  ^~~"
    reason = f"the control does not build: build.sh ended with exit status 1\n{compiler}"
    showing.table([replace(COMPARED, state="skipped", verdict="", reason=reason)], operators=False)
    *_, first, place, row, mark = capsys.readouterr().out.splitlines()
    assert first == "net: the control does not build: build.sh ended with exit status 1"
    assert (place, row, mark) == ("x.c:3:5: error: unknown type", "    3 |         foo;", "      |  ^~~")


def test_commits_are_short_and_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    (first, *_) = shown(capsys, replace(COMPARED, treatment="a" * 40, control="bbbbbbb"))
    assert first == "aaaaaaaaaa (treatment) against bbbbbbb (control)"
    other = replace(COMPARED, treatment="other")
    assert "against" not in "".join(shown(capsys, COMPARED, other))
