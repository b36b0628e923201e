"""From what a person sends to experiments: whether all has come, what can be measured, and the journal's word that it will be."""

from __future__ import annotations

import fnmatch
import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, faults, model, planning, plugins, settings
from aibenchd.plan import coverage
from aibenchd.specs import files
from aibenchd.store import store, submissions
from aibenchd.submissions import kept, programs, specification

MOST, MOST_OF_ONE = 200, 50  # submissions that may wait, or run: of all, and of one user, who cannot keep all others out
CELLS = 1_000  # of one of them: all are written at once, and others' writes wait meanwhile


@dataclass(frozen=True, slots=True)
class Program:
    """One arm: what who sent it calls it, and its digest."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for. Empty is what was not said.

    Attributes:
        specification: that is sent; None where the configuration's ``benchmarks`` are meant, by identifiers or globs.
        blocks: of an experiment of one arm; 0: as the configuration says.
        by, uid: who sent it.
    """

    treatment: Program
    control: Program | None
    specification: specification.Sent | None
    benchmarks: Sequence[str]
    framework: str = ""
    devices: Sequence[str] = ()
    backends: Sequence[str] = ()
    blocks: int = 0
    priority: int = 0
    note: str = ""
    by: str = ""
    uid: int = 0

    @property
    def programs(self) -> dict[str, Program]:
        """By arm."""
        arms = {"treatment": self.treatment, "control": self.control}
        return {arm: program for arm, program in arms.items() if program is not None}


@dataclass(frozen=True, slots=True)
class Lacking:
    """What is still to be sent.

    Attributes:
        digests: of what was named and is not here.
        paths: that the specification names, of which no digest was told yet.
    """

    digests: Sequence[str] = ()
    paths: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """What has become a request; ``warnings``: what is odd in the specification that was sent, but can be run."""

    request: int
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class House:
    """What submitting shares with the rest of the process."""

    store: store.Store
    world: planning.World
    models: files.ModelCache
    kept: kept.Kept


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Benchmarks, and the directory that their specification is laid out in; None where it is the configuration's."""

    selected: Sequence[coverage.Selected] = field(default_factory=tuple)
    directory: Path | None = None
    warnings: Sequence[str] = ()


async def submit(house: House, wanted: Wanted) -> Planned | Lacking:
    """Plan what a person sent, once all of it is here.

    Raises:
        CommandError, UploadError: it cannot be done; the message says why, to who asked.
    """
    named = {program.digest for program in wanted.programs.values()}
    if wanted.specification is not None:
        named.update(wanted.specification.files.values())
    missing = await anyio.to_thread.run_sync(lambda: [one for one in sorted(named) if not house.kept.has(one)])
    if missing:
        return Lacking(digests=missing)
    _judge(await house.store.read(submissions.undecided), wanted.uid)
    chosen = await _chosen(house, wanted)
    if isinstance(chosen, Lacking):
        return chosen
    framework = _framework(wanted, chosen.selected)
    for program in wanted.programs.values():
        await anyio.to_thread.run_sync(programs.judge, house.kept.path(program.digest), framework, program.name)
    cells = await anyio.to_thread.run_sync(_cells, house.world, wanted, framework, chosen.selected)
    experiment = house.world.settings.experiment
    request = await house.store.write(lambda tx: _write(tx, experiment, wanted, framework, cells, chosen.directory))
    return Planned(request, chosen.warnings)


def _judge(undecided: Mapping[int, int], uid: int) -> None:
    """Whether one more may wait; ``undecided`` of each user do.

    Raises:
        CommandError: it may not.
    """
    advice = "'aibenchctl requests' lists them, and 'cancel ID' ends one"
    if undecided.get(uid, 0) >= MOST_OF_ONE:
        raise errors.CommandError(f"{MOST_OF_ONE} submissions of yours wait already; {advice}")
    if sum(undecided.values()) >= MOST:
        raise errors.CommandError(f"{MOST} submissions wait already; {advice}")


async def _chosen(house: House, wanted: Wanted) -> _Chosen | Lacking:
    devices = settings.DeviceSelection(names=tuple(wanted.devices))
    if wanted.specification is None:
        found = [_as_wanted(one, wanted, devices) for one in _known(house.world.selected, wanted.benchmarks)]
        return _Chosen(found)
    selection = settings.BenchmarkSelection(specification=Path(), devices=devices, backends=tuple(wanted.backends))
    read = await specification.read(wanted.specification, wanted.uid, selection, house.kept, house.models)
    return Lacking(paths=read.lacking) if read.lacking else _Chosen(read.selected, read.directory, read.warnings)


