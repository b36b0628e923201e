"""What several devices share, such as one accelerator: by its name, one of them at a time has it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import AsyncIterator, Iterator

import anyio

from aibenchd import errors

_locks: dict[str, anyio.Lock] = {}  # as many as configurations have named
_held: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("held", default=frozenset())
_owners: dict[str, str] = {}  # UUID of a GPU -> the device that has it in hand


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


@contextlib.contextmanager
def sole(uuid: str, device: str) -> Iterator[None]:
    """Have a GPU in hand as ``device``; two devices may have named one GPU, by its index and by its UUID.

    Raises:
        DeviceLostError: another device has it.
    """
    if other := _owners.get(uuid):
        raise errors.DeviceLostError(
            f"{device}: GPU {uuid} is the device {other} already; name another GPU, or remove one of them"
        )
    _owners[uuid] = device
    try:
        yield
    finally:
        del _owners[uuid]
