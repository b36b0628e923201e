"""What the status socket answers with piece by piece: logs, and events as they happen."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import sqlalchemy as sa
from aiohttp import web

from aibenchd import events as happenings
from aibenchd.api import answers, reads

LOG_LIMIT = 16 << 20  # bytes, from the end
PIECE = 64 << 10  # bytes
HEARTBEAT_SECONDS = 15.0  # between two signs of life to who watches events
WRITE_SECONDS = 30.0  # that a client may take to read a piece
WATCHERS = web.AppKey("watchers", anyio.CapacityLimiter)
WATCHERS_AT_ONCE = 64
# The last is for proxies, which may hold back what comes in small pieces.
UNBUFFERED = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
OPEN = web.AppKey("open", set[anyio.CancelScope])  # streams without end, to be ended when the daemon stops


def log_of(kind: str, view: Callable[[sa.Connection, int], str | None]) -> answers.Handler:
    """The handler of the log of one build or trial: the last :data:`LOG_LIMIT` bytes of it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        house = request.app[reads.HOUSE]
        number = int(request.match_info["id"])
        log = await house.store.read(lambda connection: view(connection, number))
        if not log:
            missing = f"there is no {kind} {number}" if log is None else f"no log of {kind} {number} is kept"
            raise answers.Refusal(404, missing, "logs of trials that went well are not kept, nor old ones: see 'retention'")
        with await anyio.to_thread.run_sync(_opened, house.state_directory, log) as file:
            return await _sent(request, file)

    return handler


async def profile(request: web.Request) -> web.StreamResponse:
    """The handler of one arm's profile, as a file that another program opens."""
    name = request.match_info["name"]
    house = request.app[reads.HOUSE]
    with await anyio.to_thread.run_sync(_opened, house.state_directory, f"logs/profile/{name}") as file:
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": f'attachment; filename="{name}"'}
        response = web.StreamResponse(headers=headers)
        response.content_length = os.fstat(file.fileno()).st_size
        return await _pieces(request, response, file)


def watched(written: Callable[[happenings.Event], bytes]) -> answers.Handler:
    """The handler of all events from now on, as server-sent events; a comment now and then where there are none."""

    async def handler(request: web.Request) -> web.StreamResponse:
        with anyio.CancelScope() as scope:
            async with _watching(request, scope), request.app[reads.HOUSE].events.subscribe() as happening:
                response = web.StreamResponse(headers=UNBUFFERED)
                await response.prepare(request)
                while True:
                    await _write(request, response, await _next_piece(happening, written))
        return response

    return handler


def message(event: happenings.Event) -> bytes:
    """As a browser hears it whatever it is about: it hears events with a name by that name alone."""
    data = json.dumps({"topic": event.topic, "time": event.time.isoformat(), **event.facts})
    return f"data: {data}\n\n".encode()


def named(event: happenings.Event) -> bytes:
    """With its topic for a name."""
    return f"event: {event.topic}\n".encode() + message(event)


@asynccontextmanager
async def _watching(request: web.Request, scope: anyio.CancelScope) -> AsyncIterator[None]:
    limiter = request.app[WATCHERS]
    try:
        limiter.acquire_on_behalf_of_nowait(scope)
    except anyio.WouldBlock:
        raise answers.Refusal(503, f"{WATCHERS_AT_ONCE} clients watch already", "end one of them") from None
    request.app[OPEN].add(scope)
    try:
        yield
    finally:
        request.app[OPEN].discard(scope)
        limiter.release_on_behalf_of(scope)


async def _next_piece(happening: AsyncIterator[happenings.Event], written: Callable[[happenings.Event], bytes]) -> bytes:
    with anyio.move_on_after(HEARTBEAT_SECONDS):
        return written(await anext(happening))
    return b": still here\n\n"


async def _sent(request: web.Request, file: BinaryIO) -> web.StreamResponse:
    size = os.fstat(file.fileno()).st_size
    left = min(size, LOG_LIMIT)
    file.seek(size - left)
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8", "X-Left-Out": str(size - left)})
    response.content_length = left
    return await _pieces(request, response, file)


async def _pieces(request: web.Request, response: web.StreamResponse, file: BinaryIO) -> web.StreamResponse:
    """A file from where it is, as much of it as the answer is to have."""
    left = response.content_length or 0
    await response.prepare(request)
    while left and (piece := await anyio.to_thread.run_sync(file.read, min(left, PIECE))):
        left -= len(piece)
        await _write(request, response, piece)
    return response


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    """Send a piece of an answer.

    Raises:
        ConnectionError: who asked is gone, or takes nothing any more and was left.
    """
    try:
        with anyio.fail_after(WRITE_SECONDS):
            await response.write(piece)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # what is half sent can be followed by nothing else
        raise ConnectionResetError from None


def _opened(root: Path, relative: str) -> BinaryIO:
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise answers.Refusal(403, "this log lies outside the state directory", "look at it on the host itself")
    try:
        # Programs under test may write beside it: follow no link, wait for no pipe.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
    except FileNotFoundError:
        raise answers.Refusal(404, "its log is gone", "'retention.logs' says how long they are kept") from None
    except OSError as error:
        raise answers.Refusal(409, f"its log cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise answers.Refusal(409, "its log is no file")
    return file
