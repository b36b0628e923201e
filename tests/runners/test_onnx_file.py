"""The reader of ONNX files: what it takes from them, and what it makes of files that are none."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnxfile
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnxfile import Node, field

from aibenchd.runners import onnx_file

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
NODES = [
    Node("Gemm", ["x", "w", ""], ["y"], {"transB": 1, "alpha": 0.5, "name": "é", "sizes": [1, -2], "weights": [0.5, 1.5]}),
    Node("Constant", [], ["c"], {"value": np.array([7], np.int64), "body": onnxfile.graph([], [])}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    inputs = {"x": ("float32", [1, None, "length", 3]), "n": ("int64", [])}
    return onnxfile.write(tmp_path / "net.onnx", NODES, inputs, ["y", "c"], {"w": WEIGHT}, version=17)


def test_what_is_in_a_file(path: Path) -> None:
    found = onnx_file.read(str(path))
    assert found.version == 17
    assert found.inputs == {"x": ("float32", [1, None, None, 3]), "n": ("int64", [])}
    assert found.outputs == ["y", "c"]
    gemm, constant = found.nodes
    assert (gemm.operator, gemm.inputs, gemm.outputs) == ("Gemm", ["x", "w", ""], ["y"])
    assert gemm.attributes == {"transB": 1, "alpha": 0.5, "name": "é", "sizes": [1, -2], "weights": [0.5, 1.5]}
    assert constant.attributes["value"].tolist() == [7]
    assert constant.attributes["body"] is None  # subgraphs are not read
    assert np.array_equal(found.weights["w"], WEIGHT)
    assert found.weights["w"].dtype == np.float32


def test_inputs_of_old_files_that_are_weights_are_none(tmp_path: Path) -> None:
    inputs = {"w": ("float32", [2, 3]), "x": ("float32", [1, 2])}
    path = onnxfile.write(tmp_path / "net.onnx", NODES[:1], inputs, ["y"], {"w": WEIGHT})
    assert list(onnx_file.read(str(path)).inputs) == ["x"]


def weight(*content: bytes) -> np.ndarray:
    """Of shape [2], from fields of a TensorProto."""
    tensor = field(1, 2) + field(8, "w") + b"".join(content)
    return onnx_file.parse(onnxfile.model(field(5, tensor))).weights["w"]


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("float32", field(4, struct.pack("<2f", 1.5, -2)), [1.5, -2]),
        ("float32", field(4, 1.5) + field(4, -2.0), [1.5, -2]),
        ("float64", field(10, struct.pack("<2d", 1.5, -2)), [1.5, -2]),
        ("int32", field(5, onnxfile.varint(7) + onnxfile.varint((1 << 64) - 2)), [7, -2]),
        ("int64", field(7, 7) + field(7, -2), [7, -2]),
        ("float16", field(5, 0x3E00) + field(5, 0xC000), [1.5, -2]),
        ("bool", field(5, 1) + field(5, 0), [True, False]),
        ("uint8", field(9, b"\x07\xff"), [7, 255]),
    ],
)
def test_weights_as_numbers_of_each_kind(kind: str, content: bytes, expected: list[float]) -> None:
    found = weight(field(2, onnxfile.TYPES.index(kind)), content)
    assert (str(found.dtype), found.tolist()) == (kind, expected)


def in_file(location: str, **more: str) -> bytes:
    entries = {"location": location, **more}
    written = b"".join(field(13, field(1, key) + field(2, text)) for key, text in entries.items())
    tensor = field(1, 2) + field(2, 1) + field(8, "w") + field(14, 1) + written
    return onnxfile.model(field(5, tensor))


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    (tmp_path / "net.onnx").write_bytes(in_file("net.data", offset="4", length="8"))
    assert onnx_file.read(str(tmp_path / "net.onnx")).weights["w"].tolist() == [2, 3]
    (tmp_path / "net.onnx").write_bytes(in_file("net.data", offset="8"))
    assert onnx_file.read(str(tmp_path / "net.onnx")).weights["w"].tolist() == [3, 4]


@pytest.mark.parametrize(
    "place", [{"offset": "4", "length": "13"}, {"length": "1" + "0" * 15}, {"offset": "17"}, {"offset": "-4"}, {"length": "-4"}]
)
def test_more_weights_than_a_file_has_are_refused(tmp_path: Path, place: dict[str, str]) -> None:
    (tmp_path / "net.data").write_bytes(bytes(16))
    (tmp_path / "net.onnx").write_bytes(in_file("net.data", **place))
    with pytest.raises(onnx_file.MalformedError, match=r"net\.data does not have"):
        onnx_file.read(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("location", ["../net.data", "/etc/passwd", "a/../../b"])
def test_weights_elsewhere_are_refused(location: str) -> None:
    with pytest.raises(onnx_file.MalformedError, match="outside of the file's directory"):
        onnx_file.parse(in_file(location))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "there is no graph in it"),
        (b"not an ONNX file", "there is no kind of field"),
        (onnxfile.model(b"")[:-3], "it ends within a field"),
        (b"\x80" * 11, "more than 64 bits"),
        (field(7, 5), "there is no graph in it"),
        (onnxfile.model(field(5, field(1, 3) + field(2, 1) + field(8, "w") + field(9, b"1234"))), "w has 1 values"),
        (onnxfile.model(field(5, field(1, 1) + field(2, 1) + field(9, b"123"))), "no whole number of float32"),
        (onnxfile.model(field(5, field(1, 1) + field(2, 8) + field(8, "w"))), "w is of a type that is not read here"),
        (onnxfile.model(field(1, field(4, b"\xff"))), "is not what ONNX has there"),
        (onnxfile.model(field(1, field(4, 1 << 60))), "is not what ONNX has there"),  # a text of as many bytes
    ],
)
def test_what_is_no_onnx_file_is_said(content: bytes, said: str) -> None:
    with pytest.raises(onnx_file.MalformedError, match=said):
        onnx_file.parse(content)


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with pytest.raises(onnx_file.MalformedError, match="the file is empty"):
        onnx_file.read(str(tmp_path / "net.onnx"))


@given(st.data())
def test_damaged_files_are_read_or_refused(data: st.DataObject) -> None:
    body = (
        onnxfile.graph(NODES, ["y"]) + field(11, onnxfile.value("x", "float32", [1, 2])) + field(5, onnxfile.tensor(WEIGHT, "w"))
    )
    content = bytearray(onnxfile.model(body))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(content[: data.draw(st.integers(0, len(content)))]))


@given(st.binary(max_size=200))
@example(field(7, field(5, field(1, -1) + field(1, -2) + field(2, 3) + field(9, b"ab"))))
@example(field(7, field(5, field(1, 1 << 62) * 3 + field(2, 3))))
@example(field(7, field(5, field(2, 3) + field(14, 1) + field(13, field(1, "location") + field(2, "\x00")))))
@example(field(8, field(2, b"x")) + field(7, b""))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    read_or_refused(content)


def read_or_refused(content: bytes) -> None:
    try:
        found = onnx_file.parse(content)
    except (onnx_file.MalformedError, OSError):
        return
    assert all(isinstance(array, np.ndarray) for array in found.weights.values())
