"""Has confirmed regressions profiled, and reads what the profiles say: it shows where time goes, for whoever mends them.

It reads the journal and writes its next steps there, as :mod:`aibenchd.following` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
import structlog

from aibenchd import errors, events, model
from aibenchd import settings as configuration
from aibenchd.store import profiles, store

TOPICS = ("finding.open", "experiment.decided", "experiment.skipped", "experiment.cancelled", "daemon.")
NO_BLOCK = "it was not run"

log = structlog.get_logger()


class Profiling:
    """``current`` gives the settings as they are now. What breaks of one profile holds up no other."""

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings], state_directory: Path) -> None:
        self._store, self._current, self._directory = journal, current, state_directory

    async def run(self) -> None:
        """Look for ever."""
        await events.whenever(self._store.events, TOPICS, self.look)

    async def look(self) -> None:
        """Do whatever there is to do now."""
        if self._current().verify.profile:
            while wanted := await self._store.read(functools.partial(profiles.wanted, now=datetime.now(UTC))):
                for finding in wanted:
                    await self._store.write(functools.partial(profiles.ask, finding=finding))
        while made := await self._store.read(profiles.made):
            if broken := await events.each(made, self._read):
                raise broken[0]

    async def _read(self, made: profiles.Made) -> None:
        facts, reason = await anyio.to_thread.run_sync(_compared, self._directory, made)
        await self._store.write(functools.partial(profiles.put, finding=made.finding, facts=facts, reason=reason))
        log.info("profiled", finding=made.finding, reason=reason)


def _compared(state_directory: Path, made: profiles.Made) -> tuple[model.Json, str]:
    """What is kept of a profile, and why there is none."""
    from aibenchd.measure import profiles as read

    if made.verdict is not model.Verdict.MEASURED:
        return None, made.reason or NO_BLOCK
    try:
        return read.compared(state_directory, made.experiment), ""
    except (errors.CommandError, OSError) as error:
        return None, made.reason or str(error)
