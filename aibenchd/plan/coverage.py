"""Which cells there are: every benchmark on every device with every backend that fits. Pure.

A new model file adds a row and a new device or backend a column, with no one asking: whatever is in here and has
not been measured is scheduled. What can never be measured is in here too, with why.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aibenchd import errors, faults, model, settings
from aibenchd.devices import base as devices

Found: TypeAlias = Mapping[str, Mapping[str, str]]  # the last fingerprint of each device that was ever reached, by name
NOTHING: Found = types.MappingProxyType({})

ALL = "all"  # in a selection's backends: every one that the framework can be asked for and the device offers


@dataclass(frozen=True, slots=True)
class Selected:
    """One benchmark, and the selection in the configuration that names its specification."""

    benchmark: model.Benchmark
    selection: settings.BenchmarkSelection
    digest: str = field(init=False, compare=False)  # the benchmark's, taken once: cells are many

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.benchmark.digest)


@dataclass(frozen=True, slots=True)
class Cell:
    """One benchmark on one device with one backend (empty: the program chooses).

    Attributes:
        impossible: why it cannot be measured; empty where it can.
    """

    selected: Selected
    device: devices.DeviceSettings
    backend: str
    impossible: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells cells apart: digest of the benchmark, device, backend."""
        return (self.selected.digest, self.device.name, self.backend)


@dataclass(frozen=True, slots=True)
class Home:
    """A cell, and the repository whose builds run in it; the repository is empty where there is none."""

    repository: str
    framework: str
    cell: Cell

    @property
    def place(self) -> str:
        """``[framework@]device[/backend]``: its column of the matrix, as people and :func:`find` name it."""
        return place_name(self.framework, self.cell.device.name, self.cell.backend)


def place_name(source: str, device: str, backend: str) -> str:
    """``[source@]device[/backend]``; the source is a framework, or a repository where several build programs of one."""
    return (f"{source}@" if source else "") + device + (f"/{backend}" if backend else "")


def cells(
    repository: settings.RepositorySettings,
    selected: Sequence[Selected],
    fleet: Sequence[devices.DeviceSettings],
    known: Collection[str],
    found: Found = NOTHING,
) -> tuple[Cell, ...]:
    """The cells that builds of one repository are measured in; one that is selected twice, as the first selection has it.

    Args:
        known: the backends that the repository's framework can be asked for; empty where it does not say.
        found: what devices turned out to be.
    """
    return tuple(cell for cell in matrix(repository, selected, fleet, known, found) if not cell.impossible)


def matrix(
    repository: settings.RepositorySettings,
    selected: Sequence[Selected],
    fleet: Sequence[devices.DeviceSettings],
    known: Collection[str],
    found: Found = NOTHING,
) -> tuple[Cell, ...]:
    """As :func:`cells`, with those that are impossible."""
    by_key: dict[tuple[str, str, str], Cell] = {}
    every = (
        Cell(one, device, backend, impossible(repository.framework, device, backend, known))
        for one in selected
        if fits(repository, one)
        for device in fleet
        if chosen(device, one.selection.devices, found)
        for backend in backends(one.selection.backends, device.backends, known)
    )
    for cell in every:
        by_key.setdefault(cell.key, cell)
    return tuple(by_key.values())


def homeless(
    repositories: Sequence[settings.RepositorySettings],
    selected: Sequence[Selected],
    fleet: Sequence[devices.DeviceSettings],
    found: Found = NOTHING,
) -> tuple[Home, ...]:
    """A cell on each device for each benchmark that no repository's builds can run."""
    return tuple(
        Home("", one.benchmark.framework, Cell(one, device, "", _without_a_home(one)))
        for one in selected
        if not any(fits(repository, one) for repository in repositories)
        for device in fleet
        if chosen(device, one.selection.devices, found)
    )


def _without_a_home(selected: Selected) -> str:
    named = selected.selection.repositories
    programs = f"{selected.benchmark.framework} programs".lstrip()
    return f"none of {_listed(named)} builds {programs}" if named else f"no repository builds {programs}"


def fits(repository: settings.RepositorySettings, selected: Selected) -> bool:
    """Whether a repository's builds run a benchmark: it is selected, and the framework is the one the model asks for."""
    wanted = selected.selection.repositories
    if wanted and repository.name not in wanted:
        return False
    return selected.benchmark.framework in ("", repository.framework)


def chosen(device: devices.DeviceSettings, selection: settings.DeviceSelection, found: Found = NOTHING) -> bool:
    """Whether a selection takes a device: all where it names nothing, and never what it excludes.

    One that was never reached is not yet chosen by what it turns out to be.
    """
    if device.name in selection.exclude:
        return False
    named = tuple(_named_by(device, selection, found))
    return not named or any(not own.isdisjoint(texts) for _, texts, own in named)


