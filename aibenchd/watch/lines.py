"""What git and hg print of a history, as revisions: one record after another, none kept.

A record is fields that end with NUL: an empty one, the header's, then the changed paths. No path is empty, so an empty
field begins the next record.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aibenchd import errors, model, settings
from aibenchd.watch import paths

LATEST = 253402300799  # 9999-12-31T23:59:59Z in seconds since 1970; commits may claim any time


@dataclass(frozen=True, slots=True)
class Record:
    """One commit: its header's fields, and whether the path filters let it through."""

    header: tuple[bytes, ...]
    relevant: bool


async def records(fields: AsyncIterator[bytes], width: int, filters: settings.PathFilters) -> AsyncGenerator[Record, None]:
    """The records of a stream whose headers have ``width`` fields.

    Where nothing is filtered, every commit is relevant; else those with a changed path that is let through, so that
    a commit which changes no file is not.

    Raises:
        HarnessError: the stream is not what was asked for.
    """
    record = _Open(width, filters)
    async for field in fields:
        if field or record.wants_header:
            record.take(field)
        else:
            if record.header:
                yield record.closed()
            record = _Open(width, filters, wants_header=True)
    if record.wants_header:
        raise errors.HarnessError(f"history ends within a record: {record.header!r:.200}")
    if record.header:
        yield record.closed()


class _Open:
    """A record that is being read."""

    def __init__(self, width: int, filters: settings.PathFilters, *, wants_header: bool = False) -> None:
        self.header: list[bytes] = []
        self.wants_header = wants_header
        self._width, self._filters = width, filters
        self._relevant = not paths.filtering(filters)
        self._lead = b"\n"  # git puts one before the first path; a later one is part of a name

    def take(self, field: bytes) -> None:
        if self.wants_header:
            self.header.append(field)
            self.wants_header = len(self.header) < self._width
        elif not self._relevant:
            self._relevant = paths.touched(self._filters, os.fsdecode(field.removeprefix(self._lead)))
            self._lead = b""

    def closed(self) -> Record:
        return Record(tuple(self.header), self._relevant)


def side(base: model.Revision, newest_first: Sequence[model.Revision]) -> list[model.Revision]:
    """The line from a merge base on, as :meth:`aibenchd.watch.base.Repository.sides` gives it."""
    line = [base, *reversed(newest_first)]
    if line[1].parents[0] != base.commit:
        line[1] = dataclasses.replace(line[1], relevant=True)
    return line


def instant(seconds: float) -> datetime:
    """Seconds since 1970, aware, UTC; times that no calendar has are moved to the nearest that it has."""
    return datetime.fromtimestamp(min(max(seconds, 0), LATEST), UTC)


def text(raw: bytes) -> str:
    """Words of a person in whatever encoding, as text that can be stored and shown; 1,000 characters at most."""
    return raw.decode(errors="replace").strip()[:1_000]
