"""A real SSH server on loopback with a device of ours behind it, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import launchers
import pytest
import remotes

from aibenchd import digests
from aibenchd.devices import base, ssh

PROGRAM = Path("/usr/sbin/sshd")


class Sshd(remotes.Ssh):
    """A server that can be killed and frozen, with all the processes that serve its connections."""

    def __init__(self, directory: Path, *lines: str) -> None:
        if not PROGRAM.exists():
            pytest.skip("sshd is not installed (apt-get install openssh-server)")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it; its unit makes it
        super().__init__(directory, remotes.free_port())
        self.home = directory / "devices"
        self.host_key = directory / "host key"
        text = self.configuration.read_text().replace(
            "PasswordAuthentication no\n", "" if lines else "PasswordAuthentication no\n"
        )
        self.configuration.write_text("\n".join([*lines, text, "Subsystem sftp internal-sftp", "MaxStartups 1000", ""]))
        self.around: list[str] = []  # what starts the server, such as in a namespace
        self.address, self.namespace = "127.0.0.1", ""
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home.with_name("sshd.log")).open("ab") as log:
            self._server = subprocess.Popen([*self.around, *self.command], stdout=log, stderr=log)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
                return
            assert self._server.poll() is None, self.home.with_name("sshd.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill the server and what serves its connections; what ran there is left to itself."""
        if self._server:
            self.signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def signal(self, number: int) -> None:
        """To the server and all that serve its connections, but to no command that they run."""
        assert self._server is not None
        for pid in [self._server.pid, *self.serving()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def serving(self) -> list[int]:
        """Processes of the server that serve connections."""
        assert self._server is not None
        found, waiting = [], [self._server.pid]
        while waiting:
            for child in launchers.children(waiting.pop()):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().startswith("sshd"):
                        found.append(child)
                        waiting.append(child)
        return found

    def settings(self, name: str = "box", **more: Any) -> dict[str, Any]:
        """Of a device behind it, as the YAML file has them."""
        return {
            "name": name,
            "kind": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "key_file": str(self.key),
            "known_hosts_file": str(self.known_hosts),
            "directory": str(self.home / name),
            "minimum_free": "1MiB",
            "disturb_size": "1MiB",
            "connect_timeout": "60s",
            **more,
        }

    def device(self, name: str = "box", **more: Any) -> ssh.Ssh:
        settings = ssh.Settings.model_validate(self.settings(name, **more))
        return ssh.Ssh(settings, self.home.with_name("state") / name, base.RunSettings())

    def supervisor(self, name: str = "box") -> int:
        """The process that works in a device's directory, or worked there last."""
        return int((self.home / name / "lock").read_text())

    def fingerprint(self, key: Path | None = None) -> str:
        """Of its host key, or another, as ssh-keygen prints it."""
        listed = subprocess.run(["ssh-keygen", "-lf", str(key or self.host_key)], check=True, capture_output=True, text=True)
        return listed.stdout.split()[1]


@contextlib.contextmanager
def running(directory: Path, *lines: str) -> Iterator[Sshd]:
    """A server that runs within; ``lines`` go before its configuration."""
    server = Sshd(directory, *lines)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Wire:
    """Carries connections to a port of this host, until it is told otherwise.

    Attributes:
        port: where it listens.
        carried: bytes that went either way.
        cut_at: so many bytes, after which it is cut.
    """

    def __init__(self, to: int) -> None:
        self.port, self.carried = 0, 0
        self.cut_at: float = float("inf")
        self._to, self._connections = to, set[asyncio.StreamWriter]()
        self._flows = asyncio.Event()
        self._flows.set()
        self._takes = True

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Both ends are told, as where a cable's end is pulled out of the machine; and it takes none until mended."""
        self._takes = False
        self.cut_at = float("inf")
        for connection in self._connections:
            connection.transport.abort()

    def stall(self) -> None:
        """Nothing passes, and nobody is told."""
        self._flows.clear()

    def mend(self) -> None:
        self._takes = True
        self._flows.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._takes:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._connections |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            for end in (writer, back):
                self._connections.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 14):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
                self.carried += len(data)
                if self.carried >= self.cut_at:
                    self.cut()
        writer.transport.abort()


def file(path: Path, data: bytes, mode: int = 0o644) -> base.Push:
    """A file that is made, to be pushed."""
    path.write_bytes(data)
    path.chmod(mode)
    return base.Push(path, digests.of_file(path), path.name)
