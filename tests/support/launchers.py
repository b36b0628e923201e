"""Launchers as they are found in the field, and what tests run through them."""

import contextlib
import functools
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import pytest

from aibenchd.devices import base, launching

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
OTHER = {"user": "nobody", "group": "nogroup", "extra_groups": ()}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only it can run programs as another user")


@contextlib.contextmanager
def reachable_directory() -> Iterator[Path]:
    """One that other users can reach; pytest's own cannot be."""
    with tempfile.TemporaryDirectory(prefix="aibenchd-test-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@functools.cache
def python_of_all() -> str:
    """An interpreter that every user can run, as a package of the system's would be."""
    for program in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([program, "-IS", "-c", "import sys; assert sys.version_info >= (3, 11)"], check=True, **OTHER)
            return program
    pytest.skip("needs a Python of 3.11 or later that the user nobody can run, such as /usr/bin/python3")


@contextlib.contextmanager
def listening(
    path: Path, *arguments: str, source: str = launching.PROGRAM.read_text(), **user: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher behind a socket, as systemd starts it; ``user`` are options of Popen."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        program = path.with_name("launcher.py")
        program.write_text(source)  # our checkout may be closed to others
        python = python_of_all() if user else sys.executable
        process = subprocess.Popen(
            [python, "-IS", str(program), *arguments],
            stdin=server,
            pass_fds=[server.fileno()],  # systemd hands it over in both ways
            env={},
            **user,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def command(*argv: str, cwd: str | Path = "/", **more: Any) -> base.Command:
    return base.Command(argv, PurePosixPath(cwd), **{"env": ENV, "timeout": 60.0, **more})


def script(text: str, **more: Any) -> base.Command:
    return command(text, shell=True, **more)


def python(text: str, **more: Any) -> base.Command:
    return command("/usr/bin/python3", "-IS", "-c", text, **more)


async def until_gone(*pids: int) -> None:
    """Wait until no such process is left, not even as a zombie."""
    with anyio.fail_after(20):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await anyio.sleep(0.01)


async def until_written(path: Path) -> str:
    """Wait until a file holds a full line, and read it."""
    with anyio.fail_after(20):
        while not (path.exists() and path.read_text().endswith("\n")):
            await anyio.sleep(0.01)
    return path.read_text()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def own_launchers() -> set[int]:
    """Those that this process has started; it may have other children, a browser of other tests for one."""
    return {pid for pid in children(os.getpid()) if b"launcher.py" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def own_launcher() -> int:
    """The only one that this process has started."""
    (pid,) = own_launchers()
    return pid
