"""``aibenchd check``: whether a configuration can be served, told before it is."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import re
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import anyio
import anyio.to_thread

from aibenchd import credentials, errors, loading, planning, plugins, settings, yamlfile
from aibenchd.api import server
from aibenchd.build import script
from aibenchd.devices import base as device
from aibenchd.devices import metering
from aibenchd.plan import coverage
from aibenchd.specs import catalog, files, places, sources
from aibenchd.store import devices as stored
from aibenchd.watch import base as watch

DEVICE_DEADLINE = 30.0  # seconds
REMOTE_DEADLINE = 30.0  # seconds
LOOKS_AT_ONCE = 64  # at devices and remotes
NOWHERE = Path(os.devnull)  # below which nothing is kept
PUBLIC = {"known_hosts_file"}  # keys of credential files that everyone may read
ONE_LINE = {"token_file", "url_file"}  # keys of those that hold nothing else

T = TypeVar("T")
Look: TypeAlias = Callable[[], Awaitable[Sequence[errors.Fault]]]  # at one thing outside
Told: TypeAlias = Callable[..., errors.Fault]  # of a message, and of the keys that it is about


async def check(path: Path) -> list[errors.Fault]:
    """All faults of a configuration, of the specifications it names, and of what it expects of this host, of its
    remotes and of its devices.

    Where the file itself has faults, remotes, devices and specifications without any are looked at all the same. A daemon that
    runs meanwhile is not disturbed.
    """
    try:
        document = await _in_thread(lambda: yamlfile.load(path))
    except errors.InvalidFileError as error:
        return error.faults
    try:
        chosen = await _in_thread(lambda: settings.load(path))
    except errors.InvalidFileError as error:
        part, places = await _in_thread(functools.partial(settings.without, document, error.faults))
        at_place = functools.partial(_of_whole, document, places)
        _, bad = await _in_thread(functools.partial(_read, at_place, part))
        found = [*error.faults, *bad, *await _outside(at_place, part)]
    else:
        found = [*await _specified(document, chosen), *await _outside(document.fault, chosen)]
    return sorted(found, key=lambda fault: (fault.file, fault.line, fault.column))


def _of_whole(
    document: yamlfile.Document, places: Mapping[str, Sequence[int]], key_path: yamlfile.KeyPath, message: str
) -> errors.Fault:
    """A fault of a part of a file, at its place in the whole."""
    section, *steps = key_path
    if section in places and isinstance(steps[0], int):
        steps[0] = places[str(section)][steps[0]]
    return document.fault((section, *steps), message)


async def _specified(document: yamlfile.Document, chosen: settings.Settings) -> list[errors.Fault]:
    """Faults of specifications, and of what they need."""
    specifications, bad = await _in_thread(functools.partial(_read, document.fault, chosen))
    if bad:
        return bad
    planned = await _in_thread(lambda: list(_plan(document, chosen, specifications)))
    return [*planned, *[fault async for fault in _files(chosen, specifications)]]


def _read(fault: catalog.AtPlace, chosen: settings.Settings) -> tuple[catalog.Catalog, list[errors.Fault]]:
    """The specifications that a configuration, or a part of one, names; and their faults."""
    found, bad = catalog.read(chosen)
    return found, catalog.as_named(bad, fault, chosen)


async def _outside(fault: catalog.AtPlace, chosen: settings.Settings) -> list[errors.Fault]:
    """Faults of what is expected of this host, of remotes and of devices."""
    secrets = await _in_thread(lambda: list(_credentials(fault, chosen)))
    accounts = await _in_thread(lambda: list(_accounts(fault, chosen)))
    with tempfile.TemporaryDirectory(prefix="aibenchd-check-") as scratch:
        looks = [*_remotes(fault, chosen, Path(scratch)), *_rooms(fault, chosen)]
        looks += _meters(fault, chosen)
        looks += [] if accounts else _devices(fault, chosen, Path(scratch))  # they run programs as those accounts
        seen = await _together(looks)
    told = {one.key for one in secrets}
    return [*secrets, *accounts, *(one for one in seen if one.key not in told)]


async def warnings(path: Path) -> tuple[errors.Fault, ...]:
    """What is odd in a configuration that has no faults, or in its specifications, and can be run all the same."""
    return await _in_thread(lambda: _warnings(path))


def _warnings(path: Path) -> tuple[errors.Fault, ...]:
    chosen = settings.load(path)
    fault = yamlfile.load(path).fault
    unguarded = (fault(key_path, message) for key_path, message in loading.unguarded(chosen))
    return (*_nothing_to_do(fault, chosen), *unguarded, *_of_systemd(fault, chosen), *catalog.load(chosen).warnings)


def _nothing_to_do(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[errors.Fault]:
    """A daemon that is without any of these waits for ever, and calls nothing wrong."""
    lacking = [name for name in ("repositories", "devices", "benchmarks") if not getattr(chosen, name)]
    if lacking:
        advice = "or, for a program that is there, run 'aibenchd bench -b FILE --program PROGRAM' without a daemon"
        yield fault(
            (), f"it names no {' and no '.join(lacking)}, so nothing will be measured; add {', '.join(lacking)}; {advice}"
        )


def _of_systemd(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[errors.Fault]:
    """Secrets that only the unit can see, and that a daemon which is started by hand does not have."""
    for key_path, file in settings.credential_files(chosen):
        if file.parent == Path() and "CREDENTIALS_DIRECTORY" not in os.environ:
            reason = f"'{file}' has no slash, so it is a systemd credential, and cannot be looked at from here"
            unit = f"under systemd the unit needs a line LoadCredential={file}:PATH"
            yield fault(key_path, f"{reason}; {unit}; for a file beside the configuration, write ./{file}")


async def _in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


def _accounts(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[errors.Fault]:
    users: list[tuple[yamlfile.KeyPath, str]] = [(("run", "user"), chosen.run.user)] if chosen.run.user else []
    groups: list[tuple[yamlfile.KeyPath, str]] = [(("status", "group"), chosen.status.group)] if chosen.status.group else []
    groups += [(("status", "operators", index), name) for index, name in enumerate(chosen.status.operators)]
    groups += [(("submissions", "groups", index), name) for index, name in enumerate(chosen.submissions.groups)]
    for what, named, look_up in (("user", users, pwd.getpwnam), ("group", groups, grp.getgrnam)):
        for key_path, name in named:
            try:
                look_up(name)
            except KeyError:
                yield fault(key_path, f"this host has no {what} {name!r}; add it, or name another")


def _credentials(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[errors.Fault]:
    for key_path, file in settings.credential_files(chosen):
        if file.parent == Path() and "CREDENTIALS_DIRECTORY" not in os.environ:
            continue  # a systemd credential, which only the unit can see
        try:
            _look_at(key_path, file)
        except (errors.CredentialError, OSError) as error:
            reason = f"{file}: cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            yield fault(key_path, reason)


def _look_at(key_path: yamlfile.KeyPath, file: Path) -> None:
    if tuple(key_path) == ("dashboard", "token_file"):
        server.dashboard_token(file)
    elif key_path[-1] in ONE_LINE:
        credentials.read(file)
    else:
        _readable(credentials.path_of(file), secret=key_path[-1] not in PUBLIC)


def _readable(path: Path, *, secret: bool) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise errors.CredentialError(f"'{path}' is no regular file")
    if secret and found.st_mode & stat.S_IRWXO:
        mode = f"{found.st_mode & 0o777:04o}"
        raise errors.CredentialError(f"'{path}' is open to all users of this host ({mode}); run 'chmod o= {path}'")
    if secret and not found.st_size:
        raise errors.CredentialError(f"'{path}' {credentials.EMPTY}")
    path.open("rb").close()


def _plan(document: yamlfile.Document, chosen: settings.Settings, found: catalog.Catalog) -> Iterator[errors.Fault]:
    """Faults of what experiments need."""
    directory = settings.known_state_directory(chosen)
    known = stored.known_in(directory / "journal.db") if directory else {}  # as a daemon of this configuration wrote it down
    if chosen.repositories and chosen.devices:
        yield from _idle(document, chosen, found, known)
    selected = [one for selection in chosen.benchmarks for one in _selected(found, selection)]
    homes = planning.homes(chosen, selected, known)
    yield from _backends(document, chosen, homes)
    yield from _scripts(document, chosen, homes)


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


def _backends(document: yamlfile.Document, chosen: settings.Settings, homes: Sequence[coverage.Home]) -> Iterator[errors.Fault]:
    unknown = coverage.unknown_backends(homes, planning.known_backends)
    for index, one in enumerate(chosen.devices):
        for place, backend in enumerate(one.backends):
            if (one.name, backend) in unknown:
                yield document.fault(("devices", index, "backends", place), unknown[one.name, backend])


def _scripts(document: yamlfile.Document, chosen: settings.Settings, homes: Sequence[coverage.Home]) -> Iterator[errors.Fault]:
    """Each framework is built for each platform that its benchmarks are measured on."""
    possible = [home for home in homes if not home.cell.impossible]
    for index, repository in enumerate(chosen.repositories):
        measured = [home.cell.device for home in possible if home.repository == repository.name]
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
    cache = files.ModelCache(chosen.models, (settings.known_state_directory(chosen) or NOWHERE) / "models")
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


def _told(fault: catalog.AtPlace, key_path: yamlfile.KeyPath, message: str, *keys: str | int) -> errors.Fault:
    """A fault at a key of a repository or a device, on one line whatever a tool said."""
    return fault((*key_path, *keys), _one_line(message))


def _one_line(message: str) -> str:
    """Several lines that a tool wrote, as clauses of one; after a colon or a comma it goes on as it is."""
    lines = (" ".join(line.split()) for line in message.splitlines())
    return re.sub(r"(?<=[:,]);", "", re.sub(r"[.;]?\n", "; ", "\n".join(line for line in lines if line)))


async def _together(looks: Iterable[Look]) -> list[errors.Fault]:
    """What a number of looks find wrong."""
    found: list[errors.Fault] = []
    limiter = anyio.CapacityLimiter(LOOKS_AT_ONCE)

    async def take(look: Look) -> None:
        async with limiter:
            found.extend(await look())

    async with anyio.create_task_group() as tasks:
        for look in looks:
            tasks.start_soon(take, look)
    return found


def _remotes(fault: catalog.AtPlace, chosen: settings.Settings, scratch: Path) -> Iterator[Look]:
    for index, one in enumerate(chosen.repositories):
        kind: type[watch.Repository] = plugins.load("repositories", one.kind)
        repository = kind(one, scratch / "repositories" / one.name)
        yield functools.partial(_remote, repository, functools.partial(_told, fault, ("repositories", index)))


async def _remote(repository: watch.Repository, told: Told) -> list[errors.Fault]:
    try:
        with anyio.fail_after(REMOTE_DEADLINE):
            await repository.reach()
    except errors.CredentialError:
        pass  # told of its own, or a systemd credential
    except TimeoutError:
        return [told(f"did not answer within {REMOTE_DEADLINE:.0f} s; look at the network, or mend the url", "url")]
    except errors.RemoteUnreachableError as error:
        return [told(f"cannot be reached: {error}", "url")]
    except errors.UnknownRevisionError as error:
        return [told(str(error), "branch")]
    except errors.AibenchdError as error:
        return [told(str(error), "kind")]
    return []


def _devices(fault: catalog.AtPlace, chosen: settings.Settings, scratch: Path) -> Iterator[Look]:
    for index, one in enumerate(chosen.devices):
        kind: type[device.Device] = plugins.load("devices", one.kind)
        made = kind(one, scratch / "devices" / one.name, chosen.run)
        yield functools.partial(_device, made, functools.partial(_told, fault, ("devices", index)))


def _rooms(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[Look]:
    """At the disks of this host, where it is known which."""
    state = settings.known_state_directory(chosen)
    for index, one in enumerate(chosen.devices) if state else ():
        kind: type[device.Device] = plugins.load("devices", one.kind)
        made = kind(one, (state or NOWHERE) / "devices" / one.name, chosen.run)
        yield functools.partial(_told_by, made.look_at_room, functools.partial(_told, fault, ("devices", index)))


def _meters(fault: catalog.AtPlace, chosen: settings.Settings) -> Iterator[Look]:
    """At meters, as far as they need no device in hand."""
    for index, one in enumerate(chosen.devices):
        if one.meter is not None:
            kind: type[metering.Meter] = plugins.load("meters", one.meter.kind)
            yield functools.partial(_told_by, kind(one.meter).look, functools.partial(_told, fault, ("devices", index)))


async def _told_by(look: Callable[[], Awaitable[None]], told: Told) -> list[errors.Fault]:
    """All that a look at a device raises, each at its key."""
    found = errors.Gathering()
    with found.look():
        await look()
    return [told(str(error), *(errors.keys_of(error) or _usual_keys(error))) for error in found.found]


def _usual_keys(error: errors.AibenchdError) -> tuple[str, ...]:
    return ("conditioning",) if isinstance(error, errors.CommandError) else ()


async def _device(one: device.Device, told: Told) -> list[errors.Fault]:
    try:
        with anyio.fail_after(DEVICE_DEADLINE):
            return await _told_by(one.reach, told)
    except TimeoutError:
        return [told(f"did not answer within {DEVICE_DEADLINE:.0f} s")]
