"""Whether this host lets us do what a device's configuration asks, found out without doing it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio.to_thread

from aibenchd import errors
from aibenchd.devices import base, cpufreq, helping

PING = b'{"verb": "read-energy"}'  # of a helper's verbs, one that changes nothing


def look_at_room(directory: Path, least: int) -> None:
    """See that so many bytes are free at a directory, or where it would be made. Blocking.

    Raises:
        HarnessError: they are not.
    """
    # Path.exists would raise where we may not look.
    place = next(path for path in (directory, *directory.parents) if os.path.exists(path))  # noqa: PTH110
    free = shutil.disk_usage(place).free
    if free < least:
        raise errors.HarnessError(
            f"{free} bytes are free at {directory}, fewer than minimum_free ({least}); free some, or lower store_size"
        ).at("minimum_free")


async def look_at_helper(helper: Path) -> None:
    """See that a helper answers.

    Raises:
        HarnessError: it does not.
    """
    with errors.about("helper"):
        await helping.ask(helper, PING)


def look_at_directory(directory: Path) -> None:
    """See that a directory is one that we can work in, or could be made. Blocking.

    Raises:
        HarnessError: it is neither.
    """
    place = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryDirectory(prefix=".aibenchd-", dir=place):  # /proc and the like refuse root too
            pass
    except OSError as error:
        what = "cannot be written to" if place == directory else f"cannot be made: {place} takes no new directory"
        reason = f"directory: {directory} {what}: {error.strerror}; name another"
        raise errors.HarnessError(reason).at("directory") from error


async def look_at_changes(changes: Sequence[base.Change], helper: Path | None, root: Path) -> None:
    """See that governor and frequency may be changed: by a helper, or by this process where there is none.

    Raises:
        CommandError: they may not.
    """
    wanted = [change.do for change in changes if change.do.get("verb") in cpufreq.VERBS]
    if wanted and helper is not None:
        try:
            await look_at_helper(helper)
        except errors.HarnessError as error:
            raise errors.CommandError(str(error)) from error
    elif wanted:
        closed = await anyio.to_thread.run_sync(lambda: next(_closed(wanted, root), None))
        if closed:
            raise errors.CommandError(
                f"{closed} cannot be written to: only root may; start aibenchd-helper.socket, and name it as the device's helper"
            )


def _closed(wanted: Sequence[base.Action], root: Path) -> Iterator[Path]:
    """The kernel's files that are to be written to, and that we may not write to."""
    for action in wanted:
        names = ("scaling_governor",) if action["verb"] == "set-governor" else ("scaling_min_freq", "scaling_max_freq")
        for cpu in action["cpus"]:
            for name in names:
                path = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"
                if not os.access(path, os.W_OK):
                    yield path
