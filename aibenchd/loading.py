"""A configuration with all that it names: read, read again, and what of it may change meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from aibenchd import errors, settings, yamlfile
from aibenchd.plan import coverage
from aibenchd.specs import catalog, marks

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that is good, with the specifications that it names, and what these were read from."""

    settings: settings.Settings
    selected: tuple[coverage.Selected, ...]
    seen: marks.Marks
    faults: str = ""  # of specifications that were left out


def load(path: Path) -> Loaded:
    """Read the configuration and all that it names. Blocking.

    Raises:
        InvalidFileError: with all faults.
    """
    chosen = settings.load(path)
    _warn(path, chosen)
    try:
        return of(chosen, catalog.load(chosen))
    except catalog.BadSpecificationsError as error:
        raise catalog.BadSpecificationsError(catalog.as_named(error.faults, functools.partial(_fault, path), chosen)) from error


def load_what_is_good(path: Path) -> Loaded:
    """As :func:`load`, without the specifications that are bad: after a restart of the host one file must not keep a lab down.

    Raises:
        InvalidFileError: the configuration has faults, or no specification is good.
    """
    chosen = settings.load(path)
    _warn(path, chosen)
    found, bad = catalog.read(chosen)
    faults = catalog.as_named(bad, functools.partial(_fault, path), chosen)
    if faults and not any(benchmarks for _, benchmarks in found.entries):
        raise errors.InvalidFileError(faults)
    return replace(of(chosen, found), faults=str(errors.InvalidFileError(faults)) if faults else "")


def unguarded(chosen: settings.Settings) -> Iterator[tuple[yamlfile.KeyPath, str]]:
    """What lets others than the daemon's user do what only that user should; keys, and what to do."""
    if chosen.submissions.groups and not (chosen.run.user or chosen.run.launcher):
        members = " or ".join(chosen.submissions.groups)
        reach = "as the daemon's own user, who can read and change its journal, its clones and its tokens"
        advice = "set run.launcher to the socket of aibenchd-launcher.socket (or run.user, where the daemon is root)"
        yield ("submissions", "groups"), f"what members of {members} send runs on this host {reach}; {advice}"


def _warn(path: Path, chosen: settings.Settings) -> None:
    for key_path, message in unguarded(chosen):
        log.warning("configuration", warning=str(_fault(path, key_path, message)))


def _fault(path: Path, key_path: yamlfile.KeyPath, message: str) -> errors.Fault:
    """At its place in the configuration, which is read once more: there seldom is one."""
    return yamlfile.load(path).fault(key_path, message)


def of(chosen: settings.Settings, found: catalog.Catalog) -> Loaded:
    """A configuration with the specifications that were read for it; what is odd in them is logged."""
    selected = (coverage.Selected(benchmark, selection) for selection, benchmarks in found.entries for benchmark in benchmarks)
    for warning in found.warnings:
        log.warning("specification", warning=str(warning))
    return Loaded(chosen, tuple(selected), found.seen)


def with_what_stays(fresh: Loaded, before: Loaded, bad: set[Path]) -> Loaded:
    """``fresh``, with what bad files said before: of a benchmarks file, all its members."""
    stay = (
        one
        for one in before.selected
        if (Path(one.benchmark.source) in bad or one.selection.specification in bad) and one not in fresh.selected
    )
    return replace(fresh, selected=(*fresh.selected, *stay))


def refuse_what_needs_a_restart(before: settings.Settings, after: settings.Settings) -> None:
    """Compare a configuration with the one that takes its place.

    Raises:
        HarnessError: something changed that cannot while the daemon runs.
    """
    for key in ("state_directory", "status", "dashboard", "models"):
        if getattr(before, key) != getattr(after, key):
            raise errors.HarnessError(f"{key} cannot change while aibenchd runs; restart it, or put the old value back")
    if before.builds.same_host != after.builds.same_host:
        raise errors.HarnessError("builds.same_host cannot change while aibenchd runs; restart it, or put the old value back")
