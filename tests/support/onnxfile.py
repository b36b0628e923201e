"""Small networks in ONNX files, written without the package that does it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TYPES = (
    "",
    "float32",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "",
    "bool",
    "float16",
    "float64",
    "uint32",
    "uint64",
)
Sizes = Sequence[int | str | None]  # a name, or None, where any size will do


class Node(NamedTuple):
    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any] = {}


def write(
    path: Path,
    nodes: Sequence[Node],
    inputs: Mapping[str, tuple[str, Sizes]],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None,
    version: int = 20,
) -> Path:
    """A network: types and shapes of its inputs are given, those of its outputs are left to who reads it."""
    described = b"".join(field(11, value(name, kind, sizes)) for name, (kind, sizes) in inputs.items())
    kept = b"".join(field(5, tensor(array, name)) for name, array in (weights or {}).items())
    path.write_bytes(model(graph(nodes, outputs) + described + kept, version))
    return path


def model(body: bytes, version: int = 20) -> bytes:
    return field(1, 8) + field(7, body) + field(8, field(1, "") + field(2, version))


def graph(nodes: Sequence[Node], outputs: Sequence[str]) -> bytes:
    """What a network and a subgraph have both."""
    written = b"".join(field(1, node(one)) for one in nodes) + field(2, "net")
    return written + b"".join(field(12, field(1, name)) for name in outputs)


def node(one: Node) -> bytes:
    names = b"".join(field(1, name) for name in one.inputs) + b"".join(field(2, name) for name in one.outputs)
    attributes = b"".join(field(5, attribute(name, given)) for name, given in one.attributes.items())
    return names + field(4, one.operator) + attributes


def attribute(name: str, given: Any) -> bytes:
    """A graph is given as bytes."""
    match given:
        case int():
            content = field(3, given) + field(20, 2)
        case float():
            content = field(2, given) + field(20, 1)
        case str():
            content = field(4, given) + field(20, 3)
        case np.ndarray():
            content = field(5, tensor(given, "")) + field(20, 4)
        case bytes():
            content = field(6, given) + field(20, 5)
        case [float(), *_]:
            content = b"".join(field(7, number) for number in given) + field(20, 6)
        case _:
            content = b"".join(field(8, number) for number in given) + field(20, 7)
    return field(1, name) + content


def tensor(array: np.ndarray, name: str) -> bytes:
    sizes = b"".join(field(1, size) for size in array.shape)
    return sizes + field(2, TYPES.index(str(array.dtype))) + field(8, name) + field(9, array.tobytes())


def value(name: str, kind: str, sizes: Sizes) -> bytes:
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size or "")) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, TYPES.index(kind)) + field(2, dims)))


def field(number: int, content: int | float | str | bytes) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content & (1 << 64) - 1)
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(number: int) -> bytes:
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
