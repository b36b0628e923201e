"""A real engine's history, pushed at once: the revision that copies every layer's activations for nothing is found among many."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lab
import pytest

from aibenchd.demo import demo, history

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install aibenchd[onnxruntime]")

ENGINE = demo.ENGINES["onnxruntime"]
SLOW = next(number for number, commit in enumerate(ENGINE.commits) if commit.expected == "regressed")
AFTER = 3  # harmless revisions that follow it
RULE = {"alpha": 0.001, "beta": 0.01, "min_effect": 0.1, "max_blocks": 60}  # as the demo's: the slow-down is six margins


def revisions() -> list[history.Commit]:
    """The engine's up to the slow one, and harmless ones after it that are other programs."""
    harmless = [
        history.Commit(
            f"Note {number}",
            (history.Edit(f"engine/note{number}.py", "", f'"""Note {number}."""\n'),),
            None,
        )
        for number in range(AFTER)
    ]
    return [*ENGINE.commits[: SLOW + 1], *harmless]


async def test_the_revision_that_made_a_real_engine_slower_is_named(tmp_path: Path) -> None:
    made = lab.Lab(tmp_path)
    commits = history.write(revisions(), made.remote, tmp_path / "work")
    made.write_specification("squeezenet.json", dict(demo.specification(ENGINE)))
    cpus = sorted(os.sched_getaffinity(0))
    made.configure(
        version=1,
        state_directory="state",
        repositories=[
            {
                "name": "engine",
                "url": str(made.remote),
                "framework": ENGINE.framework,
                "start_at": commits[0],
                "backlog": 1,
                "baseline": {"rule": "pinned", "commit": commits[0]},
            }
        ],
        builds={"frameworks_directory": str(demo.FRAMEWORKS)},
        devices=[{"name": "host", "kind": "local", "cpus": cpus[-1:]}],
        benchmarks=[{"specification": "squeezenet.json"}],
        experiment=RULE,
        verify={"profile": False},
        creep={"enabled": False},
        selfcheck={"share": 0},
        status={"socket": "aibenchd.sock"},
    )
    async with made.daemon():
        await made.until("SELECT count(*) FROM findings WHERE search = 'found'", within=10 * lab.WAIT)
        (found,) = (await made.ctl("findings"))["findings"]
        whole: dict[str, Any] = await made.ctl("finding", str(found["id"]))
    assert (found["state"], found["treatment"], found["control"]) == ("open", commits[-1], commits[0])
    (culprit,) = found["culprits"]["culprits"]
    assert culprit["commits"] == [commits[SLOW]], json.dumps(found["culprits"])
    assert culprit["probability"] > 0.9
    assert culprit["low"] < found["high"]  # two ways to estimate one change: their intervals meet
    assert found["low"] < culprit["high"]
    assert {one["run_type"] for one in whole["experiments"]} == {"verify", "regress"}
