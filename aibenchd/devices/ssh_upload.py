"""Files to and from a device over SFTP. Files of this host are read and written in worker threads."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import cast

import anyio
import anyio.to_thread
import asyncssh

from aibenchd import errors
from aibenchd.devices import pushed

AT_ONCE = 8  # files of a directory
CHUNK = 1 << 20  # bytes under way of one file


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
        async with await anyio.open_file(partial, "xb") as file, sftp.open(source, "rb", encoding=None) as remote:
            left = size
            while left and (data := cast("bytes", await remote.read(min(left, CHUNK)))):
                alive()
                await file.write(data)
                left -= len(data)
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

    try:
        async with anyio.create_task_group() as tasks:
            for file in files:
                tasks.start_soon(one, file)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _put_file(sftp: asyncssh.SFTPClient, source: Path, target: PurePosixPath, alive: Callable[[], None]) -> None:
    mode = (await anyio.to_thread.run_sync(source.stat)).st_mode
    if not stat.S_ISREG(mode):
        raise errors.CommandError(f"{source}: neither a file nor a directory, and cannot be pushed")
    permissions = 0o700 if mode & 0o111 else 0o600
    async with (
        await anyio.open_file(source, "rb") as file,
        sftp.open(str(target), "xb", asyncssh.SFTPAttrs(permissions=permissions), encoding=None) as remote,
    ):
        while data := await file.read(CHUNK):
            await remote.write(data)
            alive()
