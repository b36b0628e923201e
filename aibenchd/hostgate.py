"""One host, two kinds of work that must not overlap: measuring on it, and building on it."""

from __future__ import annotations

import abc
import collections
import contextlib
import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import anyio


class Gate(abc.ABC):
    """What whoever measures or builds on this host passes through. A context each; cancelling the wait for it is safe."""

    @abc.abstractmethod
    def measuring(self) -> AbstractAsyncContextManager[None]:
        """Held by a worker for the length of one block on the local host."""

    @abc.abstractmethod
    def building(self) -> AbstractAsyncContextManager[None]:
        """Held by a builder for the length of one build."""


class OpenGate(Gate):
    """Lets everyone through at once: builds may run while the host measures."""

    def measuring(self) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    def building(self) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()


class _Side(enum.Enum):
    MEASURING = enum.auto()
    BUILDING = enum.auto()

    @property
    def other(self) -> _Side:
        return _Side.BUILDING if self is _Side.MEASURING else _Side.MEASURING


class HostGate(Gate):
    """Many measurers or many builders, never both.

    Fair by phases: once somebody waits on the other side, nobody enters on this one any more; when the last has left,
    all who wait on the other side enter together. So neither side waits for more than one phase of the other.
    """

    def __init__(self) -> None:
        self._side = _Side.MEASURING
        self._inside = 0  # while it is 0, nobody waits
        self._waiting: dict[_Side, collections.deque[anyio.Event]] = {side: collections.deque() for side in _Side}

    def measuring(self) -> AbstractAsyncContextManager[None]:
        return self._passed(_Side.MEASURING)

    def building(self) -> AbstractAsyncContextManager[None]:
        return self._passed(_Side.BUILDING)

    @contextlib.asynccontextmanager
    async def _passed(self, side: _Side) -> AsyncIterator[None]:
        await self._enter(side)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, side: _Side) -> None:
        turn = anyio.Event()
        self._waiting[side].append(turn)
        self._admit()
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # admitted in the very moment of the cancellation
                self._leave()
            else:
                self._waiting[side].remove(turn)
                self._admit()  # those who held back for this one need not any more
            raise

    def _leave(self) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        if self._waiting[self._side.other]:
            if self._inside:
                return
            self._side = self._side.other
        while self._waiting[self._side]:
            self._inside += 1
            self._waiting[self._side].popleft().set()
