"""Protocol buffers' wire format, as much of it as networks need."""

from __future__ import annotations

import struct
from collections.abc import Iterable

VARINT, FIXED32, LENGTH = 0, 5, 2  # wire types


class Message:
    """One message, written field by field. Large fields are kept as they came, not copied."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def integer(self, field: int, value: int) -> Message:
        return self._append(_key(field, VARINT), _varint(value))

    def integers(self, field: int, values: Iterable[int]) -> Message:
        for value in values:
            self.integer(field, value)
        return self

    def float32(self, field: int, value: float) -> Message:
        return self._append(_key(field, FIXED32), struct.pack("<f", value))

    def data(self, field: int, value: bytes) -> Message:
        return self._append(_key(field, LENGTH), _varint(len(value)), value)

    def text(self, field: int, value: str) -> Message:
        return self.data(field, value.encode())

    def texts(self, field: int, values: Iterable[str]) -> Message:
        for value in values:
            self.text(field, value)
        return self

    def message(self, field: int, value: Message) -> Message:
        return self._append(_key(field, LENGTH), _varint(value.size), *value.parts)

    def messages(self, field: int, values: Iterable[Message]) -> Message:
        for value in values:
            self.message(field, value)
        return self

    def _append(self, *parts: bytes) -> Message:
        self.parts += parts
        self.size += sum(map(len, parts))
        return self


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64 bits."""
    value &= (1 << 64) - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
