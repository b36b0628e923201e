"""Pickle's format, protocol 2, as much of it as TorchScript reads. Python's own pickler would need the classes to be there."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STOP = b"."


@dataclass(frozen=True, slots=True)
class Class:
    """A class by its module and name."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a function returns."""

    function: Class
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Persistent:
    """What is kept elsewhere, by its identity."""

    identity: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class with a state."""

    kind: Class
    state: Mapping[str, Any]


def dumps(value: Any) -> bytes:
    """The file of one value."""
    return b"\x80\x02" + _value(value) + STOP


def _value(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(_value, value)) + b"t"
        case Class():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return _value(value.function) + _value(value.arguments) + b"R"
        case Persistent():
            return _value(value.identity) + b"Q"
        case Instance():
            items = b"".join(_value(key) + _value(item) for key, item in value.state.items())
            return _value(value.kind) + b")\x81}(" + items + b"ub"
        case _:
            raise TypeError(f"{type(value).__name__} is not written")
