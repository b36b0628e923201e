"""Which cells there are: every benchmark on every device with every backend that fits. Pure.

A new model file adds a row and a new device or backend a column, with no one asking: whatever is in here and has
not been measured is scheduled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aibenchd import model, settings
from aibenchd.devices import base as devices


@dataclass(frozen=True, slots=True)
class Selected:
    """One benchmark, and the selection in the configuration that names its specification."""

    benchmark: model.Benchmark
    selection: settings.BenchmarkSelection


@dataclass(frozen=True, slots=True)
class Cell:
    """One benchmark on one device with one backend (empty: the program chooses)."""

    selected: Selected
    device: devices.DeviceSettings
    backend: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells cells apart: digest of the benchmark, device, backend."""
        return (self.selected.benchmark.digest, self.device.name, self.backend)


def cells(
    repository: settings.RepositorySettings,
    selected: Sequence[Selected],
    fleet: Sequence[devices.DeviceSettings],
) -> tuple[Cell, ...]:
    """The cells that builds of one repository are measured in; one that is selected twice, as the first selection has it."""
    found: dict[tuple[str, str, str], Cell] = {}
    every = (
        Cell(one, device, backend)
        for one in selected
        if fits(repository, one)
        for device in fleet
        if chosen(device, one.selection.devices)
        for backend in backends(one.selection.backends, device.backends)
    )
    for cell in every:
        found.setdefault(cell.key, cell)
    return tuple(found.values())


def fits(repository: settings.RepositorySettings, selected: Selected) -> bool:
    """Whether a repository's builds run a benchmark: it is selected, and the framework is the one the model asks for."""
    wanted = selected.selection.repositories
    if wanted and repository.name not in wanted:
        return False
    return selected.benchmark.framework in ("", repository.framework)


def chosen(device: devices.DeviceSettings, selection: settings.DeviceSelection) -> bool:
    """Whether a selection takes a device: all where it names nothing, and never what it excludes."""
    if device.name in selection.exclude:
        return False
    named = bool(selection.names or selection.kinds or selection.tags)
    return not named or (
        device.name in selection.names or device.kind in selection.kinds or not set(device.tags).isdisjoint(selection.tags)
    )


def backends(wanted: Sequence[str], offered: Collection[str]) -> tuple[str, ...]:
    """The backends to run: those wanted that the device offers; the program's own choice where none is wanted."""
    if not wanted:
        return ("",)
    return tuple(backend for backend in wanted if not offered or backend in offered)
