"""An HTTP server of one file, which fails as its script says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Answer: TypeAlias = Callable[[asyncio.StreamWriter, "Request", bytes], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]

    @property
    def start(self) -> int:
        """Where the asked range begins."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


async def whole(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    """As a server should: a range where one is asked for."""
    rest = body[request.start :]
    head = f"Content-Range: bytes {request.start}-{len(body) - 1}/{len(body)}\r\n" if request.start else ""
    writer.write(f"HTTP/1.1 {206 if request.start else 200} OK\r\n{head}Content-Length: {len(rest)}\r\n\r\n".encode() + rest)


async def without_ranges(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


async def other_range(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    writer.write(f"HTTP/1.1 206 OK\r\nContent-Range: bytes 1-2/{len(body)}\r\nContent-Length: 2\r\n\r\n".encode() + body[1:3])


async def chunked(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


async def wrong_bytes(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    await without_ranges(writer, request, bytes(reversed(body)) + b"!")


async def reset(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    writer.transport.abort()


async def garbage(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    writer.write(b"\x16\x03 no HTTP at all\r\n\r\n")


async def stalled(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
    """Half of it, and then nothing for as long as the other side can bear."""
    rest = body[request.start :]
    head = f"Content-Range: bytes {request.start}-{len(body) - 1}/{len(body)}\r\n" if request.start else ""
    status = 206 if request.start else 200
    writer.write(f"HTTP/1.1 {status} OK\r\n{head}Content-Length: {len(rest)}\r\n\r\n".encode() + rest[: len(rest) // 2])
    await writer.drain()
    await asyncio.sleep(30)


def truncated(after: int) -> Answer:
    async def answer(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
        rest = body[request.start :]
        head = f"Content-Range: bytes {request.start}-{len(body) - 1}/{len(body)}\r\n" if request.start else ""
        status = 206 if request.start else 200
        writer.write(f"HTTP/1.1 {status} OK\r\n{head}Content-Length: {len(rest)}\r\n\r\n".encode() + rest[:after])

    return answer


def status(code: int) -> Answer:
    async def answer(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
        writer.write(f"HTTP/1.1 {code} Such\r\nContent-Length: 9\r\n\r\nno model!".encode())

    return answer


def moved(to: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter, request: Request, body: bytes) -> None:
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())

    return answer


@dataclass
class FileServer:
    """Serves ``body`` at every path. The first requests are answered as ``script`` says, later ones as they should."""

    body: bytes = b""
    script: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/net.pb"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:] if row)}
            request = Request(head[0].split()[1], headers)
            self.requests.append(request)
            await (self.script.pop(0) if self.script else whole)(writer, request, self.body)
            await writer.drain()
        writer.close()
