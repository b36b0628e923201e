"""What several devices share, such as one accelerator: by its name, one of them at a time has it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import AsyncIterator

import anyio

_locks: dict[str, anyio.Lock] = {}  # as many as configurations have named
_held: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("held", default=frozenset())


@contextlib.asynccontextmanager
async def alone(name: str) -> AsyncIterator[None]:
    """Have what is shared under ``name`` to oneself, in this process; an empty name is shared with nobody.

    Whoever has it, and every task that it starts, enters again without waiting.
    """
    if not name or name in _held.get():
        yield
        return
    async with _locks.setdefault(name, anyio.Lock()):
        token = _held.set(_held.get() | {name})
        try:
            yield
        finally:
            _held.reset(token)


def taken(name: str) -> bool:
    """Whether another has it now."""
    return name in _locks and _locks[name].locked() and name not in _held.get()
