"""Files to and from a device over SFTP. Files of this host are read and written in worker threads.

The blocks of a file that are under way together are tasks of ours: asyncssh's own outlive a transfer that is cancelled.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import cast

import anyio
import anyio.abc
import anyio.to_thread
import asyncssh

from aibenchd import errors
from aibenchd.devices import pushed

AT_ONCE = 8  # files of a directory
UNDER_WAY = 2 << 20  # bytes of a file: as many as asyncssh and OpenSSH let a channel have on its way
BLOCK = 256 << 10  # bytes at most, where the server takes and gives as many at once: OpenSSH 255 KiB


async def put(sftp: asyncssh.SFTPClient, source: Path, target: PurePosixPath, alive: Callable[[], None]) -> None:
    """Send a file, or a directory with all that is in it, to where nothing is yet.

    Args:
        alive: called whenever the device has taken something.

    Raises:
        CommandError: a link in it leads out of it, or it holds what is no file.
        OSError: it cannot be read.
        asyncssh.Error: it cannot be written, or the connection broke.
    """
    if not await anyio.to_thread.run_sync(source.is_dir):
        await _put_file(sftp, source, target, alive)
        return
    files: list[Path] = []
    await sftp.mkdir(str(target))
    for entry in await anyio.to_thread.run_sync(lambda: list(pushed.entries(source))):
        place = target / entry.relative_to(source)
        if entry.is_symlink():
            await sftp.symlink(str(pushed.inside(source, entry)), str(place))
        elif entry.is_dir():
            await sftp.mkdir(str(place))
        else:
            files.append(entry)
        alive()
    await _put_files(sftp, source, target, files, alive)


async def get(sftp: asyncssh.SFTPClient, source: str, target: Path, size: int, alive: Callable[[], None]) -> None:
    """Copy ``size`` bytes of a file to ``target``, which has either all of them or what it had before.

    Args:
        alive: called whenever the device has given something.

    Raises:
        OSError: it cannot be written here.
        asyncssh.Error: it cannot be read, or the connection broke.
    """
    partial = target.with_name(f".{target.name}.partial")
    await anyio.to_thread.run_sync(lambda: partial.unlink(missing_ok=True))
    try:
        async with await anyio.open_file(partial, "xb") as file, sftp.open(source, "rb", encoding=None, block_size=0) as remote:

            async def fetch(begin: int, length: int) -> None:
                while length and (data := cast("bytes", await remote.read(length, begin))):
                    await anyio.to_thread.run_sync(_write, file.wrapped.fileno(), data, begin)
                    alive()
                    begin, length = begin + len(data), length - len(data)

            await _in_blocks(size, sftp.limits.max_read_len, fetch)
        await anyio.to_thread.run_sync(partial.replace, target)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: partial.unlink(missing_ok=True))


async def _put_files(
    sftp: asyncssh.SFTPClient, source: Path, target: PurePosixPath, files: list[Path], alive: Callable[[], None]
) -> None:
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(file: Path) -> None:
        async with limiter:
            await _put_file(sftp, file, target / file.relative_to(source), alive)

    async with _tasks() as tasks:
        for file in files:
            tasks.start_soon(one, file)


async def _put_file(sftp: asyncssh.SFTPClient, source: Path, target: PurePosixPath, alive: Callable[[], None]) -> None:
    found = await anyio.to_thread.run_sync(source.stat)
    if not stat.S_ISREG(found.st_mode):
        raise errors.CommandError(f"{source}: neither a file nor a directory, and cannot be pushed")
    permissions = asyncssh.SFTPAttrs(permissions=0o700 if found.st_mode & 0o111 else 0o600)
    async with (
        await anyio.open_file(source, "rb") as file,
        sftp.open(str(target), "xb", permissions, encoding=None, block_size=0) as remote,
    ):

        async def send(begin: int, length: int) -> None:
            data = await anyio.to_thread.run_sync(os.pread, file.wrapped.fileno(), length, begin)
            await remote.write(data, begin)
            alive()

        await _in_blocks(found.st_size, sftp.limits.max_write_len, send)


def _write(descriptor: int, data: bytes, begin: int) -> None:
    """All of it: where there is room for a part only, that is all that one call writes, and it does not complain."""
    while data:
        written = os.pwrite(descriptor, data, begin)
        data, begin = data[written:], begin + written


async def _in_blocks(size: int, block: int, move: Callable[[int, int], Awaitable[None]]) -> None:
    """Move ``size`` bytes by calls that are given where a block begins and how long it is, several of them under way."""
    block = min(block, BLOCK)
    begins = iter(range(0, size, block))

    async def some() -> None:
        for begin in begins:
            await move(begin, min(block, size - begin))

    async with _tasks() as tasks:
        for _ in range(math.ceil(min(size, UNDER_WAY) / block)):
            tasks.start_soon(some)


@contextlib.asynccontextmanager
async def _tasks() -> AsyncIterator[anyio.abc.TaskGroup]:
    """A task group that raises what the first of its tasks failed with."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
