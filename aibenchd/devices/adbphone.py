"""A phone as adb shows it: found, connected, waited for, asked. What is wrong with it is told with what to do."""

from __future__ import annotations

import functools
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import anyio

from aibenchd import errors
from aibenchd.devices import adbline, base, supervising

T = TypeVar("T")

READY = "device"  # the state of one that can be used
SERVER_SECONDS = 10.0  # that the server has for an answer of its own
CONNECT_SECONDS = 25.0  # the server itself waits ten for a phone that does not answer
SETTLE_SECONDS = 10.0  # that a phone has to become ready once it is seen
POLL_SECONDS = 0.2
ANSWER_SECONDS = 30.0  # that a phone has for a small command, and for killing what it was told to kill
BEAT_SECONDS = 15.0  # between two signs of life to what runs on a phone
SILENCE_SECONDS = 60.0  # without one, after which what runs there is to take us for gone: the line may be half open
SLOWEST = 256 << 10  # bytes a second, below which files are not sent
ANSWER_BOUND = 4 << 20  # bytes of an answer to a small command
SHOWN = 8  # serials that a message names
# What texts for its shell are made of, beside what is part of that, and what only some of them want and say so.
TOOLS = ("cat", "chmod", "du", "env", "find", "grep", "ln", "ls", "mkdir", "mv", "readlink", "rm", "sleep", "stat", "touch", "wc")
ABSENT = "absent"
TWICE = "twice"

ADVICE = {
    "unauthorized": "does not trust this host; accept the key on the phone's screen",
    "authorizing": "is being asked whether it trusts this host; accept the key on the phone's screen",
    "offline": "is offline; take its cable out and in again, or start it anew",
    "connecting": "is being connected and does not answer; is its debugging still on?",
    "no permissions": "may not be opened by the adb server's user; see the udev rules in the README",
    "bootloader": "is in its boot loader; start Android: adb reboot",
    "recovery": "is in recovery; start Android: adb reboot",
    "sideload": "waits for an update; start Android: adb reboot",
    TWICE: "is there twice: two phones with one serial number; connect one of them over the network, by its address",
}


# Where the unit of an adb server may have been installed.
UNITS = tuple(Path(place) / "aibenchd-adb.service" for place in ("/etc/systemd/system", "/usr/lib/systemd/system"))


