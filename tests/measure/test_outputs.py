"""Outputs laid beside what they should be."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aibenchd import errors
from aibenchd.measure import outputs
from aibenchd.specs import schema

FLOATS = arrays.arrays(
    np.float32, st.integers(1, 20).map(lambda n: (2, n)), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
)


def described(name: str, **keys: object) -> schema.OutputFile:
    return schema.OutputFile.model_validate({"filename": name, **keys})


def test_measures_by_value() -> None:
    reference = np.array([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]], np.float32)
    output = np.array([[1.0, 2.5, 2.0], [3.0, 0.01, 1.0]], np.float32)
    measures = outputs.compare(output, reference).measures
    assert measures["max_absolute"] == 2.0
    assert measures["max_relative"] == pytest.approx(0.5)  # of 4; the 0 counts as 0.04
    assert measures["rmse"] == pytest.approx(np.sqrt((0.25 + 4 + 0.0001) / 6), rel=1e-6)
    assert measures["top1_flips"] == 1
    expected = 1 - (1 + 5 + 8 + 9 + 0 + 1) / (np.sqrt(1 + 6.25 + 4 + 9 + 0.0001 + 1) * np.sqrt(1 + 4 + 16 + 9 + 1))
    assert measures["cosine"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulp_counts_floats_between(dtype: type[np.floating]) -> None:
    one = np.array([1.0, -0.0, -1.0], dtype)
    three_on = one.copy()
    for _ in range(3):
        three_on = np.nextafter(three_on, dtype(2))
    assert outputs.compare(three_on, one).measures["ulp"] == 3
    assert outputs.compare(np.array([0.0], dtype), np.array([-0.0], dtype)).measures["ulp"] == 0


@given(FLOATS)
def test_an_output_is_no_distance_from_itself(values: np.ndarray) -> None:
    found = outputs.compare(values, values.copy())
    assert not found.fault
    assert all(value == pytest.approx(0, abs=1e-12) for value in found.measures.values())


@given(FLOATS, st.integers(0, 39), st.floats(0.5, 2.0))
def test_one_wrong_value_shows_in_the_largest_errors(values: np.ndarray, place: int, by: float) -> None:
    output = values.astype(np.float64)
    output.flat[place % output.size] += by * (1 + abs(output).max())
    found = outputs.compare(output.astype(np.float32), values)
    assert found.measures["max_absolute"] > 0
    assert found.beyond({"max_relative": 1e-3})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.ones((1, 3), np.float32), r"shape \[1, 3\], expected \[2, 3\]"),
        (np.array([[1, 2, 3], [4, np.nan, 6]], np.float32), r"holds nan at \[1, 1\], 1 such in all"),
        (np.array([[1, 2, -np.inf], [4, np.inf, 6]], np.float32), r"holds -inf at \[0, 2\], 2 such in all"),
    ],
)
def test_what_cannot_be_laid_beside_is_named(output: np.ndarray, message: str) -> None:
    found = outputs.compare(output, np.ones((2, 3), np.float32))
    assert not found.measures
    assert re.search(message, found.beyond({}))


@pytest.mark.parametrize(("text", "shape"), [("2,2\n1,2,3,4\n", [2, 2]), ("2 2\n1 2\n3 4\n", [2, 2]), ("1 2\n3 4", [2, 2])])
def test_a_row_of_sizes_before_the_values_is_none_of_them(tmp_path: Path, text: str, shape: list[int]) -> None:
    (tmp_path / "a.txt").write_text(text)
    found = outputs.read(tmp_path / "a.txt", described("a.txt", shape=shape), "output a")
    assert found.tolist() == [[1, 2], [3, 4]]


def test_every_form_is_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 4
    np.save(tmp_path / "a.npy", values)
    values.tofile(tmp_path / "a.raw")
    (tmp_path / "a.txt").write_text("0 0.25 0.5\n0.75, 1,1.25\n")
    forms = [
        described("a.npy"),
        described("a.raw", type="float", shape=[2, 3]),
        described("a.txt", shape=[2, 3]),
    ]
    for one in forms:
        found = outputs.read(tmp_path / one.filename, one, "output")
        assert found.dtype == np.float32
        assert np.array_equal(found, values)


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("a.npy", b"no array at all", {}, "output a: cannot be read as npy"),
        ("a.npy", b"", {}, "output a: cannot be read as npy"),
        ("a.raw", b"123", {"type": "float32"}, "3 bytes are no whole number of float32"),
        ("a.raw", b"12345678", {"type": "float32", "shape": [3]}, r"holds 2 numbers, expected the shape \[3\]"),
        ("a.txt", b"1 2 three 4", {}, "'three' is no number"),
        ("a.txt", b"1 2 3", {"shape": [2, 2]}, r"holds 3 numbers, expected the shape \[2, 2\]"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    tmp_path: Path, name: str, content: bytes, keys: dict[str, object], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.CommandError, match=message):
        outputs.read(tmp_path / name, described(name, **keys), "output a")


def npy(header: str) -> bytes:
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 70},)}}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}") + b"1234",
        npy("((("),
        npy("{[]: 1}"),
        b"PK\x03\x04 no archive",
    ],
)
def test_a_hostile_header_is_no_allocation_and_no_other_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(errors.CommandError, match="cannot be read as npy"):
        outputs.read(tmp_path / "a.npy", described("a.npy"), "output a")


def test_the_order_of_bytes_makes_no_difference(tmp_path: Path) -> None:
    values = np.array([1.0, 2.0], ">f8")
    np.save(tmp_path / "a.npy", values)
    found = outputs.read(tmp_path / "a.npy", described("a.npy"), "output a")
    assert outputs.compare(found, np.nextafter(np.array([1.0, 2.0]), 3)).measures["ulp"] == 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.bool_])
def test_a_limit_of_ulp_holds_for_integers_too(dtype: type[np.generic]) -> None:
    found = outputs.compare(np.array([1, 0], dtype), np.array([0, 0], dtype))
    assert found.beyond({"ulp": 0}) == "ulp 1 (at most 0)"


def test_what_no_float_holds_is_named() -> None:
    found = outputs.compare(np.array([1e308]), np.array([-1e308]))
    assert found.beyond({"cosine": 2}) == "differs by more than a float64 holds"


def test_a_large_output_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    output, reference = rng.normal(size=(5, 7)), rng.normal(size=(5, 7)).astype(np.float32)
    broken = np.where(np.arange(35).reshape(5, 7) % 13 == 12, np.nan, output)
    whole, bad = outputs.compare(output, reference).measures, outputs.compare(broken, reference).fault
    assert bad == "holds nan at [1, 5], 2 such in all"
    monkeypatch.setattr(outputs, "PART", 4)
    assert outputs.compare(output, reference).measures == pytest.approx(whole)
    assert outputs.compare(broken, reference).fault == bad


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_what_is_said(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, keys in (("a.npy", {}), ("a.raw", {"type": "float64"}), ("a.txt", {})):
            path = Path(directory) / name
            path.write_bytes(content)
            try:
                found = outputs.read(path, described(name, **keys), "output")
            except errors.CommandError:
                continue
            outputs.compare(found, found)
