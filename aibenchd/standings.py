"""Tells how each commit stands, whenever that changes, to the sinks that want to know.

It reads the journal and writes there what it told, with the record that tells it in one transaction: a crash is a restart.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import anyio
import structlog

from aibenchd import events, verifying
from aibenchd import settings as configuration
from aibenchd.report import recording, standing
from aibenchd.store import standings, store

TOPICS = ("revision.", "experiment.", "finding.", "daemon.")
LEAST_SECONDS = 1.0  # between two looks: each reads all cells of the commits that something ended of
UNVERIFIED = (verifying.NOT_VERIFIED, verifying.ALONE)  # reasons of findings of which no one will know more

log = structlog.get_logger()


class Standings:
    """``current`` gives the settings as they are now; ``recorder`` makes what is told.

    What breaks of one commit holds up no other: it is raised when the rest is done.
    """

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings], recorder: recording.Recorder) -> None:
        self._store, self._current, self._recorder = journal, current, recorder

    async def run(self) -> None:
        """Tell for ever."""
        with self._store.events.bell(*TOPICS) as bell:
            while True:
                await self.look()
                await anyio.sleep(LEAST_SECONDS)
                await bell.wait(events.LOOK_SECONDS)

    async def look(self) -> None:
        """Tell whatever there is to tell now."""
        while stale := await self._store.read(standings.stale):
            if not self._recorder.wanted("statuses"):
                await self._store.write(standings.forget)
                return
            if broken := await events.each(stale, self._tell):
                raise broken[0]

    async def _tell(self, told: standings.Told) -> None:
        devices = [device.name for device in self._current().devices]
        query = functools.partial(standings.cells, told=told, devices=devices, unverified=UNVERIFIED)

        def write(tx: store.Transaction) -> str:
            now = standing.of(query(tx.connection))  # here, for whatever ends from now on makes it stale again
            said = None if now is None or _text(now) == told.last else now.json()
            standings.tell(tx, told, said)
            if said is not None:
                self._recorder.queue(tx, self._recorder.of_commit(told.repository, told.commit, told.number, said))
            return "" if said is None else str(said["state"])

        if state := await self._store.write(write):
            log.info("commit", repository=told.repository, commit=told.commit, state=state)


def _text(now: standing.Standing) -> str:
    return json.dumps(now.json(), sort_keys=True)
