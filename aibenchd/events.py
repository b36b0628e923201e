"""What happens, told within the process: rooms are woken by it, and clients of the status socket watch it.

Nothing depends on an event being seen: each room reads its work from the store, also when it is woken late.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.streams.memory
import structlog

from aibenchd import model

LOOK_SECONDS = 300.0  # between two looks though nothing was told
SHOWN = 500  # characters of what broke
SUBSCRIBER_BOUND = 1_000  # events; a subscriber that lags further behind loses the newest

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """``topic`` is dotted, from the general to the special: ``experiment.decided``, ``build.failed``."""

    topic: str
    facts: model.JsonObject
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


class Bell:
    """Wakes one waiter. Rung before the wait, it still wakes: no ring is lost between a look and a wait."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Never blocks. On the thread of the event loop only."""
        self._rung.set()

    async def wait(self, at_most: float = math.inf) -> bool:
        """Wait until rung, at most so many seconds; whether it was rung. Answers at once if rung since the last wait."""
        with anyio.move_on_after(at_most):
            await self._rung.wait()
        rung = self._rung.is_set()
        self._rung = anyio.Event()
        return rung


class Events:
    """Publish and subscribe in one event loop. Call it on the loop's thread only."""

    def __init__(self) -> None:
        self._bells: dict[Bell, tuple[str, ...]] = {}
        self._streams: set[anyio.streams.memory.MemoryObjectSendStream[Event]] = set()

    def publish(self, event: Event) -> None:
        """Tell all that listen now. Never blocks: who lags too far behind does not get it."""
        for bell, topics in self._bells.items():
            if event.topic.startswith(topics):
                bell.ring()
        for stream in self._streams:
            with contextlib.suppress(anyio.WouldBlock, anyio.BrokenResourceError):
                stream.send_nowait(event)

    @contextlib.contextmanager
    def bell(self, *topics: str) -> Iterator[Bell]:
        """A bell that rings at each event whose topic begins with one of ``topics``."""
        bell = Bell()
        self._bells[bell] = topics
        try:
            yield bell
        finally:
            del self._bells[bell]

    @contextlib.asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[Event]]:
        """All events from now on."""
        send, receive = anyio.create_memory_object_stream[Event](SUBSCRIBER_BOUND)
        self._streams.add(send)
        try:
            async with receive:
                yield receive
        finally:
            self._streams.discard(send)
            send.close()


async def whenever(told: Events, topics: Sequence[str], look: Callable[[], Awaitable[None]]) -> None:
    """Look now, whenever one of the topics is told of, and now and then; for ever."""
    with told.bell(*topics) as bell:
        while True:
            await look()
            await bell.wait(LOOK_SECONDS)


async def each(things: Iterable[T], follow: Callable[[T], Awaitable[None]]) -> list[Exception]:
    """Follow one after another; what broke."""
    broken: list[Exception] = []
    for one in things:
        try:
            await follow(one)
        except Exception as error:
            log.exception("cannot be followed", what=str(one)[:SHOWN])
            broken.append(error)
    return broken
