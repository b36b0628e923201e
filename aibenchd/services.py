"""Long-lived tasks that come and go with the configuration: each repository, device and sink is one.

A reload is applied as a difference: a service whose settings did not change is not touched.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc
import structlog

from aibenchd import backoff, board

PAUSE_SECONDS = (1.0, 600.0)  # first and longest pause before a service that broke is started again

log = structlog.get_logger()


class Service(abc.ABC):
    """Something that runs until it is stopped. :meth:`run` may be cancelled at any time, and leaves nothing broken."""

    @abc.abstractmethod
    async def run(self) -> None:
        """Work until stopped."""

    def stop(self) -> bool:
        """Ask it to end by itself soon, as a worker does after its block; False where it can only be cancelled."""
        return False


S = TypeVar("S", bound=Service)


@dataclass(slots=True)
class _Slot(Generic[S]):
    """One name: what should run under it, and what does. ``wanted`` is None when it is to end."""

    wanted: Any
    running: Any = None
    service: S | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Roster(Generic[S]):
    """The services of one kind, by name. ``make`` makes one of its settings; it does no I/O."""

    def __init__(
        self,
        kind: str,
        make: Callable[[Any], S],
        tasks: anyio.abc.TaskGroup,
        notices: board.Board,
        rng: random.Random,
    ) -> None:
        self._kind, self._make, self._tasks, self._board, self._rng = kind, make, tasks, notices, rng
        self._slots: dict[str, _Slot[S]] = {}

    @property
    def services(self) -> dict[str, S]:
        """Those that run now."""
        return {name: slot.service for name, slot in self._slots.items() if slot.service is not None}

    def apply(self, wanted: Mapping[str, Any]) -> list[str]:
        """Make the services those of ``wanted``, settings by name; what is different now, in words.

        Returns at once: one that is to end or to change goes on to the end of what it is in the middle of, and its
        successor starts after it.
        """
        different: list[str] = []
        for name, slot in self._slots.items():
            if slot.wanted != wanted.get(name):
                different.append(f"{self._kind} {name} {'changed' if name in wanted else 'removed'}")
                slot.wanted = wanted.get(name)
                self._stop(slot)
        for name in wanted:
            if name not in self._slots:
                different.append(f"{self._kind} {name} added")
                self._slots[name] = _Slot(wanted[name])
                self._tasks.start_soon(self._keep, name, self._slots[name])
        return different

    async def stop(self, within: float) -> None:
        """End all services; those that can end by themselves have so many seconds for it."""
        slots = list(self._slots.values())
        self.apply({})
        with anyio.move_on_after(within):
            for slot in slots:
                await slot.ended.wait()
        for slot in slots:
            slot.scope.cancel()
        for slot in slots:
            await slot.ended.wait()

    def _stop(self, slot: _Slot[S]) -> None:
        if slot.service is None or not slot.service.stop():
            slot.scope.cancel()

    async def _keep(self, name: str, slot: _Slot[S]) -> None:
        unit = f"{self._kind}/{name}"
        pauses = backoff.Backoff(*PAUSE_SECONDS, self._rng)
        with structlog.contextvars.bound_contextvars(**{self._kind: name}):
            while slot.wanted is not None:
                slot.running, slot.scope = slot.wanted, anyio.CancelScope()
                with slot.scope:
                    await self._run(unit, slot, pauses)
                self._board.take_down(unit)
        del self._slots[name]
        slot.ended.set()

    async def _run(self, unit: str, slot: _Slot[S], pauses: backoff.Backoff) -> None:
        began = anyio.current_time()
        try:
            slot.service = self._make(slot.running)
            await slot.service.run()
        except Exception as error:
            slot.service = None  # it has ended: what a reload or a stop has to break off is the pause
            log.exception("service broke", unit=unit)
            if anyio.current_time() - began > PAUSE_SECONDS[1]:
                pauses.reset()  # it ran well for long: this is a new trouble
            self._board.put(unit, "broken", f"{type(error).__name__}: {error}; it is started again", fault=True)
            await anyio.sleep(pauses.next())
        finally:
            slot.service = None
