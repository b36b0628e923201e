"""Asks :mod:`aibenchd.helper`, behind its socket, for what only root may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio

from aibenchd import errors

DEADLINE = 5.0  # seconds
ANSWER_BOUND = 64 << 10  # bytes


async def ask(socket: Path, line: bytes) -> dict[str, Any]:
    """A helper's answer to one request.

    Raises:
        HarnessError: it does not answer.
    """
    answer = b""
    try:
        with anyio.fail_after(DEADLINE):
            async with await anyio.connect_unix(socket) as stream:
                await stream.send(line + b"\n")
                while not answer.endswith(b"\n") and len(answer) < ANSWER_BOUND:
                    answer += await stream.receive()
        said: dict[str, Any] = json.loads(answer)
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError, ValueError) as error:
        raise errors.HarnessError(
            f"the helper {socket} does not answer: {error or type(error).__name__}; is its socket unit on?"
        ) from error
    return said
