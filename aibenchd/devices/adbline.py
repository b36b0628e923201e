"""Calls of an adb server: each in a worker thread, each with a deadline at which its sockets are shut, which frees the thread.

The server is another's: it is never started here, and never stopped.
"""

from __future__ import annotations

import contextlib
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import adbutils  # type: ignore[import-untyped]
import anyio
import anyio.lowlevel
import anyio.to_thread

from aibenchd.devices import beneath

T = TypeVar("T")

CHUNK = 64 << 10  # bytes of one message when files are sent; the protocol's most
CONNECT_SECONDS = 3.0
PACKET_BOUND = 16 << 20  # bytes; a longer packet of a shell's output is garbage
STDIN, STDOUT, STDERR, EXIT = 0, 1, 2, 3  # kinds of packets of the shell protocol
PACKET = struct.Struct("<BI")
ORDER = struct.Struct("<4sI")  # of the file protocol
AT_ONCE = 4  # threads for one device
MODERN = 41  # version of the server, from which a device is asked for by its serial alone
BROKEN = (adbutils.AdbError, OSError, EOFError, ValueError, struct.error, AssertionError, IndexError)  # adbutils checks little


class LineError(Exception):
    """A call did not come to its end; the message says what was seen of it."""


class RefusedError(Exception):
    """The device answered that it will not; the message is its own."""


class Connection(adbutils.AdbConnection):  # type: ignore[misc]
    """To the server that is there; where none is, that is an error, and adbutils would start one."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        super().__init__(host, port)

    def _safe_connect(self) -> socket.socket:
        connected = socket.create_connection(self._where, CONNECT_SECONDS)
        connected.settimeout(None)
        return connected

    def close(self) -> None:
        """At once: adbutils first waits."""
        self.conn.close()


class Client(adbutils.AdbClient):  # type: ignore[misc]
    """For one call. What it has open can be shut by another thread, and then nothing more is opened."""

    def __init__(self, host: str, port: int, version: int = 0) -> None:
        super().__init__(host, port)
        self._version = version
        self._opened: list[socket.socket] = []
        self._aborted = False

    def make_connection(self, timeout: float | None = None) -> Connection:  # noqa: ARG002  a deadline ends it from outside
        """For one call of adbutils; it is shut at once where :meth:`abort` was called before.

        Raises:
            OSError: no server answers there.
        """
        connection = Connection(self.host, self.port)
        self._opened.append(connection.conn)
        if self._aborted:
            self.abort()
        return connection

    def server_version(self) -> int:
        """Asked for only once for a device: adbutils would for every call."""
        return self._version or int(super().server_version())

    def abort(self) -> None:
        """Whoever waits for it now, or will, gets an error."""
        self._aborted = True
        for one in self._opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """All that is still open: adbutils leaves what failed open."""
        for one in self._opened:
            one.close()

    def rows(self) -> list[tuple[str, str]]:
        """Serials and states of all devices that the server knows of."""
        with self.make_connection() as connection:
            connection.send_command("host:devices")
            connection.check_okay()
            rows = (line.partition("\t") for line in connection.read_string_block().splitlines())
            return [(serial, state.strip()) for serial, _, state in rows if serial]

    def reconnect(self, serial: str) -> None:
        """Have the server drop its line to a device, and find it again."""
        self.device(serial).open_transport("reconnect").close()

    @contextlib.contextmanager
    def opened(self, serial: str, service: str) -> Iterator[adbutils.AdbConnection]:
        """A service of the device."""
        with self.device(serial).open_transport() as connection:
            connection.send_command(service)
            connection.check_okay()
            yield connection


class Line:
    """The server, for one device. Made new for each session."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.version = 0
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def call(self, work: Callable[[Client], T], seconds: float) -> T:
        """What ``work`` returns.

        Raises:
            LineError: it did not, or not within ``seconds``.
        """
        client = Client(self.host, self.port, self.version)
        outcome: list[T | BaseException] = []

        def kept() -> None:
            try:
                outcome.append(work(client))
            except BaseException as error:  # noqa: BLE001  raised again where it is waited for
                outcome.append(error)
            finally:
                client.close()

        late = False

        async def free() -> None:
            nonlocal late
            try:
                await anyio.sleep(seconds)
                late = True
            finally:
                client.abort()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(free)
            await anyio.to_thread.run_sync(kept, limiter=self._limiter)
            tasks.cancel_scope.cancel()
        (result,) = outcome
        if isinstance(result, BROKEN):
            await anyio.lowlevel.checkpoint_if_cancelled()  # of one that was cancelled this is no fault
            raise LineError(f"no answer within {seconds:.0f} s" if late else _said(result)) from result
        if isinstance(result, BaseException):
            raise result
        return result


def _said(broken: Exception) -> str:
    """Without the number that the kernel has for it."""
    return (broken.strerror if isinstance(broken, OSError) else None) or str(broken) or type(broken).__name__


