"""HTTP over the daemon's Unix socket, in as little code as that takes: the client starts faster than http.client imports."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 90.0  # a little more than the daemon gives itself
PIECE = 64 << 10  # bytes
HEAD_LIMIT = 64 << 10  # bytes
ROOT = "root"  # the group of a socket that a daemon of root's made, where status.group names none


class Unreachable(Exception):  # noqa: N818  the word says it
    """No daemon answers; the message says what to do."""


class Refused(Exception):  # noqa: N818
    """The daemon answers, and will not do it; the message says why, and what to do. ``code`` is HTTP's.

    ``retry_after`` is in how many seconds it may do it, where it says; else None.
    """

    def __init__(self, code: int, message: str, retry_after: int | None = None) -> None:
        self.code, self.retry_after = code, retry_after
        super().__init__(message)


def default_socket() -> str:
    """$AIBENCHD_SOCKET, else the system's daemon, else the user's own."""
    system, *own = _usual()
    if "AIBENCHD_SOCKET" in os.environ:
        return os.environ["AIBENCHD_SOCKET"]
    if own and not os.path.exists(system):
        return own[0]
    return system


class Daemon:
    """The daemon at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, target: str) -> Any:
        """What the body's JSON says; errors as of :meth:`stream`."""
        return json.loads(self.get_raw(target))

    def get_raw(self, target: str) -> bytes:
        """The body as it was sent."""
        return b"".join(self.stream("GET", target))

    def post(self, target: str, body: dict[str, Any] | None = None, seconds: float = ANSWER_SECONDS) -> bytes:
        """The answer's body; ``body`` is sent as JSON, ``seconds`` and errors are those of :meth:`stream`."""
        return b"".join(self.stream("POST", target, json.dumps(body or {}).encode(), seconds))

    def put(self, target: str, pieces: Iterable[bytes], size: int, kind: str) -> bytes:
        """Send what is too large to be held: ``size`` bytes of a type, as HTTP names it. The answer; errors of :meth:`stream`."""
        return b"".join(self._answer("PUT", target, pieces, size, ANSWER_SECONDS, kind))

    def stream(self, method: str, target: str, body: bytes = b"", seconds: float = ANSWER_SECONDS) -> Iterator[bytes]:
        """An answer's body, piece by piece.

        Args:
            seconds: without a byte, after which the daemon is taken for dead.

        Raises:
            Unreachable: it does not answer, or stops in the middle.
            Refused: it answers with an error.
        """
        return self._answer(method, target, (body,), len(body), seconds)

    def _answer(
        self, method: str, target: str, pieces: Iterable[bytes], size: int, seconds: float, kind: str = "application/json"
    ) -> Iterator[bytes]:
        """As :meth:`stream`, to a body of ``size`` bytes.

        Raises:
            Unreachable: it does not answer, or stops in the middle.
            Refused: it answers with an error.
        """
        with self.connected() as connection:
            connection.settimeout(seconds)
            try:
                # By HTTP/1.0 the body ends where the connection does, and comes in no chunks.
                head = f"{method} {target} HTTP/1.0\r\nHost: aibenchd\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
                _send(connection, head.encode(), pieces)
                status, fields, rest = _head(connection)
                length = _number(fields, b"content-length") or 0
                received = _pieces(connection, rest)
                if status >= 400:
                    raise _refusal(status, _whole(received, length), _number(fields, b"retry-after"))
                for piece in received:
                    length -= len(piece)
                    yield piece
            except _NotHttpError:
                raise Unreachable(self._stranger()) from None
            except TimeoutError:
                raise Unreachable(f"aibenchd does not answer within {seconds:g} s; {self._look()}") from None
            except ConnectionError:
                raise Unreachable(f"the connection was closed; {self._look()}") from None
            if length > 0:
                raise Unreachable(f"aibenchd broke off in the middle of its answer; {self._look()}")

    def connected(self) -> socket.socket:
        """A connection to its socket.

        Raises:
            Unreachable: there is none.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(self.path)
        except (OSError, ValueError) as error:
            connection.close()
            raise Unreachable(_why(self.path, error)) from None
        return connection

    def _look(self) -> str:
        """Where to look, where a connection has gone."""
        return _look(self.path)

    def _stranger(self) -> str:
        """What to say of an answer that is none of aibenchd's."""
        return "what answers on this socket is not aibenchd; -s names another one"


