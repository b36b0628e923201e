"""What is kept of trials on this host: their logs, uploaded outputs, and outputs that are laid beside those of other trials."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, model
from aibenchd.measure import outputs, placing, trial
from aibenchd.specs import schema

LOG_BOUND = 256 << 10  # bytes kept of what a trial printed
FIRST, LATEST = "first", "latest"
ROWS = "rows"  # beside the directories of experiments: the last outputs of every cell of a row of the coverage matrix


@dataclasses.dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps what one experiment leaves.

    Attributes:
        device: names its cells, beside framework and backend, to a person.
    """

    state_directory: Path
    experiment: int
    device: str

    async def take(self, finished: trial.Finished, placed: placing.Placed, block: int) -> model.Trial:
        """Keep what a trial left before the next one begins; the trial, knowing where its log is."""
        arm = finished.trial.arm
        stem = f"logs/trial/{self.experiment}/{block}-{arm.value}"
        for key, path in finished.files.items():
            if placed.test.output_files[key].upload:
                await anyio.to_thread.run_sync(_copy, path, self.state_directory / f"{stem}-{_safe(path.name)}")
            if _beside(placed.test.output_files[key]):
                await anyio.to_thread.run_sync(_keep_output, path, self._output(arm, key, LATEST), self._output(arm, key, FIRST))
        judged = await self._among_others(finished.trial, placed)
        if not finished.output:
            return judged
        await anyio.to_thread.run_sync(_write_log, self.state_directory / f"{stem}.log", finished.output)
        return dataclasses.replace(judged, log=f"{stem}.log")

    async def _among_others(self, one: model.Trial, placed: placing.Placed) -> model.Trial:
        """A trial whose outputs most other cells of its row contradict is wrong."""
        wanted = {key: file for key, file in placed.test.output_files.items() if _beside(file)}
        if one.outcome is not model.Outcome.OK or not wanted:
            return one
        try:
            contradicted = await anyio.to_thread.run_sync(self._contradicted, wanted, one.arm, placed)
        except errors.CommandError as error:
            return dataclasses.replace(one, outcome=model.Outcome.FAILED, series=(), reason=str(error))
        if not contradicted:
            return one
        return dataclasses.replace(one, agreement=model.Agreement.WRONG, reason=f"{trial.WRONG}: {contradicted}")

    def _contradicted(self, wanted: Mapping[str, schema.OutputFile], arm: model.ArmName, placed: placing.Placed) -> str:
        import numpy as np

        said = []
        variant = placed.variant
        cell = f"{variant.framework}@{self.device}{f'+{_safe(variant.backend)}' if variant.backend else ''}.npy"
        for key, file in wanted.items():
            output = self._read(arm, key, file, LATEST)
            name = model.digest_of([variant.benchmark.name, variant.benchmark.identifier, key])
            row = self.state_directory / placing.OUTPUTS / ROWS / name
            row.mkdir(parents=True, exist_ok=True)
            others = {
                path.stem: outputs.compare(output, np.load(path)) for path in sorted(row.glob("*.npy")) if path.name != cell
            }
            against = {name: text for name, one in others.items() if (text := one.beyond(file.limits))}
            if len(against) > len(others) - len(against):
                said += [f"{key}: {text} from {name.replace('+', '/')}" for name, text in against.items()][:1]
            if arm is model.ArmName.TREATMENT:
                _save(row / cell, output)
        return "; ".join(said)

    async def side_by_side(self, block: model.Block, placed: Mapping[model.ArmName, placing.Placed]) -> model.Block:
        """The block, its treatment's outputs laid beside the control's where there is no golden one that both must hold."""
        test = placed[model.ArmName.TREATMENT].test
        wanted = {key: file for key, file in test.output_files.items() if _beside(file)}
        if not wanted or len(block.trials) < 2 or not block.valid:
            return block
        series, agreement, reason = await anyio.to_thread.run_sync(self._compared, wanted)
        trials = tuple(
            _agreed(one, series, agreement, reason) if one.arm is model.ArmName.TREATMENT else one for one in block.trials
        )
        return dataclasses.replace(block, trials=trials)

    def _compared(self, wanted: Mapping[str, schema.OutputFile]) -> tuple[list[model.Series], model.Agreement, str]:
        series: list[model.Series] = []
        differs, unsteady = [], []
        for key, file in wanted.items():
            arms = {arm: self._read(arm, key, file, LATEST) for arm in model.ArmName}
            between = outputs.compare(arms[model.ArmName.TREATMENT], arms[model.ArmName.CONTROL])
            series += [model.Series(f"ARMS {key}", measure, "", (value,)) for measure, value in between.measures.items()]
            differs += [f"{key}: {text}" for text in [between.beyond(file.limits)] if text]
            within = [outputs.compare(arms[arm], self._read(arm, key, file, FIRST)) for arm in model.ArmName]
            unsteady += [f"{key}: {text}" for one in within if (text := one.beyond(file.limits))]
        if unsteady:
            return series, model.Agreement.UNSTEADY, f"the program's outputs differ from block to block: {'; '.join(unsteady)}"
        if differs:
            return series, model.Agreement.DIFFERS, f"other output than the control's: {'; '.join(differs)}"
        return series, model.Agreement.RIGHT, ""

    def _read(self, arm: model.ArmName, key: str, file: schema.OutputFile, which: str) -> outputs.Array:
        try:
            return outputs.read(self._output(arm, key, which), file, f"output {key} of the {arm.value}")
        except OSError as error:
            raise errors.HarnessError(f"output {key} of the {arm.value} is no longer there: {error}") from error

    def _output(self, arm: model.ArmName, key: str, which: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return placing.outputs_directory(self.state_directory, self.experiment, arm) / f"{name}.{which}"


def _beside(file: schema.OutputFile) -> bool:
    return bool(file.limits) and file.golden is None


def _agreed(one: model.Trial, series: list[model.Series], agreement: model.Agreement, reason: str) -> model.Trial:
    """A trial that is wrong by a golden output stays so, whatever the other outputs are."""
    one = dataclasses.replace(one, series=(*one.series, *series))
    if one.agreement is model.Agreement.WRONG:
        return one
    return dataclasses.replace(one, agreement=agreement, reason=reason)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _keep_output(source: Path, latest: Path, first: Path) -> None:
    _copy(source, latest)
    if not first.exists():
        _copy(source, first)


def _save(path: Path, output: outputs.Array) -> None:
    import numpy as np

    fresh = path.with_suffix(".fresh")
    with fresh.open("wb") as file:
        np.save(file, output)
    fresh.replace(path)


def _write_log(path: Path, output: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(output[-LOG_BOUND:], errors="replace")
