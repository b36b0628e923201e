"""Lets go of what is kept for a time only: raw samples, exclusions and logs until their retention, directories until an
experiment's end, model files until there are too many."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from aibenchd import settings
from aibenchd.measure import keeping, placing, worker
from aibenchd.store import housekeeping, store, submissions
from aibenchd.submissions import kept

LOOK_SECONDS = 3600.0
DIRECTORIES = 1_000  # of experiments, in one look
PAUSE_SECONDS = 0.1  # between two transactions: blocks go first
BETWEEN_TRIMS = 60.0  # seconds at least, however many model files come

log = structlog.get_logger()


async def run(house: worker.House, current: Callable[[], settings.Settings]) -> None:
    """Look every hour, for ever; at model files, also when one has come."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_forget_submissions, house, current)
        tasks.start_soon(_forget, house.store, house.state_directory, current)
        tasks.start_soon(_trim_models, house)


async def _forget(journal: store.Store, state_directory: Path, current: Callable[[], settings.Settings]) -> None:
    while True:
        chosen = current().retention
        before = datetime.now(UTC) - timedelta(seconds=chosen.samples)
        for what, forget in (("samples", housekeeping.forget_samples), ("exclusions", housekeeping.forget_exclusions)):
            while gone := await journal.write(functools.partial(forget, before=before)):
                log.info(f"{what} were kept long enough", trials=gone)
                await anyio.sleep(PAUSE_SECONDS)
        await anyio.to_thread.run_sync(remove_files, state_directory / "logs", time.time() - chosen.logs)
        rows = state_directory / placing.OUTPUTS / keeping.ROWS
        await anyio.to_thread.run_sync(remove_files, rows, time.time() - chosen.samples)
        await forget_experiments(journal, state_directory)
        await anyio.sleep(LOOK_SECONDS)


async def _forget_submissions(house: worker.House, current: Callable[[], settings.Settings]) -> None:
    sent = kept.Kept(house.state_directory / "submissions")
    while True:
        await forget_submissions(house, sent, current().submissions)
        await anyio.sleep(LOOK_SECONDS)


async def forget_submissions(house: worker.House, sent: kept.Kept, chosen: settings.SubmissionSettings) -> None:
    """Let go of what people sent, and no experiment may still run, when it was kept for long enough."""
    needed = await house.store.read(submissions.needed)
    try:
        await anyio.to_thread.run_sync(sent.sweep, kept.LEFT_SECONDS)
        await anyio.to_thread.run_sync(sent.forget, chosen.keep, chosen.cache_size, needed)
    except OSError as error:
        house.board.put("cache/submissions", "cannot be tidied", str(error), fault=True)
    else:
        house.board.take_down("cache/submissions")


async def _trim_models(house: worker.House) -> None:
    with house.store.events.bell("model.fetched") as bell:
        while True:
            await trim_models(house)
            await anyio.sleep(BETWEEN_TRIMS)
            await bell.wait(LOOK_SECONDS)


async def trim_models(house: worker.House) -> None:
    """Have the model cache within its size; what experiments still need stays, and where that is too much it is shown."""
    try:
        too_many = await house.models.excess()
        needed = await house.store.read(housekeeping.needed) if too_many else []
        left = await house.models.trim(needed)
    except OSError as error:
        house.board.put("cache/models", "cannot be tidied", str(error), fault=True)
        return
    if left:
        reason = f"{left:,} bytes too many are needed now, or were within the last hour; raise models.cache_size"
        house.board.put("cache/models", "too small", reason, fault=True)
    else:
        house.board.take_down("cache/models")


async def forget_experiments(journal: store.Store, state_directory: Path) -> None:
    """Remove what experiments left on this host that were skipped, or that a crash ended before it was removed."""
    remembered = await anyio.to_thread.run_sync(placing.remembered, state_directory, DIRECTORIES)
    for experiment in await journal.read(functools.partial(housekeeping.ended, experiments=remembered)):
        await placing.forget(state_directory, experiment)


def remove_files(root: Path, before: float) -> None:
    """Remove the files below ``root`` that were last written before that time (seconds since 1970), and emptied directories."""
    for directory in _directories(root):
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry.path).unlink(missing_ok=True)
        if directory != root and directory.stat().st_mtime < before and not any(directory.iterdir()):
            directory.rmdir()


def _directories(root: Path) -> Iterator[Path]:
    """Deepest first, without following links."""
    for directory, _, _ in os.walk(root, topdown=False):
        yield Path(directory)
