"""FlatBuffers' format, as much of it as networks need. Parents lie before their children, as offsets are never negative."""

from __future__ import annotations

import collections
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number within its table; ``format`` is struct's: b, B, i, I or f."""

    format: str
    value: float


@dataclass(frozen=True, slots=True)
class Table:
    """Fields by their place in the schema; those absent have the schema's default."""

    fields: Mapping[int, Field]


@dataclass(frozen=True, slots=True)
class Tables:
    items: Sequence[Table]


@dataclass(frozen=True, slots=True)
class Integers:
    """A vector of int32."""

    items: Sequence[int]


@dataclass(frozen=True, slots=True)
class Data:
    """A vector of bytes, aligned to 16."""

    items: bytes


@dataclass(frozen=True, slots=True)
class Text:
    value: str


Child = Table | Tables | Integers | Data | Text
Field = Scalar | Child


def packed(root: Table, identifier: bytes) -> bytearray:
    """The file. ``identifier`` is its four letters."""
    writer = _Writer(identifier)
    writer.refer(0, root)
    writer.write()
    return writer.file


class _Writer:
    def __init__(self, identifier: bytes) -> None:
        self.file = bytearray(4) + identifier
        self._waiting: collections.deque[tuple[int, Child]] = collections.deque()

    def refer(self, place: int, child: Child) -> None:
        """Have the offset at ``place`` lead to a child that is written later."""
        self._waiting.append((place, child))

    def write(self) -> None:
        while self._waiting:
            place, child = self._waiting.popleft()
            struct.pack_into("<I", self.file, place, self._put(child) - place)

    def _put(self, child: Child) -> int:
        """Write a child at the end; where it lies."""
        match child:
            case Table():
                return self._table(child)
            case Tables():
                start = self._vector(len(child.items), 4)
                self.file += bytes(4 * len(child.items))
                for turn, item in enumerate(child.items, 1):
                    self.refer(start + 4 * turn, item)
                return start
            case Integers():
                start = self._vector(len(child.items), 4)
                self.file += struct.pack(f"<{len(child.items)}i", *child.items)
                return start
            case Data():
                start = self._vector(len(child.items), 16)
                self.file += child.items
                return start
            case Text():
                start = self._vector(len(child.value.encode()), 4)
                self.file += child.value.encode() + b"\0"
                return start

    def _vector(self, count: int, alignment: int) -> int:
        """Begin a vector, whose first item is aligned; where its count lies."""
        self._align(alignment, ahead=4)
        self.file += struct.pack("<I", count)
        return len(self.file) - 4

    def _table(self, table: Table) -> int:
        places: dict[int, int] = {}
        size = 4  # of the offset of the list of places
        for slot, field in table.fields.items():
            width = struct.calcsize(field.format) if isinstance(field, Scalar) else 4
            places[slot] = size + -size % width
            size = places[slot] + width
        self._align(4)
        listed = len(self.file)
        slots = 1 + max(places, default=-1)
        self.file += struct.pack(f"<{2 + slots}H", 4 + 2 * slots, size, *(places.get(slot, 0) for slot in range(slots)))
        self._align(4)
        start = len(self.file)
        self.file += struct.pack("<i", start - listed) + bytes(size - 4)
        for slot, field in table.fields.items():
            self._field(start + places[slot], field)
        return start

    def _field(self, place: int, field: Field) -> None:
        if isinstance(field, Scalar):
            struct.pack_into(f"<{field.format}", self.file, place, field.value)
        else:
            self.refer(place, field)

    def _align(self, alignment: int, ahead: int = 0) -> None:
        self.file += bytes(-(len(self.file) + ahead) % alignment)