def passed_over(device: devices.DeviceSettings, selection: settings.DeviceSelection, found: Found = NOTHING) -> str:
    """Why :func:`chosen` does not take a device; empty where it does."""
    if chosen(device, selection, found):
        return ""
    if device.name in selection.exclude:
        return f"{device.name} is excluded"
    told = (
        f"{what} {_listed(sorted(own))}, not {' or '.join(texts)}" for what, texts, own in _named_by(device, selection, found)
    )
    return f"{device.name} has {'; '.join(told)}"


def _named_by(
    device: devices.DeviceSettings, selection: settings.DeviceSelection, found: Found
) -> Iterator[tuple[str, Sequence[str], set[str]]]:
    """Each thing that a selection chooses devices by: its name, which of it are chosen, which the device has."""
    facts = found.get(device.name, {})
    every = (
        ("the name", selection.names, {device.name}),
        ("the kind", selection.kinds, {device.kind}),
        ("the tags", selection.tags, set(device.tags)),
        *((what, texts, told(facts)) for what, texts, told in _turned_out(selection)),
    )
    return ((what, texts, own - {""}) for what, texts, own in every if texts)


def _turned_out(
    selection: settings.DeviceSelection,
) -> tuple[tuple[str, Sequence[str], Callable[[Mapping[str, str]], set[str]]], ...]:
    """What a selection names that only a device itself can tell, and how its fingerprint tells it."""
    return (
        ("the hash", selection.hashes, lambda facts: {facts.get("hash", ""), facts.get("serial", "")}),
        ("the model", selection.models, lambda facts: {devices.model_of(facts)}),
        ("the ABI", selection.abis, lambda facts: {facts.get("abi", "")}),
    )


def absent(selection: settings.DeviceSelection, fleet: Sequence[devices.DeviceSettings], found: Found) -> tuple[str, ...]:
    """What a selection names that no device of the fleet turned out to be, so far."""
    known = [found[device.name] for device in fleet if device.name in found]
    return tuple(
        text for _, texts, told in _turned_out(selection) for text in texts if not any(text in told(facts) for facts in known)
    )


