"""A daemon on another host, reached through the user's own ``ssh``: its configuration, keys and agent do, and nothing listens.

``ssh`` runs ``aibenchctl dial`` there, which carries bytes between its standard streams and the daemon's socket; so the daemon
sees the credentials of the user that ``ssh`` logs in as, and they decide what may be done. ``$AIBENCHD_SSH`` is what is run in
place of ``ssh``, such as ``ssh -F FILE``.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import socket
import subprocess
import sys

from aibenchd.api import call

NAME = r"[^\s@:/\[\]-][^\s@:/\[\]]*"  # nothing that ssh would take for an option
ADDRESS = re.compile(
    rf"ssh://(?:(?P<user>{NAME})@)?(?P<host>{NAME}|\[[0-9A-Fa-f:.%\w]+\])(?::(?P<port>\d{{1,5}}))?(?P<path>/.*)?"
)
INSTALLED = "/opt/aibenchd/bin"  # by 'make install': not on the PATH of a shell that no one logs in to
END_SECONDS = 5.0  # that ssh may take to say why it failed
NOT_THERE = 127  # how a shell, and env, say that there is no such program
NO_SSH = 255  # how ssh exits where it was not let in; other codes are of what it ran


class Daemon(call.Daemon):
    """The daemon of the host at ``ssh://[user@]host[:port][/path/of/its/socket]``."""

    def __init__(self, address: str, path: str | None) -> None:
        """``path`` is that of its socket, where it is not in the address and not the usual one.

        Raises:
            ValueError: the address is none.
        """
        self._ssh, in_address = words(address)
        self._address = address
        super().__init__(path or in_address)
        self._carrier: subprocess.Popen[bytes] | None = None

    def connected(self) -> socket.socket:
        """One end of a pair of sockets, whose other end ssh carries; that ssh did not get there shows once it is read.

        Raises:
            Unreachable: ssh cannot be run.
        """
        command = f'env PATH="$PATH:{INSTALLED}" aibenchctl {f"-s {shlex.quote(self.path)} " if self.path else ""}dial'
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._carrier = subprocess.Popen([*self._ssh, command], stdin=theirs.fileno(), stdout=theirs.fileno())
        except OSError as error:
            ours.close()
            raise call.Unreachable(f"ssh cannot be run: {error}; install OpenSSH's client") from None
        return ours

    def _look(self) -> str:
        """Where to look, once the connection has gone: ssh, and what it ran, have said why by themselves."""
        assert self._carrier is not None  # noqa: S101  there was a connection
        try:
            code = self._carrier.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._carrier.kill()
            code = self._carrier.wait()
        if code == NO_SSH:
            return f"ssh did not reach {self._address}: see what it says above"
        if code == NOT_THERE:
            return f"there is no aibenchctl on {self._address}: have it on the PATH that ssh gives there, or in {INSTALLED}"
        return f"'aibenchctl dial' ended with {code} on {self._address}: see what it says above"

    def _stranger(self) -> str:
        shell = "its shell must print nothing where no one logs in (~/.bashrc may), and -s name aibenchd's socket"
        return f"what comes first from {self._address} is not aibenchd's answer: {shell}"


def words(address: str) -> tuple[list[str], str]:
    """The command line of ``ssh`` but for what to run there, and the socket's path, which may be empty.

    Raises:
        ValueError: it is no such address.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"] or 22) < 1 << 16:
        raise ValueError(f"{address!r}: expected ssh://[USER@]HOST[:PORT][/PATH/OF/SOCKET]")
    options = [*(["-l", match["user"]] if match["user"] else []), *(["-p", match["port"]] if match["port"] else [])]
    try:
        program = shlex.split(os.environ.get("AIBENCHD_SSH", "ssh"))
    except ValueError as error:
        raise ValueError(f"AIBENCHD_SSH: cannot be split as a shell does: {error}") from None
    path = match["path"] or ""
    return [*program, "-T", *options, "--", match["host"].strip("[]")], "" if path == "/" else path


def dial(path: str) -> None:
    """Carry bytes between the standard streams and the daemon's socket, until the daemon, or who reads, has had enough.

    Raises:
        call.Unreachable: there is no daemon.
    """
    with call.Daemon(path).connected() as daemon:
        daemon.settimeout(None)
        reading: list[int] = [sys.stdin.fileno(), daemon.fileno()]
        while True:
            ready, _, _ = select.select(reading, [], [])
            if daemon.fileno() in ready:
                piece = _heard(daemon)
                if not piece:
                    return
                _write_all(sys.stdout.fileno(), piece)
            if sys.stdin.fileno() in ready:
                piece = os.read(sys.stdin.fileno(), call.PIECE)
                if not piece:
                    return  # who asked has gone
                try:
                    daemon.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):  # it hears no more of this: only its answer is left to carry
                    reading.remove(sys.stdin.fileno())


def _heard(daemon: socket.socket) -> bytes:
    try:
        return daemon.recv(call.PIECE)
    except ConnectionResetError:  # it did not read all that was sent
        return b""


def _write_all(descriptor: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]
