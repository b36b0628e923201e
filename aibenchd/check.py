"""``aibenchd check``: whether a configuration can be served, told before it is."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from aibenchd import credentials, errors, planning, plugins, settings, yamlfile
from aibenchd.build import script
from aibenchd.devices import base as device
from aibenchd.plan import coverage
from aibenchd.specs import catalog, files, places, sources
from aibenchd.store import devices as stored

DEVICE_DEADLINE = 30.0  # seconds
DEVICES_AT_ONCE = 64
NOWHERE = Path(os.devnull)  # below which nothing is kept
PUBLIC = {"known_hosts_file"}  # keys of credential files that everyone may read

T = TypeVar("T")


async def check(path: Path) -> list[errors.Fault]:
    """All faults of a configuration, of the specifications it names, and of what it expects of this host and its devices.

    A daemon that runs meanwhile is not disturbed.
    """
    try:
        document = await _in_thread(lambda: yamlfile.load(path))
        chosen = await _in_thread(lambda: settings.load(path))
    except errors.InvalidFileError as error:
        return error.faults
    found = await _in_thread(lambda: list(_credentials(document, chosen)))
    try:
        specifications = await _in_thread(lambda: catalog.load(chosen))
    except errors.InvalidFileError as error:
        found += error.faults
    else:
        found += await _in_thread(lambda: list(_plan(document, chosen, specifications)))
        found += [fault async for fault in _files(chosen, specifications)]
    accounts = await _in_thread(lambda: list(_accounts(document, chosen)))
    found += accounts or await _devices(document, chosen)  # devices run programs as those accounts
    return sorted(found, key=lambda fault: (fault.file, fault.line, fault.column))


async def warnings(path: Path) -> tuple[errors.Fault, ...]:
    """What is odd in the specifications of a configuration that has no faults, and can be run all the same."""
    return await _in_thread(lambda: catalog.load(settings.load(path)).warnings)


async def _in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


def _accounts(document: yamlfile.Document, chosen: settings.Settings) -> Iterator[errors.Fault]:
    users: list[tuple[yamlfile.KeyPath, str]] = [(("run", "user"), chosen.run.user)] if chosen.run.user else []
    groups: list[tuple[yamlfile.KeyPath, str]] = [(("status", "group"), chosen.status.group)] if chosen.status.group else []
    groups += [(("status", "operators", index), name) for index, name in enumerate(chosen.status.operators)]
    for what, named, look_up in (("user", users, pwd.getpwnam), ("group", groups, grp.getgrnam)):
        for key_path, name in named:
            try:
                look_up(name)
            except KeyError:
                yield document.fault(key_path, f"this host has no {what} {name!r}; add it, or name another")


def _credentials(document: yamlfile.Document, chosen: settings.Settings) -> Iterator[errors.Fault]:
    for key_path, file in settings.credential_files(chosen):
        if file.parent == Path() and "CREDENTIALS_DIRECTORY" not in os.environ:
            continue  # a systemd credential, which only the unit can see
        try:
            _readable(credentials.path_of(file), secret=key_path[-1] not in PUBLIC)
        except (errors.CredentialError, OSError) as error:
            reason = f"{file}: cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            yield document.fault(key_path, reason)


def _readable(path: Path, *, secret: bool) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise errors.CredentialError(f"{path}: expected a regular file")
    if secret and mode & stat.S_IRWXO:
        raise errors.CredentialError(f"{path}: open to all users of this host ({mode & 0o777:04o}); run 'chmod o= {path}'")
    path.open("rb").close()


def _plan(document: yamlfile.Document, chosen: settings.Settings, found: catalog.Catalog) -> Iterator[errors.Fault]:
    """Faults of what experiments need."""
    directory = _state_directory(chosen)
    known = stored.known_in(directory / "journal.db") if directory else {}  # as a daemon of this configuration wrote it down
    if chosen.repositories and chosen.devices:
        yield from _idle(document, chosen, found, known)
    yield from _scripts(document, chosen, found, known)


def _state_directory(chosen: settings.Settings) -> Path | None:
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return chosen.state_directory or (Path(given) if given else None)


def _idle(
    document: yamlfile.Document, chosen: settings.Settings, found: catalog.Catalog, known: coverage.Found
) -> Iterator[errors.Fault]:
    """Selections that come to nothing: a name may be right and still fit nothing."""
    for index, selection in enumerate(chosen.benchmarks):
        selected = _selected(found, selection)
        missing = coverage.absent(selection.devices, chosen.devices, known)
        if missing and any(one.name not in known for one in chosen.devices):
            continue  # it may be one that was never reached
        if missing:
            reason = f"no device turned out to be {', '.join(missing)}; 'aibenchctl devices' shows what they are"
            yield document.fault(("benchmarks", index, "devices"), reason)
        if not selected and selection.specification.is_dir():
            continue  # of which the first file is yet to be dropped there
        homes = planning.homes(chosen, selected, known)
        reason = coverage.nowhere(homes, selection.devices, chosen.devices, known)
        if reason:
            yield document.fault(("benchmarks", index), f"runs nowhere: {reason}")


def _selected(found: catalog.Catalog, selection: settings.BenchmarkSelection) -> list[coverage.Selected]:
    return [coverage.Selected(benchmark, selection) for benchmark in found.benchmarks(selection)]


def _scripts(
    document: yamlfile.Document, chosen: settings.Settings, found: catalog.Catalog, known: coverage.Found
) -> Iterator[errors.Fault]:
    """Each framework is built for each platform that its benchmarks are measured on."""
    selected = [one for selection in chosen.benchmarks for one in _selected(found, selection)]
    homes = [home for home in planning.homes(chosen, selected, known) if not home.cell.impossible]
    for index, repository in enumerate(chosen.repositories):
        measured = [home.cell.device for home in homes if home.repository == repository.name]
        for platform in device.platforms(measured):
            try:
                script.find(chosen.builds.frameworks_directory, repository.framework, platform)
            except errors.BuildError as error:
                where = next(place for place, one in enumerate(chosen.devices) if one.platform == platform and one in measured)
                others = script.platforms(chosen.builds.frameworks_directory, repository.framework)
                key_path = ("devices", where, "platform") if others else ("repositories", index, "framework")
                yield document.fault(key_path, f"{repository.framework}: {error}")


async def _files(chosen: settings.Settings, found: catalog.Catalog) -> AsyncIterator[errors.Fault]:
    """Model files that programs of a repository need, and that cannot be had."""
    cache = files.ModelCache(chosen.models, (_state_directory(chosen) or NOWHERE) / "models")
    every: dict[object, sources.Wanted] = {}
    selected = (one for selection in chosen.benchmarks for one in _selected(found, selection))
    for one in selected:
        if not any(coverage.fits(repository, one) for repository in chosen.repositories):
            continue
        try:
            every.update({(wanted.shown, wanted.file): wanted for wanted in cache.wanted(one.benchmark)})
        except errors.CommandError as error:
            yield errors.Fault(one.benchmark.source, str(error).removeprefix(f"{one.benchmark.source}: "))
    for wanted in every.values():
        reason = await cache.lacks(wanted)
        if reason:
            specification = await _in_thread(functools.partial(yamlfile.load, wanted.specification))
            yield specification.fault(places.of(specification.value, wanted.key, wanted.file), reason)


async def _devices(document: yamlfile.Document, chosen: settings.Settings) -> list[errors.Fault]:
    found: list[errors.Fault] = []
    limiter = anyio.CapacityLimiter(DEVICES_AT_ONCE)

    async def look(index: int, one: device.DeviceSettings, scratch: Path) -> None:
        async with limiter:
            reason = await _reach(one, scratch, chosen.run)
        if reason:
            found.append(document.fault(("devices", index), reason))

    with tempfile.TemporaryDirectory(prefix="aibenchd-check-") as scratch:
        async with anyio.create_task_group() as tasks:
            for index, one in enumerate(chosen.devices):
                tasks.start_soon(functools.partial(look, index, one, Path(scratch) / one.name))
    return found


async def _reach(one: device.DeviceSettings, scratch: Path, run: device.RunSettings) -> str:
    """Why a device cannot be reached; empty where it can."""
    kind: type[device.Device] = plugins.load("devices", one.kind)
    try:
        with anyio.fail_after(DEVICE_DEADLINE):
            await kind(one, scratch, run).reach()
    except TimeoutError:
        return f"did not answer within {DEVICE_DEADLINE:.0f} s"
    except errors.AibenchdError as error:
        return str(error)
    return ""
