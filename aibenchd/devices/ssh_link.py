"""A supervisor on a device at the other end of an SSH channel: what is asked of it, and what comes back.

See ``remote_supervisor.py`` for what is said.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import asyncssh

from aibenchd import errors

PROGRAM = Path(__file__).with_name("remote_supervisor.py")
# Any login shell can read it; nothing of ours follows the program before it has said who it is.
BOOTSTRAP = (
    'import sys; i = sys.stdin.buffer; s = i.read(int(i.readline())); sys.version_info < (3, 6) and sys.exit("too old");'
    ' exec(compile(s, "supervisor", "exec"))'
)
STOP_DEADLINE = 15.0  # seconds
STRAY_BOUND = 64 << 10  # bytes that a login shell may print before the supervisor does
ANSWER_BOUND = 1 << 30  # bytes
NOT_FOUND = 127  # a shell's exit status
REPLACED = 75  # the supervisor's


@dataclass(frozen=True, slots=True)
class Answer:
    """Facts, and the bytes that came with them."""

    facts: Mapping[str, Any]
    payloads: tuple[bytes, ...]


class _Stream(asyncssh.SSHClientSession[bytes]):
    """What comes back, as it comes."""

    def __init__(self) -> None:
        self.data, self.said = bytearray(), bytearray()
        self.ended, self.status = False, -1
        self.heard = anyio.current_time()
        self._bell = anyio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        (self.said if datatype else self.data).extend(data)
        del self.said[:-STRAY_BOUND]
        self._ring()

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal: str, _core_dumped: bool, _message: str, _language: str) -> None:
        self.said += f"killed by SIG{signal}".encode()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if exc:
            self.said += str(exc).encode()
        self._ring()

    async def more(self) -> None:
        """Wait for something new."""
        await self._bell.wait()
        if not self.ended:
            self._bell = anyio.Event()

    def _ring(self) -> None:
        self.heard = anyio.current_time()
        self._bell.set()


class Link:
    """One supervisor, asked one thing at a time. Once it is lost it stays lost, and its connection is closed.

    Attributes:
        greeting: what it said of itself and its device when it began.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, keepalive: float, lost_after: float) -> None:
        self.connection = connection
        self.greeting: Mapping[str, Any] = {}
        self._keepalive, self._lost_after = keepalive, lost_after
        self._channel: asyncssh.SSHClientChannel[bytes]
        self._stream: _Stream
        self._lost = ""
        self._number = 0
        self._first: list[dict[str, Any]] = []

    async def start(self, python: str, program: bytes, within: float) -> None:
        """Have the supervisor begin, within so many seconds.

        Raises:
            DeviceLostError: it cannot; the message says what to do.
        """
        command = f"exec env LC_ALL=C.UTF-8 {shlex.quote(python)} -IS -c {shlex.quote(BOOTSTRAP)}"
        try:
            with anyio.fail_after(within):
                self._channel, stream = await self.connection.create_session(_Stream, command, encoding=None)
                self._stream = stream  # type: ignore[assignment]
                self._channel.write(b"%d\n%b" % (len(program), program))
                self.greeting = (await self._next()).facts
        except TimeoutError:
            raise self.lose(f"no supervisor has begun there within {within:g} s; is it very busy?") from None
        except (asyncssh.Error, OSError) as error:
            raise self.lose(f"the server starts no command: {error}") from error

    async def ask(self, verb: str, within: float, **arguments: Any) -> Answer:
        """Have something done, after what was asked for :meth:`before <before>` it; ``within`` seconds, or it is lost.

        Cancelled, it has a program killed and returns when nothing of it is left.

        Raises:
            CommandError: it cannot be done whoever tries.
            HarnessError: it could not be done now.
            DeviceLostError: nothing comes back any more.
        """
        self._number += 1
        calls = [*self._first, {"verb": verb, **arguments}]
        self._first = []
        self._send({"id": self._number, "calls": calls})
        self._stream.heard = anyio.current_time()  # its silence while nobody asked is none
        answered = False
        try:
            with anyio.fail_after(within):
                answer = await self._next()
            answered = True
        except TimeoutError:
            raise self.lose(f"it did not answer within {within:.0f} s ({verb})") from None
        finally:
            if not answered and not self._lost:
                await self._cancel()
        return _checked(answer)

    def before(self, verb: str, **arguments: Any) -> None:
        """Have something done right before what is asked next, which fails where this does: it saves a round trip."""
        self._first.append({"verb": verb, **arguments})

    def lose(self, reason: str) -> errors.DeviceLostError:
        """Give it up: whatever it runs is killed as the connection ends."""
        if not self._lost:
            self._lost = reason
            self.connection.abort()
        return errors.DeviceLostError(self._lost)

    async def close(self) -> None:
        """Have it end in order."""
        if not self._lost:
            self._lost = "the session is over"
            self._channel.write_eof()
            with anyio.move_on_after(STOP_DEADLINE, shield=True):
                await self._channel.wait_closed()

    def check(self) -> None:
        """Raises DeviceLostError where it is lost."""
        if self._lost:
            raise errors.DeviceLostError(self._lost)

    async def _cancel(self) -> None:
        with anyio.move_on_after(STOP_DEADLINE, shield=True) as stopping:
            try:
                self._send({"cancel": self._number})
                await self._next()
            except errors.DeviceLostError:
                return
        if stopping.cancelled_caught:
            self.lose(f"what was cancelled did not end within {STOP_DEADLINE:.0f} s")

    def _send(self, request: Mapping[str, Any]) -> None:
        self.check()
        try:
            self._channel.write(json.dumps(request).encode() + b"\n")
        except (asyncssh.Error, OSError) as error:  # which say no more than that it is closed
            raise self.lose(self._ending()) from error

    async def _next(self) -> Answer:
        """The next answer that is not a sign of life. Cancelled, it takes nothing of one: the next call finds all of it."""
        while True:
            line = await self._line()
            try:
                facts = json.loads(line)
            except ValueError:
                raise self.lose(f"its supervisor is not understood: {line[:80]!r}") from None
            ends = list(itertools.accumulate(facts.pop("sizes", ()), initial=len(line) + 1))
            await self._more(ends[-1])
            with memoryview(self._stream.data) as data:
                payloads = tuple(bytes(data[begin:end]) for begin, end in itertools.pairwise(ends))
            del self._stream.data[: ends[-1]]
            if "pong" not in facts:
                return Answer(facts, payloads)

    async def _line(self) -> bytes:
        """A line of ours, which stays where it is; what a login shell prints before the first one is passed over."""
        searched = 0
        while True:
            while (end := self._stream.data.find(b"\n", searched)) < 0:
                searched = len(self._stream.data)
                await self._more(searched + 1)
            line = bytes(self._stream.data[:end])
            if self.greeting or line.startswith(b'{"'):
                return line
            del self._stream.data[: end + 1]
            searched = 0

    async def _more(self, size: int) -> None:
        """Wait until so many bytes are there; raises DeviceLostError where nothing comes."""
        while len(self._stream.data) < size:
            if self._stream.ended:
                raise self.lose(self._ending()).at(*() if self.greeting else ("python",))
            with anyio.move_on_after(self._keepalive) as waiting:
                await self._stream.more()
            if waiting.cancelled_caught and self.greeting:  # an interpreter may take long to start
                if anyio.current_time() > self._stream.heard + self._lost_after:
                    raise self.lose(f"nothing has come from it for {self._lost_after:g} s")
                self._send({"ping": 1})

    def _ending(self) -> str:
        said = self._stream.said.decode(errors="replace").strip().rpartition("\n")[2][-300:]
        if self.greeting and self._stream.status == REPLACED:
            return (
                "a newer session in the same directory ended this one: another daemon, or another device of this daemon,"
                " works there; give each a directory of its own"
            )
        if self.greeting:
            look = "see whether it is on, and what its SSH server logged, such as by 'journalctl -u ssh'"
            return f"its supervisor ended, or the connection to it{': ' if said else ''}{said}; {look}"
        if self._stream.status == NOT_FOUND:
            return f"it has no Python: {said}; install one there (apt-get install python3), or say where it is with `python`"
        return f"no supervisor can be started there, which needs Python 3.6: {said or f'exit code {self._stream.status}'}"


def _checked(answer: Answer) -> Answer:
    if "refusal" in answer.facts:
        raise errors.CommandError(answer.facts["refusal"])
    if "fault" in answer.facts:
        raise errors.HarnessError(answer.facts["fault"])
    return answer
