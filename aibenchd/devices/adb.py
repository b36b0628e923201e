"""Android phones, over adb."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Annotated, Self, cast

import anyio
import anyio.to_thread
import pydantic

from aibenchd import errors, quantities
from aibenchd.devices import adbapp, adbchanges, adbdiscovery, adbphone, adbreading, adbstore, base, supervising
from aibenchd.devices.adbphone import quoted

OWN_DEADLINE = 120.0  # seconds for deleting what a program left
BOOT_SECONDS = 300.0
BOOT_POLL_SECONDS = 1.0
LOGCAT_LIMIT = 256 << 10  # bytes of the phone's own log that are kept of one program


class Settings(base.DeviceSettings):
    """Keys of a device of the kind ``adb``."""

    platform: Annotated[str, pydantic.Field(description="picks specifications/frameworks/<framework>/<platform>/build.sh")] = (
        "android"
    )
    serial: Annotated[str, pydantic.Field(description="of a phone on the USB, as adb devices lists it")] = ""
    address: Annotated[
        str, pydantic.Field(pattern=r"^$|^.+:[0-9]{1,5}$", description="of a phone in the network, host:port, in place of serial")
    ] = ""
    server_host: Annotated[str, pydantic.Field(description="where the adb server is")] = "127.0.0.1"
    server_port: Annotated[int, pydantic.Field(ge=1, le=65535, description="of the adb server")] = 5037
    directory: Annotated[
        PurePosixPath, pydantic.Field(description="on the phone: holds what is pushed and what programs write")
    ] = PurePosixPath("/data/local/tmp/aibenchd")
    store_size: Annotated[quantities.Size, pydantic.Field(description="of what is pushed; the least recently used goes")] = (
        4 << 30
    )
    pull_limit: Annotated[quantities.Size, pydantic.Field(description="of one file that a program wrote")] = 1 << 30
    minimum_free: Annotated[quantities.Size, pydantic.Field(description="storage without which no block is run")] = 256 << 20
    disturb_size: Annotated[
        quantities.Size,
        pydantic.Field(ge=1 << 20, description="memory written before each trial; more than the last cache holds"),
    ] = 16 << 20
    screen_off: Annotated[bool, pydantic.Field(description="while experiments run")] = False
    stay_awake: Annotated[bool, pydantic.Field(description="while it is charged, so that it never sleeps by itself")] = False
    airplane_mode: Annotated[
        bool, pydantic.Field(description="while experiments run; a phone that is reached over Wi-Fi may be lost by it")
    ] = False
    logcat: Annotated[
        bool, pydantic.Field(description="read the phone's log of each program's time too, as FAI-PEP does: metrics, and the log")
    ] = False

    @pydantic.model_validator(mode="after")
    def _one_phone(self) -> Self:
        if bool(self.serial) == bool(self.address):
            raise ValueError("a phone has either a serial or an address; give one of them")
        if not self.directory.is_absolute() or set(str(self.directory)) & set(" \t\n*?[\\'\""):
            raise ValueError("directory must be an absolute path on the phone, without spaces and quotes")
        return self


class Adb(base.Device):
    """Trials run on a phone."""

    Settings = Settings
    on_another_host = True

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._session()

    @classmethod
    async def discover(cls) -> Sequence[base.Found]:
        """Phones that the adb server knows; it is looked for where adb's own programs look."""
        return await adbdiscovery.phones()

    async def reach(self) -> None:
        """See that it is ready; a session may be at work on it, and nothing is changed there."""
        settings = cast("Settings", self.settings)
        phone = _phone(settings)
        with errors.about("serial" if settings.serial else "address"):
            await phone.find()
        await phone.equipped()
        session, found = AdbSession(settings, phone), errors.Gathering()
        with found.look():
            await session.health()
        with found.look():
            await self.agree(session)
        found.tell()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[base.Session]:
        settings = cast("Settings", self.settings)
        phone = _phone(settings)
        await phone.find()
        await phone.equipped()
        session = AdbSession(settings, phone)
        try:
            await session.open()
        except errors.HarnessError as error:
            raise errors.DeviceLostError(str(error)) from error
        try:
            yield session
        finally:
            session.close()


def _phone(settings: Settings) -> adbphone.Phone:
    server = (settings.server_host, settings.server_port)
    return adbphone.Phone(settings.name, server, settings.serial or settings.address, address=bool(settings.address))