class _NotHttpError(Exception):
    """An answer is no HTTP."""


def quoted(text: str) -> str:
    """``text`` as one part of a path or query."""
    return "".join(
        chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in "-._~") else f"%{byte:02X}"
        for byte in text.encode(errors="surrogateescape")
    )


def target(path: str, query: dict[str, Any]) -> str:
    """A path with those parameters that are not None."""
    pairs = [f"{name}={quoted(str(value))}" for name, value in query.items() if value is not None]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def _send(connection: socket.socket, head: bytes, pieces: Iterable[bytes]) -> None:
    """All of it, or as much as the daemon wants to hear: one that refuses what is sent answers before all has come."""
    try:
        connection.sendall(head)
        for piece in pieces:
            if select.select([connection], [], [], 0)[0]:
                return
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        return  # its answer is there to be read, if it gave one


def _head(connection: socket.socket) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, fields by their names in small letters, and what of the body came along."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(PIECE)
        if not piece or len(received) > HEAD_LIMIT:
            raise ConnectionError
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/"):
        raise _NotHttpError
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    try:
        return int(first.split()[1]), fields, rest
    except (IndexError, ValueError):
        raise _NotHttpError from None


def _number(fields: dict[bytes, bytes], name: bytes) -> int | None:
    try:
        return int(fields[name]) if name in fields else None
    except ValueError:
        raise _NotHttpError from None


def _pieces(connection: socket.socket, first: bytes) -> Iterator[bytes]:
    if first:
        yield first
    while piece := connection.recv(PIECE):
        yield piece


def _whole(pieces: Iterable[bytes], length: int) -> bytes:
    """The body of a refusal; the daemon keeps the connection open for a while, as it listens for what it has refused."""
    body = b""
    for piece in pieces:
        body += piece
        if len(body) >= length > 0:
            break
    return body


def _refusal(status: int, body: bytes, retry_after: int | None) -> Refused:
    try:
        answer = json.loads(body)
        error, hint = str(answer["error"]), str(answer.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Refused(status, f"aibenchd answers with {status}", retry_after)
    faults = "".join(f"\n  {fault}" for fault in answer.get("faults", ()))
    return Refused(status, (f"{error}; {hint}" if hint else error) + faults, retry_after)


def _why(path: str, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: you may not use this socket; {_key_to(path)}"
    if isinstance(error, FileNotFoundError):
        return f"{path}: aibenchd does not run there; start it with '{_start(path)}', or name its socket with -s"
    if isinstance(error, ConnectionRefusedError):
        return f"{path}: aibenchd does not run any more; {_look(path)}, and start it with '{_start(path)}'"
    return f"{path}: cannot reach aibenchd: {error}"


def _usual() -> list[str]:
    """Where the system's daemon is, and the user's own: a daemon that is elsewhere is nobody's service."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    system = "/run/aibenchd/aibenchd.sock"
    return [system, os.path.join(runtime, "aibenchd", "aibenchd.sock")] if runtime else [system]


def _start(path: str) -> str:
    return "systemctl start aibenchd" if path in _usual() else "aibenchd serve CONFIG"


def _look(path: str) -> str:
    return "see 'journalctl -u aibenchd'" if path in _usual() else "see what it printed"


def _key_to(path: str) -> str:
    import grp

    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "ask to be added to the group that owns its directory"
    if group == ROOT:
        return "it is root's alone: have the daemon set status.group to a group of yours, or ask as root"
    return f"ask to be added to the group {group}, such as by 'usermod --append --groups {group} USER'"