def backends(wanted: Sequence[str], offered: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The backends that a benchmark is asked to run with on a device; :func:`impossible` says which of them cannot be.

    - Those that the selection wants, where it names any; ``all`` among them stands for all that are possible.
    - Else those that the device offers, where it offers any. A fallback would be measured where these were left unasked for.
    - Else the program's own choice: one empty name.

    Args:
        wanted, offered: of the selection, of the device; either may be empty.
        known: what the framework can be asked for; empty where it does not say.
    """
    if not wanted:
        return tuple(offered) or ("",)
    possible = tuple(one for one in known or offered if not offered or one in offered)
    every = possible or ((ALL,) if known else ("",))
    return tuple(dict.fromkeys(itertools.chain.from_iterable(every if one == ALL else (one,) for one in wanted)))


def impossible(framework: str, device: devices.DeviceSettings, backend: str, known: Collection[str]) -> str:
    """Why a backend cannot be measured on a device; empty where it can."""
    if not backend:
        return ""
    if backend == ALL:
        return f"{device.name} offers only {_listed(device.backends)}; {framework} can be asked for {_listed(known)}"
    if known and backend not in known:
        return f"{framework} cannot be asked for {backend}: it knows {_listed(known)}"
    if device.backends and backend not in device.backends:
        return f"{device.name} does not offer {backend}, only {_listed(device.backends)}"
    return ""


def unknown_backends(homes: Iterable[Home], known: Callable[[str], Collection[str]]) -> Mapping[tuple[str, str], str]:
    """By (device, backend), what a device offers and no framework whose programs run there knows: most often it is misspelt.

    Args:
        homes: all cells, also those that are impossible.
        known: what a framework can be asked for; empty where it does not say, and then any backend may be one of its programs'.
    """
    there: dict[str, tuple[devices.DeviceSettings, dict[str, Collection[str]]]] = {}
    for home in homes:
        if home.repository and home.cell.device.backends:
            _, frameworks = there.setdefault(home.cell.device.name, (home.cell.device, {}))
            if home.framework not in frameworks:
                frameworks[home.framework] = known(home.framework)
    return {
        (device.name, backend): _no_backend(backend, frameworks)
        for device, frameworks in there.values()
        for backend in device.backends
        if not any(not own or backend in own for own in frameworks.values())
    }


def _no_backend(backend: str, frameworks: Mapping[str, Collection[str]]) -> str:
    advice = faults.suggestion(backend, {one for own in frameworks.values() for one in own})
    return f"{faults.quoted(backend)} is no backend of {' or '.join(frameworks)}, and nothing else runs there; {advice}"


def nowhere(
    homes: Iterable[Home], selection: settings.DeviceSelection, fleet: Sequence[devices.DeviceSettings], found: Found = NOTHING
) -> str:
    """Why no cell of a selection can be measured, at the device that is nearest to it; empty where one can.

    Args:
        homes: all its cells, also those that are impossible.
        fleet: one device or more.
    """
    reasons: dict[str, list[str]] = {}
    for home in homes:
        if not home.cell.impossible:
            return ""
        reasons.setdefault(home.cell.device.name, []).append(home.cell.impossible)
    if not reasons:
        everything = selection.model_copy(update={"exclude": ()})
        nearest = min(fleet, key=lambda one: (not chosen(one, everything, found), one.name in selection.exclude))
        return passed_over(nearest, selection, found) + _others(len(fleet))
    different = {tuple(dict.fromkeys(of_one)): None for of_one in reasons.values()}
    least = min(different, key=len)
    return "; ".join(least) + (_others(len(reasons)) if len(different) > 1 else "")


def _others(count: int) -> str:
    return f"; no other of the {count} devices is nearer" if count > 1 else ""


RowNames: TypeAlias = Mapping[tuple[str, str], str]


def rows(homes: Iterable[Home]) -> RowNames:
    """The name of the row that each cell is in, by (framework, digest of the benchmark).

    What can be laid side by side is in one row. Benchmarks of one model and metric are, where each framework has one of
    them, whatever the specifications call it; else there is a row for each identifier.
    """
    groups: dict[tuple[str, str], dict[tuple[str, str], model.Benchmark]] = {}
    for home in homes:
        benchmark = home.cell.selected.benchmark
        groups.setdefault((benchmark.name, benchmark.metric), {})[_row_of(home)] = benchmark
    return {key: name for group in groups.values() for key, name in _named(group)}


def find(homes: Sequence[Home], names: RowNames, benchmark: str, place: str) -> tuple[Home, ...]:
    """What a person means by a model and a cell of it: its tests there, of each repository that fits; all in one place.

    Args:
        homes: all cells, also those that are impossible.
        names: of their rows.
        benchmark: a model's name, an identifier, or the name of a row.
        place: ``[framework@]device[/backend]``, with a repository's name in place of the framework where that tells more.
            Without a backend: the program's own choice, or the only backend that there is.

    Raises:
        CommandError: there is no such cell, it is impossible, or it is not clear which is meant.
    """
    of_model = [home for home in homes if benchmark in _called(home, names)]
    if not of_model:
        known = sorted({home.cell.selected.benchmark.name for home in homes})
        raise errors.CommandError(f"there is no model {benchmark!r}; there is {_listed(known)}")
    source, at, where = place.rpartition("@")
    device, _, backend = where.partition("/")
    found = [
        home for home in of_model if home.cell.device.name == device and (not at or source in (home.framework, home.repository))
    ]
    if backend or any(not home.cell.backend for home in found):
        found = [home for home in found if home.cell.backend == backend]
    places = sorted({home.place for home in found})
    if not places:
        raise errors.CommandError(
            f"{benchmark} has no cell {place!r}; there is {_listed(sorted({home.place for home in of_model}))}"
        )
    if len(places) > 1:
        raise errors.CommandError(f"{place!r} may be {' or '.join(places)}; say which")
    possible = tuple(home for home in found if not home.cell.impossible)
    if not possible:
        raise errors.CommandError(f"{places[0]} cannot be measured: {found[0].cell.impossible}")
    return possible


def side_by_side(treatment: Sequence[Home], control: Sequence[Home], names: RowNames) -> tuple[tuple[Home, Home], ...]:
    """The pairs of cells of one row each, of two places.

    Raises:
        CommandError: they are the same, or no row has both.
    """
    one, other = treatment[0], control[0]
    if (one.repository, one.place) == (other.repository, other.place):
        raise errors.CommandError(f"both are the cell {one.place} of {one.repository}; name two that differ")
    by_row = {names[_row_of(home)]: home for home in control}
    found = tuple((home, by_row[row]) for home in treatment if (row := names[_row_of(home)]) in by_row)
    if not found:
        tests = [_listed(sorted({names[_row_of(home)] for home in side})) for side in (treatment, control)]
        raise errors.CommandError(
            f"{one.place} and {other.place} have no test of the model in common: {tests[0]} here, {tests[1]} there; "
            "give the tests equal identifiers"
        )
    return found


def _row_of(home: Home) -> tuple[str, str]:
    return (home.framework, home.cell.selected.digest)


def _called(home: Home, names: RowNames) -> tuple[str, str, str]:
    benchmark = home.cell.selected.benchmark
    return (benchmark.name, benchmark.identifier, names[_row_of(home)])


def _named(group: Mapping[tuple[str, str], model.Benchmark]) -> Iterator[tuple[tuple[str, str], str]]:
    """The names of the rows of one model and metric."""
    several = len({framework for framework, _ in group}) < len(group)
    taken: set[tuple[str, str]] = set()
    for key, benchmark in group.items():
        words = [benchmark.name] if benchmark.metric == "delay" else [benchmark.name, benchmark.metric]
        if several and benchmark.identifier != benchmark.name:
            words.append(benchmark.identifier)
        if several and (key[0], benchmark.identifier) in taken:
            words.append(benchmark.digest[:6])
        taken.add((key[0], benchmark.identifier))
        yield key, " ".join(words)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
