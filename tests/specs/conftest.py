from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import fileserver
import pytest


@pytest.fixture
async def file_server() -> AsyncIterator[fileserver.FileServer]:
    served = fileserver.FileServer()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    async with server:
        yield served
