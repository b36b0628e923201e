"""What is kept of trials on this host: their logs, uploaded outputs, and outputs that are laid beside those of other trials."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, model
from aibenchd.measure import outputs, placing, profiles, trial
from aibenchd.specs import schema

NAME_BOUND = 100  # characters of a part of a file's name
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
        one = finished.trial
        stem = f"logs/trial/{self.experiment}/{block}-{one.arm.value}"
        for key, path in finished.files.items():
            if placed.test.output_files[key].upload:
                name = f"{_safe(key)[:NAME_BOUND]}{_safe(path.suffix)[:NAME_BOUND]}"
                await anyio.to_thread.run_sync(_copy, path, self.state_directory / f"{stem}-{name}")
        if one.outcome is model.Outcome.OK and finished.files:
            try:
                await anyio.to_thread.run_sync(self._keep_outputs, finished, placed)
            except errors.CommandError as error:
                one = dataclasses.replace(
                    one, outcome=model.Outcome.FAILED, series=(), agreement=model.Agreement.UNKNOWN, reason=str(error)
                )
        if not finished.output:
            return one
        await anyio.to_thread.run_sync(_write_log, self.state_directory / f"{stem}.log", finished.output)
        return dataclasses.replace(one, log=f"{stem}.log")

    def profile(self, arm: model.ArmName) -> Path:
        """Where an arm's profiles come to, each with the suffix of its kind."""
        path = profiles.path(self.state_directory, self.experiment, arm)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _keep_outputs(self, finished: trial.Finished, placed: placing.Placed) -> None:
        """Those that are laid beside others, once it is known that they can be read.

        Raises:
            CommandError: one cannot.
        """
        wanted = {key: file for key, file in _beside(placed).items() if key in finished.files}
        for key, file in wanted.items():
            outputs.read(finished.files[key], file, f"output {key}")
        for key in wanted:
            latest, first = (self._output(finished.trial.arm, key, which) for which in (LATEST, FIRST))
            _copy(finished.files[key], latest)
            if not first.exists():
                _copy(finished.files[key], first)

    async def side_by_side(self, block: model.Block, placed: Mapping[model.ArmName, placing.Placed]) -> model.Block:
        """The block, its outputs that have no golden one laid beside those of other cells, and of the other arm."""
        if not block.valid or not any(map(_beside, placed.values())):
            return block
        return await anyio.to_thread.run_sync(self._laid_beside, block, placed)

    def _laid_beside(self, block: model.Block, placed: Mapping[model.ArmName, placing.Placed]) -> model.Block:
        trials = {one.arm: one for one in block.trials}
        against = {arm: self._contradicted(arm, placed[arm]) for arm in trials}
        if len(trials) == 2:
            trials[model.ArmName.TREATMENT] = self._compared(trials[model.ArmName.TREATMENT], placed)
        treatment = trials[model.ArmName.TREATMENT]
        if len({(placed[arm].variant.framework, placed[arm].variant.backend) for arm in trials}) == len(trials):
            wrong = [arm for arm, text in against.items() if text]
        else:
            # Two commits in one cell: the others may not have measured the newer one yet. So which arm they contradict
            # says nothing of the commits, unless it is both, and both computed the same.
            wrong = list(trials) if all(against.values()) and treatment.agreement is model.Agreement.RIGHT else []
        for arm in wrong:
            reason = f"{trial.WRONG}: {against[arm]}"
            trials[arm] = dataclasses.replace(trials[arm], agreement=model.Agreement.WRONG, reason=reason)
        if not wrong and against[model.ArmName.TREATMENT] and treatment.reason:
            reason = f"{trial.WRONG}: {against[model.ArmName.TREATMENT]}; {treatment.reason}"
            trials[model.ArmName.TREATMENT] = dataclasses.replace(treatment, reason=reason)
        return dataclasses.replace(block, trials=tuple(trials.values()))

    def _contradicted(self, arm: model.ArmName, placed: placing.Placed) -> str:
        """What most other cells of its row say against a trial's outputs; empty where they do not."""
        said = []
        variant = placed.variant
        cell = f"{variant.framework}@{self.device}{f'+{_safe(variant.backend)}' if variant.backend else ''}.npy"
        for key, file in _beside(placed).items():
            output = self._read(arm, key, file, LATEST)
            name = model.digest_of([variant.benchmark.name, variant.benchmark.identifier, key])
            row = self.state_directory / placing.OUTPUTS / ROWS / name
            row.mkdir(parents=True, exist_ok=True)
            others = {name: outputs.compare(output, other) for name, other in _others(row, cell)}
            against = {name: text for name, one in others.items() if (text := one.beyond(file.limits))}
            if len(against) > len(others) - len(against):
                said += [f"{key}: {text} from {name.replace('+', '/')}" for name, text in against.items()][:1]
            if arm is model.ArmName.TREATMENT:
                _save(row / cell, output)
        return "; ".join(said)

    def _compared(self, one: model.Trial, placed: Mapping[model.ArmName, placing.Placed]) -> model.Trial:
        """The treatment's trial, its outputs laid beside the control's."""
        files = {arm: _beside(placed[arm]) for arm in model.ArmName}
        series: list[model.Series] = []
        differs, unsteady = [], []
        for key in (key for key in files[model.ArmName.TREATMENT] if key in files[model.ArmName.CONTROL]):
            arms = {arm: self._read(arm, key, files[arm][key], LATEST) for arm in model.ArmName}
            between = outputs.compare(arms[model.ArmName.TREATMENT], arms[model.ArmName.CONTROL])
            series += [model.Series(f"ARMS {key}", measure, "", (value,)) for measure, value in between.measures.items()]
            beyond = [between.beyond(files[arm][key].limits) for arm in model.ArmName]  # of two cells each has its own
            differs += [f"{key}: {beyond[0]}"] if all(beyond) else []
            for arm, latest in arms.items():
                within = outputs.compare(latest, self._read(arm, key, files[arm][key], FIRST))
                unsteady += [f"{key}: {text}" for text in [within.beyond(files[arm][key].limits)] if text]
        one = dataclasses.replace(one, series=(*one.series, *series))
        if not (series or differs) or one.agreement is model.Agreement.WRONG:
            return one
        return _agreed(one, differs, unsteady)

    def _read(self, arm: model.ArmName, key: str, file: schema.OutputFile, which: str) -> outputs.Array:
        path = self._output(arm, key, which)
        if not path.is_file():
            raise errors.HarnessError(f"output {key} of the {arm.value} is no longer there: {path}")
        return outputs.read(path, file, f"output {key} of the {arm.value}")

    def _output(self, arm: model.ArmName, key: str, which: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return placing.outputs_directory(self.state_directory, self.experiment, arm) / f"{name}.{which}"


def _beside(placed: placing.Placed) -> dict[str, schema.OutputFile]:
    """The outputs that are laid beside others, by their keys."""
    return {key: file for key, file in placed.test.output_files.items() if file.limits and file.golden is None}


def _agreed(one: model.Trial, differs: list[str], unsteady: list[str]) -> model.Trial:
    agreement, reason = model.Agreement.RIGHT, ""
    if unsteady:
        agreement = model.Agreement.UNSTEADY
        reason = f"the program's outputs differ from block to block: {'; '.join(unsteady)}"
    elif differs:
        agreement = model.Agreement.DIFFERS
        reason = f"other output than the control's: {'; '.join(differs)}"
    return dataclasses.replace(one, agreement=agreement, reason=reason)


def _others(row: Path, cell: str) -> Iterator[tuple[str, outputs.Array]]:
    """What the other cells of a row computed last, by their names; one that cannot be read is as if it were not there."""
    anything = schema.OutputFile(filename="any.npy")
    for path in sorted(row.glob("*.npy")):
        if path.name != cell:
            with contextlib.suppress(errors.CommandError):
                yield path.stem, outputs.read(path, anything, path.name)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def _copy(source: Path, target: Path) -> None:
    """All of it or nothing: what a crash breaks off must not be taken for an output."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.fresh")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def _save(path: Path, output: outputs.Array) -> None:
    import numpy as np

    fresh = path.with_suffix(".fresh")
    with fresh.open("wb") as file:
        np.save(file, output)
    fresh.replace(path)


def _write_log(path: Path, output: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(output, errors="replace")
