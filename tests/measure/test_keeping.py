"""What is kept of trials, and laid beside others."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aibenchd import errors, model
from aibenchd.frameworks import base, generic
from aibenchd.measure import keeping, placing, trial
from aibenchd.specs import conditions, files, schema

TREATMENT, CONTROL = model.ArmName.TREATMENT, model.ArmName.CONTROL
NOW = datetime(2026, 3, 2, tzinfo=UTC)


def placed(arm: model.ArmName, backend: str = "", **output: Any) -> placing.Placed:
    """Of a test with one output, of numbers as text."""
    out = {"filename": "out.txt", "tolerance": {"max_absolute": 0.01}, **output}
    test = {"identifier": "net", "metric": "delay", "commands": ["{program}"], "output_files": {"out": out}}
    benchmark = model.Benchmark({"name": "net"}, test)
    typed, whole = schema.typed(benchmark)
    return placing.Placed(
        arm=arm,
        variant=model.Variant(benchmark, "generic", backend),
        framework=generic.Generic(),
        benchmark=benchmark,
        test=typed,
        whole=whole,
        app=None,
        place=base.Place("/work/", "/host", "/build", {}),
        host=None,
        files=files.BenchmarkFiles({}, {}, {}),
        conditions=conditions.of(benchmark, timeout=1.0),
        libraries=(),
        sizes={},
    )


@dataclasses.dataclass
class Cell:
    """One experiment, whose trials write what they are told to."""

    directory: Path
    number: int = 1
    device: str = "host"
    backends: tuple[str, str] = ("", "")
    outputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    blocks: int = 0

    async def block(self, treatment: str, control: str | None = None, *, failed: bool = False) -> model.Block:
        """Run a block of trials with these outputs; ``failed``: the treatment's failed after it had written it."""
        keeper = keeping.Keeper(self.directory / "state", self.number, self.device)
        texts = {TREATMENT: treatment} if control is None else {TREATMENT: treatment, CONTROL: control}
        arms = {arm: placed(arm, backend, **self.outputs) for arm, backend in zip(texts, self.backends, strict=False)}
        trials = []
        for arm, text in texts.items():
            path = self.directory / "pulled.txt"
            path.write_text(text)
            outcome = model.Outcome.FAILED if failed and arm is TREATMENT else model.Outcome.OK
            series = (model.Series("NET", "latency", "us", (1.0,)),)
            finished = trial.Finished(model.Trial(arm, outcome, NOW, series=series), "", {"out": path})
            trials.append(await keeper.take(finished, arms[arm], self.blocks))
        self.blocks += 1
        return await keeper.side_by_side(model.Block(self.blocks, tuple(trials)), arms)


def agreements(block: model.Block) -> list[model.Agreement]:
    return [one.agreement for one in block.trials]


async def test_an_output_that_cannot_be_read_is_not_what_later_ones_are_held_to(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    broken = await cell.block("what?", "1 2")
    assert not broken.valid
    assert "output out: cannot be read as text: 'what?' is no number" in broken.trials[0].reason
    assert agreements(await cell.block("1 2", "1 2"))[0] is model.Agreement.RIGHT


async def test_nor_is_that_of_a_trial_that_failed(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    await cell.block("7 7", "1 2", failed=True)
    assert agreements(await cell.block("1 2", "1 2"))[0] is model.Agreement.RIGHT


async def test_what_was_kept_and_is_gone_is_our_fault(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    await cell.block("1 2", "1 2")
    (first,) = (tmp_path / "state/outputs").glob("*-c/*.first")
    first.unlink()
    first.mkdir()
    with pytest.raises(errors.HarnessError, match="output out of the control is no longer there"):
        await cell.block("1 2", "1 2")


async def test_a_cell_that_was_written_in_part_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    for backend in ("cpu", "mkl"):
        await Cell(tmp_path, backends=(backend, backend)).block("1 2")
    (broken,) = (tmp_path / "state/outputs/rows").glob("*/*mkl.npy")
    broken.write_bytes(b"")
    block = await Cell(tmp_path, backends=("eigen", "eigen")).block("1 3")
    assert block.trials[0].reason == "wrong output: out: max_absolute 1 (at most 0.01) from generic@host/cpu"
    np.save(broken, np.array([1, 3], np.float32))
    assert agreements(await Cell(tmp_path, backends=("eigen", "eigen")).block("1 3")) == [model.Agreement.UNKNOWN]


async def test_which_of_two_commits_the_other_cells_contradict_says_nothing_of_them(tmp_path: Path) -> None:
    for backend in ("cpu", "mkl"):
        await Cell(tmp_path, backends=(backend, backend)).block("1 2")
    eigen = Cell(tmp_path, 4, backends=("eigen", "eigen"))
    block = await eigen.block("1 3", "1 2")
    assert agreements(block) == [model.Agreement.DIFFERS, model.Agreement.UNKNOWN]
    assert block.trials[0].reason.startswith("wrong output: out: max_absolute 1 (at most 0.01) from generic@host/")
    assert "; other output than the control's: out: max_absolute 1" in block.trials[0].reason
    block = await Cell(tmp_path, 2, backends=("eigen", "eigen")).block("1 2", "1 3")
    assert agreements(block) == [model.Agreement.DIFFERS, model.Agreement.UNKNOWN]
    assert agreements(await Cell(tmp_path, 3, backends=("eigen", "eigen")).block("1 3", "1 3")) == [model.Agreement.WRONG] * 2


async def test_of_two_cells_each_is_judged_by_itself(tmp_path: Path) -> None:
    for backend in ("cpu", "mkl"):
        await Cell(tmp_path, backends=(backend, backend)).block("1 2")
    assert agreements(await Cell(tmp_path, backends=("eigen", "cpu")).block("1 3", "1 2"))[0] is model.Agreement.WRONG


@pytest.mark.parametrize("key", ["a name / with everything", "ü" * 200])
async def test_an_upload_is_kept_under_a_name_that_a_disk_takes(tmp_path: Path, key: str) -> None:
    one = placed(TREATMENT)
    file = schema.OutputFile(filename="out.txt", upload=True)
    one = dataclasses.replace(one, test=one.test.model_copy(update={"output_files": {key: file}}))
    (tmp_path / "out.txt").write_text("7")
    finished = trial.Finished(model.Trial(TREATMENT, model.Outcome.OK, NOW), "", {key: tmp_path / "out.txt"})
    await keeping.Keeper(tmp_path / "state", 1, "host").take(finished, one, 0)
    (kept,) = (tmp_path / "state/logs/trial/1").iterdir()
    assert kept.read_text() == "7"