class Kept:
    """What is kept of a stream: the first half of ``limit`` bytes and the last half."""

    def __init__(self, limit: int) -> None:
        self._half, self._limit = limit // 2, limit
        self._head, self._tail, self._total = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        """More of it."""
        self._total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._limit:
            del self._tail[: -(self._limit - self._half)]

    def __bytes__(self) -> bytes:
        if self._total <= self._limit:
            return bytes(self._head + self._tail)
        note = f"\n[{self._total - self._limit} bytes cut here]\n".encode()
        return bytes(self._head) + note + bytes(self._tail[-(self._limit - self._half) :])


@dataclass(frozen=True, slots=True)
class Printed:
    """What a shell's command printed; ``stderr`` is empty where the device cannot tell the two apart."""

    stdout: bytes
    stderr: bytes


class Shell:
    """One command of a device's shell: :meth:`run` in a thread, :meth:`poke` from any other.

    A device that does not know the shell protocol runs it on a terminal, its outputs together.
    """

    def __init__(self, serial: str, text: str, limit: int, *, packets: bool) -> None:
        self._serial, self._text, self._limit = serial, text, limit
        self._packets = packets
        self._socket: socket.socket | None = None
        self._poked = False

    def run(self, client: Client) -> Printed:
        """Run it to its end. Blocking.

        Raises:
            EOFError, OSError, ValueError, adbutils.AdbError: the device was lost, or sent what is no answer.
        """
        with client.opened(self._serial, f"{'shell,v2,raw' if self._packets else 'shell'}:{self._text}") as connection:
            self._socket = connection.conn
            if self._poked:
                self.poke()
            return self._read_packets(connection) if self._packets else self._read_all(connection)

    def poke(self) -> None:
        """Give it a line on its standard input. Never blocks."""
        self._poked = True
        self.tell(b"\n")

    def tell(self, line: bytes) -> None:
        """Give it a line where it has begun; a terminal shows it among the outputs. Never blocks."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                data = PACKET.pack(STDIN, len(line)) + line if self._packets else line
                self._socket.send(data, socket.MSG_DONTWAIT)

    def _read_packets(self, connection: adbutils.AdbConnection) -> Printed:
        kept = {STDOUT: Kept(self._limit), STDERR: Kept(self._limit)}
        while True:
            kind, length = PACKET.unpack(connection.read_exact(PACKET.size))
            if kind not in (STDOUT, STDERR, EXIT) or length > PACKET_BOUND:
                raise ValueError(f"the device sent garbage: a packet of the kind {kind}, {length} bytes long")
            data = connection.read_exact(length)
            if kind == EXIT:
                return Printed(bytes(kept[STDOUT]), bytes(kept[STDERR]))
            kept[kind].add(data)

    def _read_all(self, connection: adbutils.AdbConnection) -> Printed:
        kept = Kept(self._limit)
        while data := connection.conn.recv(CHUNK):
            kept.add(data)
        return Printed(bytes(kept).replace(b"\r\n", b"\n"), b"")


def send(client: Client, serial: str, source: BinaryIO, target: str, mode: int) -> None:
    """Write a file on a device. Blocking.

    Raises:
        RefusedError: it cannot be written there.
    """
    with client.opened(serial, "sync:") as connection:
        try:
            _order(connection, b"SEND", f"{target},{stat.S_IFREG | mode}".encode())
            while data := source.read(CHUNK):
                _order(connection, b"DATA", data)
            connection.conn.sendall(ORDER.pack(b"DONE", int(time.time())))
        except (BrokenPipeError, ConnectionResetError):
            pass  # why, it may have said before it hung up
        answer, length = ORDER.unpack(connection.read_exact(ORDER.size))
        if answer == b"FAIL":
            raise RefusedError(connection.read_exact(min(length, CHUNK)).decode(errors="replace"))
        if answer != b"OKAY":
            raise ValueError(f"the device sent garbage in answer to a file: {answer!r}")


def receive(client: Client, serial: str, source: str, target: Path, limit: int) -> None:
    """Copy a file of a device to ``target``, which has either all of it or what it had before. Blocking.

    Raises:
        RefusedError: it cannot be read, or has more than ``limit`` bytes.
    """
    size = 0
    with client.opened(serial, "sync:") as connection, beneath.landing(target) as file:
        _order(connection, b"RECV", source.encode())
        while True:
            answer, length = ORDER.unpack(connection.read_exact(ORDER.size))
            if answer == b"DONE":
                return
            if answer not in (b"DATA", b"FAIL") or length > CHUNK:
                raise ValueError(f"the device sent garbage in place of a file: {answer!r}")
            data = connection.read_exact(length)
            if answer == b"FAIL":
                raise RefusedError(data.decode(errors="replace"))
            size += length
            if size > limit:
                raise RefusedError(f"it has more than {limit} bytes")
            file.write(data)


def _order(connection: adbutils.AdbConnection, name: bytes, data: bytes) -> None:
    connection.conn.sendall(ORDER.pack(name, len(data)) + data)