def _restart() -> str:
    return "systemctl restart aibenchd-adb" if any(unit.exists() for unit in UNITS) else "adb start-server"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a small command gave; without its last line break."""

    code: int
    text: str
    complaint: str


class Phone:
    """One phone, by the serial that the server calls it by. :meth:`find` comes first."""

    def __init__(self, name: str, server: tuple[str, int], serial: str, *, address: bool) -> None:
        self.name, self.serial = name, serial
        self._address = address
        self._line = adbline.Line(*server)
        self._packets = False

    async def find(self) -> None:
        """Look for it, connect it where it has an address, and wait until it is ready.

        Raises:
            DeviceLostError: it is not; the message says what to do.
        """
        self._line.version = await self._ask_server(lambda client: client.server_version())
        state = await self.state()
        if self._address and state != READY:
            said = await self._connect(state)
            if (state := await self.state()) == "offline":  # what was connected already, and falls just now
                said = await self._connect(state)
                state = await self.state()
            if state == ABSENT:
                raise errors.DeviceLostError(
                    f"{self.name}: {self._server} says: {said}; is the phone on, in this network, and debugging over it on?"
                )
        elif state == "offline":
            await self._ask_server(lambda client: client.reconnect(self.serial))
        state = await self.settled(SETTLE_SECONDS if state not in (ABSENT, TWICE, "unauthorized") else 0)
        if state != READY:
            raise await self._lost(f"its state is {state!r}")
        features = await self._call("features", lambda client: client.device(self.serial).get_features(), ANSWER_SECONDS)
        self._packets = "shell_v2" in features.split(",")

    async def equipped(self) -> None:
        """See that its shell has what sessions are made of: where ``env`` is missing every program would seem to fail.

        Raises:
            DeviceLostError: it has not; the message says what it lacks.
        """
        text = f"for one in {' '.join(TOOLS)}; do command -v $one >/dev/null || echo $one; done"
        if missing := (await self.ask(text)).text.split():
            raise errors.DeviceLostError(
                f"{self.name}: its shell has no {', '.join(missing)}; Android has them all from 7 on (toybox): take a newer one,"
                " or where it is rooted install busybox's where its shell looks"
            )

    async def settled(self, seconds: float) -> str:
        """Its state once it is ready, or after so many seconds."""
        state = await self.state()
        with anyio.move_on_after(seconds):
            while state != READY:
                await anyio.sleep(POLL_SECONDS)
                state = await self.state()
        return state

    async def look(self) -> None:
        """See that it is ready, and that the server is still the one that it was.

        Raises:
            DeviceLostError: it is not.
        """
        version = await self._ask_server(lambda client: adbline.Client(client.host, client.port).server_version())
        if version != self._line.version:
            raise errors.DeviceLostError(
                f"{self.name}: {self._server} is another than it was, version {version} in place of {self._line.version}: two adb"
                " of different versions stop each other's; leave one of them on this host, or give aibenchd's a port of its own"
            )
        if (state := await self.state()) != READY:
            raise await self._lost(f"its state is {state!r}")

    async def state(self) -> str:
        """As the server tells it; :data:`ABSENT` or :data:`TWICE` where there is not one."""
        return self._state(await self.others())

    async def reconnect(self, seconds: float) -> None:
        """Wait until it is ready again after it went away by itself; one with an address is connected again.

        Raises:
            DeviceLostError: it was not within ``seconds``.
        """
        with anyio.move_on_after(seconds):
            while (state := await self.state()) != READY:
                if self._address:
                    await self._connect(state)
                await anyio.sleep(POLL_SECONDS)
            return
        raise await self._lost(f"it was not ready again within {seconds:.0f} s")

    async def ask(self, text: str, seconds: float = ANSWER_SECONDS) -> Answer:
        """Run a small command of our own in its shell.

        Raises:
            DeviceLostError: it did not answer.
        """
        mark = secrets.token_hex(8)
        shell = self._shell(f"umask 022\n{text}\ncode=$?; echo; echo {mark} $code", ANSWER_BOUND)
        printed = await self._call("shell", shell.run, seconds)
        told, _, code = printed.stdout.decode(errors="replace").rpartition(f"\n{mark} ")
        if not code.strip().isdecimal():
            raise await self._lost(f"its shell did not come to an end; it said {printed.stdout[-base.LAST_WORDS :]!r}")
        complaint = printed.stderr.decode(errors="replace").strip() or told.strip()
        return Answer(int(code), told.removesuffix("\n"), complaint[-base.LAST_WORDS :])

    async def do(self, text: str, what: str, seconds: float = ANSWER_SECONDS) -> str:
        """As :meth:`ask`, of a command that must succeed: what it printed.

        Raises:
            HarnessError: it did not.
        """
        answer = await self.ask(text, seconds)
        if answer.code:
            raise errors.HarnessError(f"{self.name}: {what}: {answer.complaint or f'exit code {answer.code}'}")
        return answer.text

    @property
    def silence(self) -> float:
        """Seconds without a sign of life after which what :meth:`run` runs may take us for gone; 0 where it is given none."""
        return SILENCE_SECONDS if self._packets else 0

    async def run(self, text: str, limit: int, seconds: float) -> tuple[adbline.Printed, bool]:
        """Run what reads its standard input, and give it a line after ``seconds``, and on cancellation; signs of life till then.

        Returns:
            What it printed, and whether its time was over.

        Raises:
            DeviceLostError: the phone was lost, or it did not end although it was told to.
        """
        shell = self._shell(text, limit)
        waiting = anyio.CancelScope(shield=True)
        late, outcome = False, adbline.Printed(b"", b"")
        failure: errors.AibenchdError | None = None

        async def mind() -> None:
            nonlocal late
            try:
                await anyio.sleep(seconds)
                late = True
            finally:
                shell.poke()
                waiting.deadline = anyio.current_time() + ANSWER_SECONDS

        async def beat() -> None:
            while self.silence:
                await anyio.sleep(BEAT_SECONDS)
                shell.tell(supervising.SIGN_OF_LIFE)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mind)
            tasks.start_soon(beat)
            with waiting:  # until it has ended, whatever happens to the caller
                try:
                    outcome = await self._call("run", shell.run, seconds + 2 * ANSWER_SECONDS)
                except errors.AibenchdError as error:
                    failure = error
            tasks.cancel_scope.cancel()
        if waiting.cancelled_caught:
            failure = await self._lost("a program did not end although it was told to")
        if failure is not None:
            raise failure
        return outcome, late

    async def send(self, source: BinaryIO, size: int, target: str, mode: int) -> None:
        """Write a file of ``size`` bytes there.

        Raises:
            HarnessError: it refuses; DeviceLostError: it was lost.
        """
        work = functools.partial(adbline.send, serial=self.serial, source=source, target=target, mode=mode)
        await self._call(f"push to {target}", work, ANSWER_SECONDS + size / SLOWEST)

    async def receive(self, source: str, size: int, target: Path, limit: int) -> None:
        """Copy a file of about ``size`` bytes here.

        Raises:
            HarnessError: it refuses; DeviceLostError: it was lost.
        """
        work = functools.partial(adbline.receive, serial=self.serial, source=source, target=target, limit=limit)
        await self._call(f"pull of {source}", work, ANSWER_SECONDS + size / SLOWEST)

    async def service(self, name: str) -> None:
        """Ask a service of adb's own on the phone, such as ``reboot:``, after which its line breaks."""

        def work(client: adbline.Client) -> None:
            with client.opened(self.serial, name) as connection:
                while connection.conn.recv(adbline.CHUNK):
                    pass

        await self._call(name, work, ANSWER_SECONDS)

    @property
    def _server(self) -> str:
        return f"the adb server at {self._line.host}:{self._line.port}"

    def _shell(self, text: str, limit: int) -> adbline.Shell:
        return adbline.Shell(self.serial, text, limit, packets=self._packets)

    def _state(self, rows: list[tuple[str, str]]) -> str:
        states = [state for serial, state in rows if serial == self.serial]
        return (states[0] if len(states) == 1 else TWICE) if states else ABSENT

    async def _connect(self, state: str) -> str:
        """Connect one that has an address, after what is stale of it is gone; what the server says of it."""
        if state not in (ABSENT, "unauthorized"):
            await self._ask_server(lambda client: client.disconnect(self.serial))
            with anyio.move_on_after(SERVER_SECONDS):  # till then the server takes it for connected already
                while await self.state() != ABSENT:  # noqa: ASYNC110  the server tells when it is asked
                    await anyio.sleep(POLL_SECONDS)
        return await self._ask_server(lambda client: str(client.connect(self.serial)).strip(), CONNECT_SECONDS)

    async def _call(self, what: str, work: Callable[[adbline.Client], T], seconds: float) -> T:
        try:
            return await self._line.call(work, seconds)
        except adbline.RefusedError as error:
            raise errors.HarnessError(f"{self.name}: {what}: {error}") from error
        except adbline.LineError as error:
            raise await self._lost(f"{what}: {error}") from error

    async def _ask_server(self, work: Callable[[adbline.Client], T], seconds: float = 0) -> T:
        try:
            return await self._line.call(work, seconds or SERVER_SECONDS)
        except adbline.LineError as error:
            raise errors.DeviceLostError(
                f"{self.name}: {self._server} does not answer: {error}; start or restart it: {_restart()}"
            ) from error

    async def others(self) -> list[tuple[str, str]]:
        """Serials and states of all phones that the server knows of."""
        return await self._ask_server(lambda client: client.rows())

    async def _lost(self, seen: str) -> errors.DeviceLostError:
        """What is wrong, by what the server says of the phone now."""
        rows = await self.others()
        state = self._state(rows)
        if state == ABSENT:
            usable_first = sorted(rows, key=lambda row: row[1] != READY)
            others = ", ".join(f"{serial} ({state})" for serial, state in usable_first[:SHOWN]) or "none"
            advice = f"is not there; {self._server} sees {others}"
        else:
            advice = advice_on(state) or "was lost"
        return errors.DeviceLostError(f"{self.name}: {self.serial} {advice} ({seen})")


def advice_on(state: str) -> str:
    """What to do about a phone that is in a state; empty where nothing is known."""
    return next((text for begin, text in ADVICE.items() if state.startswith(begin)), "")


def quoted(*words: object) -> str:
    """Words for the phone's shell."""
    return shlex.join(map(str, words))