def _known(selected: Sequence[coverage.Selected], globs: Sequence[str]) -> list[coverage.Selected]:
    """Those benchmarks of the configuration that are named, by their identifiers or their models."""
    found: list[coverage.Selected] = []
    for glob in globs:
        own = [one for one in selected if any(fnmatch.fnmatchcase(name, glob) for name in _names(one))]
        if not own:
            names = itertools.chain.from_iterable(_names(one) for one in selected)
            advice = faults.suggestion(glob, names)
            raise errors.CommandError(f"there is neither a file nor a benchmark {faults.quoted(glob)}; of benchmarks: {advice}")
        found += (one for one in own if one not in found)
    return found


def _names(selected: coverage.Selected) -> tuple[str, str]:
    return selected.benchmark.identifier, selected.benchmark.name


def _as_wanted(selected: coverage.Selected, wanted: Wanted, devices: settings.DeviceSelection) -> coverage.Selected:
    """As the configuration has it, but on the devices and backends that are named, for any repository, and with two arms."""
    own = selected.selection
    changed = {
        "repositories": (),
        "devices": devices if wanted.devices else own.devices,
        "backends": tuple(wanted.backends) or own.backends,
        "priority": 0,
        "experiment": own.experiment.model_copy(update={"arms": None}),
    }
    return coverage.Selected(selected.benchmark, own.model_copy(update=changed))


def _framework(wanted: Wanted, selected: Collection[coverage.Selected]) -> str:
    """The framework that the programs are of: as was said, else as the models say, by themselves or by their format."""
    there = plugins.names("frameworks")
    if wanted.framework:
        if wanted.framework not in there:
            raise errors.CommandError(
                f"there is no framework {faults.quoted(wanted.framework)}; {faults.suggestion(wanted.framework, there)}"
            )
        return wanted.framework
    said = dict.fromkeys(one.benchmark.framework or str(one.benchmark.model.get("format", "")) for one in selected)
    known = [name for name in said if name in there]
    if len(known) != 1:
        told = f"benchmarks of {' and '.join(known)}" if known else "the specification names none"
        raise errors.CommandError(f"which framework are the programs of? {told}; say it with --framework")
    return known[0]


def _cells(
    world: planning.World, wanted: Wanted, framework: str, selected: Sequence[coverage.Selected]
) -> tuple[coverage.Cell, ...]:
    """What is measured.

    Raises:
        CommandError: nothing can be, or it is not clear on which device.
    """
    repository = programs.settings_of(framework)
    known = planning.known_backends(framework)
    every = coverage.matrix(repository, selected, world.settings.devices, known, world.found)
    cells = tuple(cell for cell in every if not cell.impossible)
    if not cells:
        reasons = list(dict.fromkeys(cell.impossible for cell in every))
        other = f"the benchmarks are for {', '.join(sorted({one.benchmark.framework for one in selected}))}, not {framework}"
        fits = any(coverage.fits(repository, one) for one in selected)
        none = "no device is chosen for them" if fits else other
        raise errors.CommandError(f"nothing can be measured: {'; '.join(reasons[:5]) or none}")
    if len(cells) > CELLS:
        raise errors.CommandError(f"it has {len(cells):,} experiments, more than {CELLS:,}; send it in parts")
    there = dict.fromkeys(cell.device.name for cell in cells)
    if not wanted.devices and len(there) > 1:
        raise errors.CommandError(f"on which device? Name one or more of {', '.join(there)}, with --device")
    return cells


def _write(
    tx: store.Transaction,
    experiment: settings.ExperimentSettings,
    wanted: Wanted,
    framework: str,
    cells: Sequence[coverage.Cell],
    directory: Path | None,
) -> int:
    now = datetime.now(UTC)
    arms: Mapping[str, model.Revision] = {
        arm: model.Revision(model.SUBMITTED, program.digest, now, author=wanted.by, subject=program.name)
        for arm, program in wanted.programs.items()
    }
    changed = {"arms": 2} | ({"blocks": wanted.blocks} if wanted.blocks else {})
    request = submissions.plan(
        tx,
        programs.settings_of(framework),
        arms["treatment"],
        arms.get("control"),
        cells,
        experiment.model_copy(update=changed),
        planning.REQUEST_PRIORITY + wanted.priority,
        wanted.by,
    )
    submissions.add(
        tx,
        request=request,
        uid=wanted.uid,
        note=wanted.note,
        names={arm: program.name for arm, program in wanted.programs.items()},
        specification=directory.name if directory else "",
    )
    return request


async def cancel(journal: store.Store, number: int, by: str) -> list[tuple[int, str]]:
    """End what is left of a request: experiments and their devices, on which a block of them may be running."""
    return await journal.write(functools.partial(submissions.cancel, number=number, reason=f"cancelled by {by}"))
