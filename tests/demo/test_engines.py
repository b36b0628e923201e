"""The histories of the demo's engines: every revision is whole, and says what must be found of it; and how that is told."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aibenchd import model
from aibenchd.demo import demo, history
from aibenchd.runners import onnx_file
from aibenchd.specs import schema

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is loaded


@pytest.mark.parametrize("name", demo.ENGINES)
def test_a_history_becomes_a_repository(name: str, tmp_path: Path) -> None:
    engine = demo.ENGINES[name]
    commits = history.write(engine.commits, tmp_path / "remote.git", tmp_path / "work")
    log = subprocess.run(
        ["git", "-C", tmp_path / "remote.git", "log", "--reverse", "--format=%H %s"], capture_output=True, text=True, check=True
    )
    expected = [f"{commit} {made.subject}" for commit, made in zip(commits, engine.commits, strict=True)]
    assert log.stdout.splitlines() == expected


@pytest.mark.parametrize("name", demo.ENGINES)
def test_all_kinds_of_revisions_are_in_it(name: str) -> None:
    expected = collections.Counter(commit.expected for commit in demo.ENGINES[name].commits)
    kinds = model.Verdict
    assert expected == {None: 1, kinds.IDENTICAL: 2, kinds.UNCHANGED: 3, kinds.REGRESSED: 1, kinds.IMPROVED: 1}


@pytest.mark.parametrize("name", demo.ENGINES)
def test_what_is_measured_is_a_specification(name: str) -> None:
    engine = demo.ENGINES[name]
    written = schema.ModelFile.model_validate(demo.specification(engine))
    assert written.model.framework == name
    assert written.tests[0].commands == (engine.command,)


def test_an_edit_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x x")
    with pytest.raises(ValueError, match="'x' occurs 2 times, expected once"):
        history.apply(history.Edit("a", "x", "y"), tmp_path)


def test_revisions_of_the_engine_on_onnx_runtime_compute_the_same(tmp_path: Path) -> None:
    ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install aibenchd[onnxruntime]")
    picture = np.linspace(-1, 1, 3 * 96 * 96, dtype=np.float32).reshape(1, 3, 96, 96)
    nodes, outputs = [], []
    for number, commit in enumerate(demo.ENGINES["onnxruntime"].commits):
        for edit in commit.edits:
            history.apply(edit, tmp_path)
        path = tmp_path / f"{number}.onnx"
        code = "import engine, pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(engine.squeezenet())"
        subprocess.run([sys.executable, "-B", "-c", code, path], cwd=tmp_path, check=True)
        nodes.append(len(onnx_file.read(str(path)).nodes))
        (output,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"picture": picture})
        outputs.append(output)
    assert nodes[:4] == [nodes[0]] * 4
    assert nodes[4] > nodes[3] > nodes[5] == nodes[6] == nodes[7]
    for output in outputs:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=1e-7)


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], again: str = "regressed") -> tuple[int, str]:
    """What the demo ends with, and prints, where all was found as it had to be but for ``change``, by what was expected."""
    engine, receiver = demo.ENGINES["pytorch"], demo.Receiver()
    commits = [f"{number:040}" for number in range(len(engine.commits))]
    for commit, made in zip(commits, engine.commits, strict=True):
        expected = made.expected or model.Verdict.MEASURED
        take(receiver, commit, change.get(expected, str(expected)), model.RunType.BENCHMARK)
        if expected is model.Verdict.REGRESSED:
            confirmed = again == expected
            take(receiver, commit, again, model.RunType.REGRESS if confirmed else model.RunType.VERIFY)
    code = demo.conclude(tmp_path, engine, commits, receiver)
    return code, capsys.readouterr().out


def take(receiver: demo.Receiver, commit: str, verdict: str, run_type: model.RunType) -> None:
    known = {"kind": "verdict", "key": demo.DECIDED_ON, "estimate": 0.01, "low": -0.09, "high": 0.095}
    record = {**known, "commit": commit, "verdict": verdict, "run_type": run_type}
    receiver.records[f"{commit} {run_type}"] = record


def test_the_end_says_that_all_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(tmp_path, capsys, {})
    assert code == 0
    assert out.splitlines()[-1] == "exactly the right revisions were called"
    assert "unchanged, by under 10% " in out
    assert "WRONG" not in out
    assert "NOT DECIDED" not in out


@pytest.mark.parametrize(
    ("change", "again"),
    [({"unchanged": "inconclusive"}, "regressed"), ({"regressed": "inconclusive"}, "regressed"), ({}, "inconclusive")],
)
def test_what_noise_hides_is_undecided_and_not_wrong(
    change: dict[str, str], again: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, capsys, change, again)
    assert code == 6
    assert "too noisy for a change of 10%; run the demo again when it is idle" in out.splitlines()[-1]
    assert "NOT DECIDED: expected" in out
    assert "WRONG" not in out


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"unchanged": "regressed"}, "regressed"),
        ({"identical": "inconclusive", "improved": "broken"}, "regressed"),
        ({}, "unchanged"),
    ],
)
def test_a_wrong_verdict_is_wrong_whatever_else_is_undecided(
    change: dict[str, str], again: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, capsys, change, again)
    assert code == 1
    assert "WRONG: expected" in out
    assert " WRONG: aibenchd called what is not so" in out.splitlines()[-1]


def test_no_interval_is_shown_before_there_is_one() -> None:
    known = {"estimate": 0.05, "low": None, "high": None}
    assert demo.interval(known).strip() == "+5.0%"
    assert demo.interval(known | {"low": 0.01}).strip() == "+5.0% (+1.0% to ?)"
