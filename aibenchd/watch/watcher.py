"""Watches one repository: polls its remote, and writes what is new to the journal."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeVar

import structlog

from aibenchd import backoff, board, crashpoints, errors, events, model, weeks
from aibenchd.store import revisions, store
from aibenchd.watch import base

T = TypeVar("T")
Found: TypeAlias = list[tuple[model.Revision, str]]  # each with the state that it begins in

SHORTEST_PAUSE = 1.0  # seconds, between two polls
LONGEST_PAUSE = 1800.0  # seconds, between two tries at a remote that is away, unless poll_interval is longer
JITTER = 0.1  # of poll_interval, either way, so that many repositories do not poll together

BATCH = 500  # revisions in one transaction
HISTORY_BOUND = 5_000  # revisions before the first measured one that are recorded at most,
HISTORY_LEAST = 50  # and at least; and how many in a row must be too old before the rest is taken to be
LINE_BOUND = 5_000  # revisions down to which a rewritten line is compared with the recorded one

log = structlog.get_logger()


class Watcher:
    """Start :meth:`run` in a task group; cancel it to stop.

    Which revisions are measured is written once, as the state each begins in. When watching begins, that is
    ``start_at`` and all newer ones, or the head alone; older ones are ``history``, for baselines to be found in.
    ``start_at`` has no meaning after that. A step is counted on the line, filtered commits too.
    """

    def __init__(self, repository: base.Repository, journal: store.Store, notices: board.Board, rng: random.Random) -> None:
        self._repository, self._store, self._board, self._rng = repository, journal, notices, rng
        self._settings = repository.settings
        self._interval = max(self._settings.poll_interval, SHORTEST_PAUSE)
        self._backoff = backoff.Backoff(self._interval, max(self._interval, LONGEST_PAUSE), rng)
        self._bell = events.Bell()
        self._unit = f"repository/{self._settings.name}"

    async def run(self) -> None:
        """Poll for ever."""
        with structlog.contextvars.bound_contextvars(repository=self._settings.name):
            while True:
                await self._bell.wait(await self._try())

    def poke(self) -> None:
        """Poll now, rather than when it is due. Call it on the event loop's thread."""
        self._bell.ring()

    async def poll(self) -> None:
        """Fetch, and write what is new.

        Raises:
            RemoteUnreachableError: the remote did not answer, or refused.
            UnknownRevisionError: it has no such branch, or no such ``start_at``.
            HarnessError, StoreError, CredentialError: this host is at fault.
        """
        head = await self._repository.fetch()
        read = await self._store.read(lambda connection: revisions.progress(connection, self._settings.name))
        if read is not None and read.head and read.head != head and not await self._repository.on_line(head, read.head):
            read = await self._retreat(head, read)
        if read is None or not read.head:
            await self._begin(head, start_at=self._settings.start_at if read is None else "")
        elif read.head == head:
            await self._store.write(lambda tx: revisions.advance(tx, self._settings.name, head))
        else:
            await self._advance(head, read)

    async def _try(self) -> float:
        """Poll once; seconds until the next poll."""
        try:
            await self.poll()
        except (errors.AibenchdError, OSError) as error:
            state = "unreachable" if isinstance(error, errors.RemoteUnreachableError) else "faulty"
            pause = self._backoff.next()
            log.warning("poll failed", error=str(error), again_in=round(pause))
            self._board.put(self._unit, state, str(error), fault=True)
            return pause
        self._backoff.reset()
        self._board.put(self._unit, "watching")
        return self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)

    async def _begin(self, head: str, start_at: str) -> None:
        """The first contact with a line: what to measure of it, and the history before that."""
        start = await (self._named_start(head, start_at) if start_at else self._newest_relevant(head))
        count, rest = await self._write_full_batches(head, start.commit, start.position)
        history = await self._history_before(start)

        def write(tx: store.Transaction) -> None:
            found = revisions.record(tx, [*rest, (start, self._state(start, start.position))])
            for start_of in range(0, len(history), BATCH):
                revisions.record(tx, [(revision, "history") for revision in history[start_of : start_of + BATCH]])
            revisions.advance(tx, self._settings.name, head, first=start.position)
            self._announce(tx, count + found)

        await self._commit(write)

    async def _named_start(self, head: str, start_at: str) -> model.Revision:
        start = await self._repository.resolve(start_at)
        if not await self._repository.on_line(head, start.commit):
            raise errors.UnknownRevisionError(
                f"{self._settings.name}: start_at {start_at!r} is not on the first-parent line of branch "
                f"{self._settings.branch!r}; name a commit that is, such as the merge that brought it in"
            )
        return start

    async def _newest_relevant(self, head: str) -> model.Revision:
        """The head, or where path filters keep it out the newest that they let through."""
        async with contextlib.aclosing(self._repository.history(head)) as line:
            newest = await anext(line)
            looked_at = newest
            async for revision in line:
                if looked_at.relevant or newest.position - revision.position > HISTORY_BOUND:
                    break
                looked_at = revision
        return looked_at if looked_at.relevant else newest

    async def _history_before(self, start: model.Revision) -> list[model.Revision]:
        """What came before ``start``, back to the Monday before its week's.

        Times along a line may go up and down: it ends only where many in a row are older than that.
        """
        monday = weeks.start(start.time) - timedelta(weeks=1)
        found: list[model.Revision] = []
        too_old = 0
        async with contextlib.aclosing(self._repository.history(start.commit)) as line:
            await anext(line)  # start itself
            async for revision in line:
                found.append(revision)
                too_old = too_old + 1 if revision.time < monday else 0
                if too_old >= HISTORY_LEAST or len(found) >= HISTORY_BOUND:
                    break
        return found

    async def _advance(self, head: str, read: revisions.Progress) -> None:
        """Write what is newer than the recorded head, which is on the line."""
        count, rest = await self._write_full_batches(head, read.head, read.first)

        def write(tx: store.Transaction) -> None:
            found = revisions.record(tx, rest)
            revisions.advance(tx, self._settings.name, head)
            self._announce(tx, count + found)

        await self._commit(write)

    async def _retreat(self, head: str, read: revisions.Progress) -> revisions.Progress:
        """The line was rewritten: take back what the new one does not have. What both have is older than what one has."""
        recorded = await self._store.read(lambda connection: revisions.recent(connection, self._settings.name, LINE_BOUND))
        low, high = 0, len(recorded)
        while low < high:
            middle = (low + high) // 2
            if await self._repository.on_line(head, recorded[middle].revision.commit):
                high = middle
            else:
                low = middle + 1
        joint = recorded[low] if low < len(recorded) else None
        left = await self._store.write(lambda tx: revisions.retreat(tx, self._settings.name, joint))
        log.warning("branch was rewritten", left=left, joint="" if joint is None else joint.revision.commit)
        if joint is None:
            return revisions.Progress("", 0, read.first)
        return revisions.Progress(joint.revision.commit, joint.revision.position, read.first)

    async def _write_full_batches(self, head: str, after: str, first: int) -> tuple[int, Found]:
        """Stream the line from ``head`` to ``after``; how many were new, and what is left for the last transaction.

        Newest first, so that nobody may see it yet: see :mod:`aibenchd.store.revisions`.
        """
        count = 0
        batch: Found = []
        async with contextlib.aclosing(self._repository.history(head, after=after)) as line:
            async for revision in line:
                batch.append((revision, self._state(revision, first)))
                if len(batch) == BATCH:
                    count += await self._commit(functools.partial(revisions.record, found=batch))
                    batch = []
        return count, batch

    async def _commit(self, write: Callable[[store.Transaction], T]) -> T:
        def to_the_end(tx: store.Transaction) -> T:
            result = write(tx)
            crashpoints.reach("revision.before-commit")
            return result

        result = await self._store.write(to_the_end)
        crashpoints.reach("revision.after-commit")
        return result

    def _announce(self, tx: store.Transaction, count: int) -> None:
        if count:
            tx.announce("revision.found", repository=self._settings.name, count=count)

    def _state(self, revision: model.Revision, first: int) -> str:
        if not revision.relevant:
            return "filtered"
        return "stepped" if (revision.position - first) % self._settings.step else "new"
