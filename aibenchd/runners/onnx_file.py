"""Reads an ONNX file with nothing but numpy: its nodes, weights, inputs and outputs.

The file is a Protocol Buffers message. Of its fields those are read that say what to compute; all others are skipped.
Subgraphs, as of ``If`` and ``Loop``, are not read. Weights are views of the file's bytes, or of those of the file beside it
that holds them. Runs on Python 3.7 and later.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

import numpy as np

MYPY = False
if MYPY:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

# Of TensorProto.DataType, those that numpy has.
TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # kinds of fields
EXTERNAL = 1  # TensorProto.data_location


class MalformedError(ValueError):
    """The bytes are not an ONNX file, or one that uses what is not read here."""


class Node(NamedTuple):
    """One operator's application. Inputs that are left out have empty names."""

    operator: str
    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]


class Input(NamedTuple):
    """What the network takes: a type of ``TYPES`` or empty, and sizes, None where one is not fixed."""

    type: str
    shape: Sequence[int | None]


class Graph(NamedTuple):
    """Nodes in an order in which they can be computed; the network's inputs and outputs in its own order."""

    version: int  # of ONNX's own operators
    nodes: Sequence[Node]
    weights: Mapping[str, np.ndarray]
    inputs: Mapping[str, Input]
    outputs: Sequence[str]


