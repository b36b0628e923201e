"""Takes records from the journal to their sinks: at least once, in order, for as long as it takes.

A sink has one task, and one batch under way. Meanwhile the next one is read and made ready, and claimed in the commit that
removes the one before it. What a sink's answers mean is said at :class:`aibenchd.report.base.Answer`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import structlog

from aibenchd import backoff, board, crashpoints, errors, events, redaction
from aibenchd.report import base
from aibenchd.store import outbox, store

KEEPER_SECONDS = (1.0, 60.0)  # between two looks at the size of the outbox, at least and at most
TRIM_TO = 0.9  # of the outbox's size: what trimming leaves
WAIT = (base.Answer.AGAIN, base.Answer.PAUSED)
ROOM_AGAIN = 0.8  # of the outbox's size: below it, it is no longer called full

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Policy:
    """When to send, and when to try again; all in seconds.

    Attributes:
        linger: how long samples may wait for more; verdicts go at once, and take with them what waits before them.
        retry: first and longest pause after no answer, or one that says *again*.
        retry_after: the longest pause that a sink may ask for.
        probe: first and longest pause after credentials or an address were refused.
        fault_after: for how long a sink may be tried again before a person should look.
    """

    linger: float = 10.0
    retry: tuple[float, float] = (1.0, 300.0)
    retry_after: float = 3600.0
    probe: tuple[float, float] = (60.0, 900.0)
    fault_after: float = 300.0


class _Ahead:
    """The rows of the batch after the one that is under way, once they are ``known``."""

    def __init__(self) -> None:
        self.rows: list[outbox.Row] = []
        self.known = anyio.Event()


class Deliverer:
    """Delivers one sink's records. :meth:`run` goes on until it is cancelled, which may be at any time."""

    def __init__(
        self, sink: base.Sink, journal: store.Store, notices: board.Board, rng: random.Random, policy: Policy | None = None
    ) -> None:
        self.name = sink.settings.name
        self.unit = f"sink/{self.name}"
        self._sink, self._store, self._board, self._rng = sink, journal, notices, rng
        self._policy = policy or Policy()
        self._retries = backoff.Backoff(*self._policy.retry, rng)
        self._probes = backoff.Backoff(*self._policy.probe, rng)
        self._failing_since: float | None = None
        self._size = sink.settings.batch_size
        self._bounds: list[int] = []  # ids at which batches end while a refused batch is bisected; the next one last

    async def run(self) -> None:
        """Deliver, with what stands in the way on the board."""
        topic = f"outbox.resend.{self.name}"
        try:
            told = self._store.events
            with (
                told.bell("outbox.verdict", "outbox.samples", topic) as new,
                told.bell("outbox.verdict", topic) as urgent,
                told.bell(topic, "daemon.reloaded") as nudge,
            ):
                while True:
                    with structlog.contextvars.bound_contextvars(sink=self.name):
                        await self._pause(await self._stream(new, urgent), nudge)
        finally:
            self._board.take_down(self.unit)

    async def _stream(self, new: events.Bell, urgent: events.Bell) -> base.Delivery:
        """Deliver batch after batch until one must wait; what stands in its way."""
        try:
            async with self._sink.outlet() as outlet:
                batch: list[outbox.Row] = []
                while True:
                    batch = batch or await self._next(new, urgent)
                    delivery, batch = await self._send(outlet, batch)
                    if delivery.answer in WAIT:
                        return delivery
        except Exception as error:  # noqa: BLE001  a sink may be anyone's code; whatever it does, its records are kept
            return _failed(error)

    async def _next(self, new: events.Bell, urgent: events.Bell) -> list[outbox.Row]:
        """The batch to deliver, claimed in the journal; waits until there is one, and while samples alone wait for more."""
        while True:
            batch = await self._store.read(
                lambda connection: outbox.batch(
                    connection,
                    self.name,
                    records=self._sink.settings.at_once,
                    size=self._size,
                    upto=self._bounds[-1] if self._bounds else None,
                )
            )
            if not batch:
                self._bounds.clear()
                await self._well()
                if await new.wait(events.LOOK_SECONDS):
                    await urgent.wait(self._policy.linger)
            elif await self._store.write(lambda tx, rows=batch: outbox.claim(tx, self.name, rows)):  # type: ignore[misc]
                return batch

    async def _send(self, outlet: base.Outlet, batch: Sequence[outbox.Row]) -> tuple[base.Delivery, list[outbox.Row]]:
        """The fate of a batch, and the next one, where that was claimed at once and made ready meanwhile."""
        ahead = _Ahead()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_ahead, outlet, batch, ahead)
            delivery, claimed = await self._hand_over(outlet, batch, ahead)
        return delivery, claimed

    async def _look_ahead(self, outlet: base.Outlet, batch: Sequence[outbox.Row], ahead: _Ahead) -> None:
        try:
            ahead.rows = await self._following(batch)
            ahead.known.set()
            if ahead.rows:
                with anyio.move_on_after(self._sink.settings.timeout):  # the batch under way ends no sooner than this does
                    await outlet.prepare([row.record for row in ahead.rows])
        except Exception as error:  # noqa: BLE001  it will be met again, where it can be told
            log.debug("the next batch could not be made ready", error=str(error))
        finally:
            ahead.known.set()

    async def _following(self, batch: Sequence[outbox.Row]) -> list[outbox.Row]:
        if self._bounds:
            return []  # it depends on the answer where the next one ends
        records, size = self._sink.settings.at_once, self._size
        return await self._store.read(
            lambda connection: outbox.following(connection, self.name, batch, records=records, size=size)
        )

    async def _hand_over(
        self, outlet: base.Outlet, batch: Sequence[outbox.Row], ahead: _Ahead
    ) -> tuple[base.Delivery, list[outbox.Row]]:
        crashpoints.reach("delivery.before-send")
        try:
            with anyio.fail_after(self._sink.settings.timeout):
                delivery = await outlet.deliver([row.record for row in batch])
            return delivery, [] if delivery.answer in WAIT else await self._close(batch, delivery, ahead)
        except TimeoutError:
            return base.Delivery(base.Answer.AGAIN, f"no answer within {self._sink.settings.timeout:g} s"), []
        except Exception as error:  # noqa: BLE001  here, for what leaves a task group is wrapped
            return _failed(error), []

    async def _close(self, batch: Sequence[outbox.Row], delivery: base.Delivery, ahead: _Ahead) -> list[outbox.Row]:
        """Act on an answer that is final for this batch as it is; the next batch, where it was claimed at once."""
        self._retries.reset()
        self._probes.reset()
        claimed: list[outbox.Row] = []
        if delivery.answer is base.Answer.DONE:
            claimed = await self._settle(batch, ahead)
        elif len(batch) == 1:
            await self._bury(batch[0], delivery.reason)
        elif delivery.answer is base.Answer.TOO_LARGE:
            self._size = sum(row.size for row in batch) // 2
            log.info("batches are smaller from now on", bytes=self._size)
            await self._store.write(lambda tx: outbox.release(tx, self.name))
        else:
            self._bounds += [batch[-1].id, batch[len(batch) // 2 - 1].id]
            await self._store.write(lambda tx: outbox.release(tx, self.name))
        if self._failing_since is not None:
            await self._well()
        return claimed

    async def _settle(self, batch: Sequence[outbox.Row], ahead: _Ahead) -> list[outbox.Row]:
        crashpoints.reach("delivery.before-acknowledge")
        await ahead.known.wait()  # which takes less time than a commit of its own
        claimed = await self._store.write(lambda tx: outbox.settle(tx, self.name, batch, ahead.rows))
        crashpoints.reach("delivery.after-acknowledge")
        self._pass(batch[-1])
        return ahead.rows if claimed else []

    async def _bury(self, row: outbox.Row, reason: str) -> None:
        reason = redaction.text(reason)
        log.warning("a record was refused and is a dead letter", record=row.record.id, reason=reason)
        await self._store.write(lambda tx: outbox.bury(tx, self.name, row, reason))
        self._pass(row)
        await self._well()

    def _pass(self, last: outbox.Row) -> None:
        while self._bounds and self._bounds[-1] <= last.id:
            self._bounds.pop()

    async def _well(self) -> None:
        """Say that the sink takes records, and how many it never took."""
        self._failing_since = None
        depths = await self._store.read(outbox.depths)
        dead = sum(depth.records for depth in depths if (depth.sink, depth.state) == (self.name, outbox.DEAD))
        reason = f"{dead} records were refused; see why, mend it, then 'aibenchctl resend {self.name}'" if dead else ""
        self._board.put(self.unit, "ready", reason, fault=dead > 0)

    async def _pause(self, delivery: base.Delivery, nudge: events.Bell) -> None:
        """Wait before the next try; a person who asks for the dead letters to be sent again, or reloads, ends it."""
        now = anyio.current_time()
        self._failing_since = now if self._failing_since is None else self._failing_since
        paused = delivery.answer is base.Answer.PAUSED
        fault = paused or now - self._failing_since >= self._policy.fault_after
        self._board.put(self.unit, "paused" if paused else "retrying", redaction.text(delivery.reason), fault=fault)
        await nudge.wait(self._delay(delivery))

    def _delay(self, delivery: base.Delivery) -> float:
        pause = (self._probes if delivery.answer is base.Answer.PAUSED else self._retries).next()
        if delivery.retry_after is None:
            return pause
        first, _ = self._policy.retry
        return min(delivery.retry_after, self._policy.retry_after) + first * self._rng.random()


def _failed(error: Exception) -> base.Delivery:
    if isinstance(error, errors.SinkError | errors.CredentialError):
        return base.Delivery(base.Answer.PAUSED, str(error))
    if isinstance(error, errors.StoreError):
        return base.Delivery(base.Answer.AGAIN, str(error))
    log.error("the sink failed", exc_info=error)
    return base.Delivery(base.Answer.AGAIN, f"the sink failed: {type(error).__name__}: {error}")


class Keeper:
    """Keeps the outbox within its size. :meth:`run` goes on until it is cancelled, which may be at any time."""

    unit = "outbox"

    def __init__(self, journal: store.Store, notices: board.Board, limit: int) -> None:
        self._store, self._board, self._limit = journal, notices, limit

    async def run(self) -> None:
        """Remove the oldest samples where records take up more than the limit, with that as a fault on the board."""
        try:
            least, most = KEEPER_SECONDS
            with self._store.events.bell("outbox.verdict", "outbox.samples") as bell:
                while True:
                    await self._look()
                    await anyio.sleep(least)
                    await bell.wait(most)
        finally:
            self._board.take_down(self.unit)

    async def _look(self) -> None:
        held = await self._store.read(outbox.depth_in_bytes)
        if held > self._limit:
            await self._trim()
        elif held < self._limit * ROOM_AGAIN:
            self._board.put(self.unit, "ready")

    async def _trim(self) -> None:
        gone = 0
        while count := await self._store.write(lambda tx: outbox.trim(tx, int(self._limit * TRIM_TO))):
            gone += count
        kept = "the oldest samples are removed" if gone else "only verdicts are left, and they are kept: it grows"
        if gone:
            log.warning("the outbox is full", records_removed=gone)
        self._board.put(
            self.unit, "full", f"a sink takes no records, and {kept}; mend the sink, or set retention.outbox_size", fault=True
        )