class AdbSession(base.Session):
    """See :class:`aibenchd.devices.base.Session`.

    Below ``directory`` lie ``programs``, what is pushed, and ``work``, in whose directories programs write. They run as
    adb's user, whose all of it is.
    """

    def __init__(self, settings: Settings, phone: adbphone.Phone) -> None:
        self._settings, self._phone = settings, phone
        self._directory = settings.directory
        self._work = self._directory / "work"
        self._script = self._directory / "supervise.sh"
        self._store = adbstore.Store(phone, self._directory / "programs", settings.store_size)
        self._changes = adbchanges.Changes(phone, settings)
        self._builds: set[PurePosixPath] = set()  # directories that were pushed
        self._app = ""  # the package of the app that runs
        self._busy = ""

    async def open(self) -> None:
        """Lay out the directory; what an earlier session left running is killed, and what it wrote or traced removed.

        Raises:
            DeviceLostError: the phone was lost; HarnessError: it cannot be laid out.
        """
        await self._phone.ask(f"{supervising.sweep(str(self._directory))}; rm -f {adbreading.TRACE}")
        await self._stop(f"$(cat {quoted(self._directory / adbapp.INSTALLED)})")
        work = quoted(self._work)
        text = f"mkdir -p {quoted(self._directory / 'programs')} {work} && chmod -R u+rwX {work} && rm -rf {work} && mkdir {work}"
        await self._phone.do(text, f"{self._directory} cannot be laid out", OWN_DEADLINE)
        await self._phone.send(io.BytesIO(supervising.SCRIPT), len(supervising.SCRIPT), str(self._script), 0o644)
        await self._store.open()
        if self._settings.cpus:
            await self._phone.do(
                "command -v taskset >/dev/null", "it has no taskset, so trials cannot be held to cpus; remove them"
            )
        await self._look()

    def close(self) -> None:
        """Whatever is asked of it now is an error."""
        self._busy = "the session's end"

    async def push(self, push: base.Push) -> PurePosixPath:
        with self._alone("push"):
            target = await self._store.put(push)
        if push.source.is_dir():
            self._builds.add(target)
        return target

    async def directory(self, name: str) -> PurePosixPath:
        with self._alone("directory"):
            path = self._work / base.file_name(name)
            await self._delete(path)
            await self._phone.do(f"mkdir {quoted(path)}", f"{path} cannot be made")
            return path

    def app_command(self, app: base.App, command: base.Command) -> base.Command:
        if command.shell:
            raise errors.CommandError(f"{app.package} is an app, and is handed options; {command.argv[0]!r} is a shell's")
        self._app = app.package
        return adbapp.command(app, command, self._directory)

    async def run(self, command: base.Command) -> base.Completed:
        with self._alone("run"):
            try:
                return await self._run(command)
            finally:
                if self._app:
                    with anyio.CancelScope(shield=True):  # it is no child of what was run
                        await self._stop(quoted(self._app))
                    self._app = ""

    async def pull(self, source: PurePosixPath, target: Path) -> None:
        with self._alone("pull"):
            real, size = await self._located(source)
            if size > self._settings.pull_limit:
                raise errors.CommandError(f"{source} has {size} bytes, more than pull_limit ({self._settings.pull_limit})")
            await self._phone.receive(real, size, target, self._settings.pull_limit)

    async def remove(self, path: PurePosixPath) -> None:
        with self._alone("remove"):
            if not path.is_relative_to(self._work) or ".." in path.parts or path == self._work:
                raise errors.HarnessError(f"{self._settings.name}: {path} is not below {self._work}, and is left alone")
            await self._delete(path)

    async def health(self) -> None:
        with self._alone("health"):
            await self._look()

    async def fingerprint(self) -> Mapping[str, str]:
        with self._alone("fingerprint"):
            answer = await self._phone.ask(adbreading.questions(adbreading.FACTS))
            told = adbreading.answers(adbreading.FACTS, answer.text)
            frequency = self._changes.frequency(adbreading.policies(told["policies"]))
            return adbreading.facts(told, self._phone.serial) | ({"frequency": frequency} if frequency else {})

    async def disturb(self) -> None:
        """Have memory written on the trials' CPUs."""
        with self._alone("disturb"):
            taskset = f"taskset {supervising.mask(self._settings.cpus)} " if self._settings.cpus else ""
            text = f"{taskset}dd if=/dev/zero of=/dev/null bs={self._settings.disturb_size} count=1"
            await self._phone.do(text, "memory cannot be written")

    async def state(self) -> Mapping[str, str]:
        with self._alone("state"):
            answer = await self._phone.ask(adbreading.questions(adbreading.STATE))
            told = adbreading.answers(adbreading.STATE, answer.text)
            found, lowered = adbreading.state(told), self._changes.lowered(adbreading.policies(told["policies"]))
            return found | {"throttled": "; ".join(filter(None, (found["throttled"], *lowered)))}

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        with self._alone("changes"):
            return await self._changes.wanted(wanted)

    async def changes_to_profile(self) -> Sequence[base.Change]:
        with self._alone("changes"):
            return await self._changes.to_profile()

    async def apply(self, action: base.Action) -> None:
        with self._alone("apply"):
            await self._changes.apply(action)

    async def reboot(self) -> None:
        with self._alone("reboot"):
            before = await self._boot_id()
            await self._phone.service("reboot:")
            with anyio.move_on_after(BOOT_SECONDS):
                while True:
                    await anyio.sleep(BOOT_POLL_SECONDS)
                    if await self._is_booted(before):
                        break
                self._changes.forget()
                await self.open()
                return
        raise errors.DeviceLostError(f"{self._settings.name}: it was not up again {BOOT_SECONDS:.0f} s after it was started anew")

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if self._busy:
            raise errors.HarnessError(f"{self._settings.name}: {what} during {self._busy}; a session serves one caller at a time")
        self._busy = what
        try:
            yield
        finally:
            if self._busy == what:
                self._busy = ""

    async def _run(self, command: base.Command) -> base.Completed:
        since = await self._clock() if self._settings.logcat and not self._app else ""
        supervised = supervising.supervised(self._script, str(self._directory), self._complete(command), self._phone.silence)
        printed, late = await self._phone.run(supervised.text, command.output_limit, command.timeout)
        completed = await anyio.to_thread.run_sync(
            lambda: supervising.completed(printed.stdout, printed.stderr, supervised.mark, killed=late)
        )
        if not since:
            return completed
        return dataclasses.replace(completed, stderr=completed.stderr + await self._logged(since))

    async def _stop(self, package: str) -> None:
        """Stop an app, if it runs; ``package`` is a word of the shell's."""
        installed = quoted(self._directory / adbapp.INSTALLED)
        await self._phone.ask(f"if [ -f {installed} ]; then am force-stop {package}; rm -f {installed}; fi")

    async def _delete(self, path: PurePosixPath) -> None:
        there = quoted(path)
        text = f"rm -rf {there} 2>/dev/null || (chmod -R u+rwX {there}; rm -rf {there})"
        await self._phone.do(text, f"{path} cannot be removed", OWN_DEADLINE)

    async def _located(self, source: PurePosixPath) -> tuple[str, int]:
        """Where a file really lies, and how many bytes it has.

        Raises:
            CommandError: there is none, or not in this device's directory.
        """
        there, inside = quoted(source), quoted(self._directory)
        text = f"""
            readlink -f {there} && readlink -f {inside} && test -e {there} && test -f {there} && echo plain || exit
            [ -r {there} ] || chmod u+r {there}
            wc -c <{there}
        """
        lines = (await self._phone.ask(f"({text})")).text.split("\n")
        if len(lines) == 1 or not PurePosixPath(lines[0]).is_relative_to(lines[1]):
            raise errors.CommandError(f"{source} is not inside {self._directory}, the device's directory, or is not there")
        if "plain" not in lines:
            raise errors.CommandError(f"{source}: the program has not written it, or it is no plain file")
        if not lines[-1].strip().isdecimal():
            raise errors.CommandError(f"{source}: the program has written it so that it cannot be read")
        return lines[0], int(lines[-1])

    async def _look(self) -> None:
        await self._phone.look()
        text = f"getprop sys.boot_completed; stat -f -c '%a %S' {quoted(self._directory)}"
        booted, _, space = (await self._phone.ask(text)).text.partition("\n")
        if booted.strip() != "1":
            raise errors.DeviceLostError(f"{self._settings.name}: Android has not started yet; if that lasts, see its screen")
        numbers = [int(number) for number in space.split() if number.isdecimal()]
        free = numbers[0] * numbers[1] if len(numbers) > 1 else self._settings.minimum_free
        if free < self._settings.minimum_free:
            raise errors.DeviceLostError(
                f"{self._settings.name}: {free} bytes are free at {self._directory}, fewer than minimum_free"
                f" ({self._settings.minimum_free}); free some, or lower store_size"
            ).at("minimum_free")

    def _complete(self, command: base.Command) -> base.Command:
        """With this device's environment and CPUs, and the libraries that lie beside the program."""
        env = {"TMPDIR": str(command.cwd), **self._settings.env, **command.env}
        libraries = [str(build) for build in sorted(self._builds) if any(f"{build}/" in word for word in command.argv)]
        return dataclasses.replace(command, env=supervising.environment(env, libraries), cpus=command.cpus or self._settings.cpus)

    async def _clock(self) -> str:
        """Its time, as its log writes it."""
        return (await self._phone.do("date '+%m-%d %H:%M:%S.000'", "its clock cannot be read")).strip()

    async def _logged(self, since: str) -> str:
        answer = await self._phone.ask(f"logcat -d -v threadtime -T {quoted(since)} | tail -c {LOGCAT_LIMIT}")
        return f"\n{answer.text}" if answer.text else ""

    async def _boot_id(self) -> str:
        return (await self._phone.ask(f"cat {adbreading.BOOT_ID}")).text.strip()

    async def _is_booted(self, before: str) -> bool:
        """Whether it is up, and is not still up."""
        try:
            await self._phone.reconnect(BOOT_POLL_SECONDS)
            answer = await self._phone.ask(f"getprop sys.boot_completed; cat {adbreading.BOOT_ID}")
        except errors.DeviceLostError:
            return False
        booted, _, now = answer.text.partition("\n")
        return booted.strip() == "1" and now.strip() not in ("", before)