def read(path: str) -> Graph:
    """The graph of a file.

    Raises:
        OSError: it cannot be read.
        MalformedError: as the name says.
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise MalformedError("the file is empty")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return parse(content, os.path.dirname(path))


def parse(content: bytes | memoryview, directory: str = "") -> Graph:
    """The graph in bytes; ``directory`` is where files with weights are looked for.

    Raises:
        OSError: a file with weights cannot be read.
        MalformedError: as the name says.
    """
    try:
        model = _fields(memoryview(content))
        if isinstance(_last(model, 7), memoryview):
            return _graph(_fields(_last(model, 7)), _version(model), directory)
    except MalformedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"a field is not what ONNX has there: {error}") from error
    raise MalformedError("there is no graph in it")


def _version(model: Fields) -> int:
    sets = [_fields(one) for one in model.get(8, ())]
    return max((_last(one, 2, 1) for one in sets if not _text(_last(one, 1, b""))), default=1)


def _graph(fields: Fields, version: int, directory: str) -> Graph:
    weights = dict(_tensor(_fields(one), directory) for one in fields.get(5, ()))
    inputs = dict(_input(_fields(one)) for one in fields.get(11, ()))
    return Graph(
        version=version,
        nodes=[_node(_fields(one), directory) for one in fields.get(1, ())],
        weights=weights,
        inputs={name: one for name, one in inputs.items() if name not in weights},  # old files list weights among the inputs
        outputs=[_text(_last(_fields(one), 1)) for one in fields.get(12, ())],
    )


def _node(fields: Fields, directory: str) -> Node:
    return Node(
        operator=_text(_last(fields, 4, b"")),
        name=_text(_last(fields, 3, b"")),
        inputs=[_text(one) for one in fields.get(1, ())],
        outputs=[_text(one) for one in fields.get(2, ())],
        attributes=dict(_attribute(_fields(one), directory) for one in fields.get(5, ())),
    )


def _attribute(fields: Fields, directory: str) -> tuple[str, Any]:
    """Its name and value; None for a kind of value that is not read."""
    readers: dict[int, Callable[[], Any]] = {
        1: lambda: _floats(fields.get(2, ()), "<f4")[0],
        2: lambda: _signed(_last(fields, 3, 0)),
        3: lambda: _text(_last(fields, 4, b"")),
        4: lambda: _tensor(_fields(_last(fields, 5)), directory)[1],
        6: lambda: _floats(fields.get(7, ()), "<f4"),
        7: lambda: _integers(fields.get(8, ())),
    }
    read_it = readers.get(_last(fields, 20, 0))
    return _text(_last(fields, 1)), read_it() if read_it else None


def _input(fields: Fields) -> tuple[str, Input]:
    tensor = _fields(_last(_fields(_last(fields, 2, b"")), 1, b""))
    sizes = [_fields(one) for one in _fields(_last(tensor, 2, b"")).get(1, ())]
    shape = [_signed(size[1][-1]) if 1 in size else None for size in sizes]
    return _text(_last(fields, 1)), Input(TYPES.get(_last(tensor, 1, 0), ""), shape)


def _tensor(fields: Fields, directory: str) -> tuple[str, np.ndarray]:
    name, shape = _text(_last(fields, 8, b"")), _integers(fields.get(1, ()))
    if _last(fields, 2, 0) not in TYPES:
        raise MalformedError(f"{name} is of a type that is not read here")
    values = _values(fields, np.dtype(TYPES[_last(fields, 2)]), directory)
    if values.size != np.prod(shape, dtype=np.int64):
        raise MalformedError(f"{name} has {values.size} values, which do not fill {shape}")
    return name, values.reshape(shape)


def _values(fields: Fields, dtype: np.dtype[Any], directory: str) -> np.ndarray:
    """The values of a tensor: as its bytes, as those of a file, or as numbers by kind."""
    if _last(fields, 14, 0) == EXTERNAL:
        return _external(fields, dtype, directory)
    if 9 in fields:
        return _as_array(_last(fields, 9), dtype)
    if 4 in fields or 10 in fields:
        return np.array(_floats(fields.get(4, ()), "<f4") + _floats(fields.get(10, ()), "<f8"), dtype)
    numbers = _integers(fields.get(5, ())) + _integers(fields.get(7, ())) + _integers(fields.get(11, ()))
    if dtype == np.float16:
        return np.array(numbers, "<u2").view(dtype)
    return np.array(numbers, np.int64).astype(dtype)


def _external(fields: Fields, dtype: np.dtype[Any], directory: str) -> np.ndarray:
    entries = [_fields(one) for one in fields.get(13, ())]
    named = {_text(_last(entry, 1)): _text(_last(entry, 2, b"")) for entry in entries}
    if os.path.isabs(named["location"]) or ".." in named["location"].split("/"):
        raise MalformedError(f"weights lie outside of the file's directory: {named['location']}")
    with open(os.path.join(directory, named["location"]), "rb") as file:
        offset = int(named.get("offset", 0))
        there = os.fstat(file.fileno()).st_size - offset
        length = int(named.get("length", there))
        if offset < 0 or not 0 <= length <= there:
            raise MalformedError(f"{named['location']} does not have {length} bytes from {offset} on")
        file.seek(offset)
        return _as_array(memoryview(file.read(length)), dtype)


def _as_array(content: memoryview, dtype: np.dtype[Any]) -> np.ndarray:
    if len(content) % dtype.itemsize:
        raise MalformedError(f"{len(content)} bytes are no whole number of {dtype}")
    return np.frombuffer(content, dtype)


# ---------------------------------------------------------------- Protocol Buffers

if MYPY:
    Fields = dict[int, list[Any]]  # by number, all values in order: integers, or views of bytes


def _fields(content: memoryview | bytes) -> Fields:
    content = memoryview(content)
    found: Fields = {}
    for number, value in _walk(content):
        found.setdefault(number, []).append(value)
    return found


def _walk(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(content, place)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, place = _varint(content, place)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if kind == EIGHT_BYTES else 4
        else:
            raise MalformedError(f"there is no kind of field {kind}")
        if place + length > len(content):
            raise MalformedError("it ends within a field")
        yield key >> 3, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the least first, and the place after it."""
    value = shift = 0
    while shift < 70:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise MalformedError("a number has more than 64 bits")


def _last(fields: Fields, number: int, otherwise: Any = None) -> Any:
    """A field that occurs once; where it occurs again, the last counts."""
    return fields[number][-1] if number in fields else otherwise


def _text(value: memoryview | bytes) -> str:
    return bytes(memoryview(value)).decode()  # of a number bytes() would make as many


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _integers(values: Sequence[int | memoryview]) -> list[int]:
    """Numbers that stand alone, or packed in one field."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            found.append(_signed(number))
    return found


def _floats(values: Sequence[memoryview], dtype: str) -> list[float]:
    return [float(number) for value in values for number in np.frombuffer(value, dtype)]
