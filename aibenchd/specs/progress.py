"""What is being fetched, on the notice board and as events, without a word for each piece of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from aibenchd import board, events, redaction

PAUSE_SECONDS = 1.0  # between two words on one file

Told = Callable[[int, int | None], None]  # bytes that have come, and of how many where that is known


class Progress:
    """Tells what becomes of model files: notices of the kind ``model``, events ``model.progress`` and ``model.fetched``."""

    def __init__(self, noted: board.Board, told: events.Events) -> None:
        self._board, self._events = noted, told

    @contextlib.contextmanager
    def of(self, file: str, state: str, source: str) -> Iterator[Told]:
        """While one file is fetched. What it gives may be called for each piece.

        Args:
            file: what people call it; one at a time.
            state: ``downloading`` or ``generating``.
            source: where it comes from; secrets in it are masked.
        """
        source = redaction.text(source)
        unit, last = f"model/{file}", time.monotonic()
        self._board.put(unit, state, source)

        def told(done: int, total: int | None) -> None:
            nonlocal last
            if time.monotonic() - last >= PAUSE_SECONDS:
                last = time.monotonic()
                self._board.put(unit, state, f"{_text(done, total)} from {source}")
                self._events.publish(events.Event("model.progress", {"file": file, "bytes": done, "total": total}))

        try:
            yield told
        finally:
            self._board.take_down(unit)

    def fetched(self, file: str, digest: str, size: int) -> None:
        """A file has come, and is what it should be."""
        self._events.publish(events.Event("model.fetched", {"file": file, "sha256": digest, "bytes": size}))


def _text(done: int, total: int | None) -> str:
    return f"{done:,} of {total:,} bytes ({done * 100 // max(total, 1)} %)" if total else f"{done:,} bytes"
