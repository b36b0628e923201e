"""A receiver of records: a real HTTP/1.1 server on loopback that answers as a test tells it to, or misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

TAKEN = (200, "truncate", "reset", "hang")  # the records are kept, whether or not the sender learns of it


@dataclass
class Request:
    target: str
    headers: dict[str, str]
    body: bytes
    answer: Any = None

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def records(self) -> list[dict[str, Any]]:
        return list(self.json["records"])

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]


@dataclass
class Reply:
    """What to answer with; a bare status stands for one without headers and body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Receiver:
    """``answer`` is asked for each request: a status, a :class:`Reply`, or ``truncate``, ``reset``, ``hang``."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Any] = lambda request: 200
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def taken(self) -> list[str]:
        """Ids of records in the order in which they were first taken."""
        requests = [request for request in self.requests if request.answer in TAKEN]
        return list(dict.fromkeys(id_ for request in requests for id_ in request.ids))

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/records"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                while await self._served(reader, writer):
                    pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read(reader)
        request.answer = self.answer(request)
        self.requests.append(request)
        if request.answer == "hang":
            await reader.read()
            return False
        if request.answer == "reset":
            writer.transport.abort()
            return False
        if request.answer == "truncate":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            return False
        reply = request.answer if isinstance(request.answer, Reply) else Reply(request.answer)
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} So", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + reply.body)
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(head[0].split()[1], headers, gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)
