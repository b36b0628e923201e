"""What a program computed, laid beside what it should have computed. Blocking; numpy is imported when it is needed.

==============  ==================================================================================================
measure         of an output a and a reference r, over all their elements
==============  ==================================================================================================
max_absolute    largest |a - r|
max_relative    largest |a - r| / max(|r|, a hundredth of the largest |r|): what is next to nothing beside the others
                does not make an error large
rmse            root of the mean of (a - r)^2
cosine          1 - a·r / (|a| |r|): 0 where both point the same way; 0 too where both are zero, 1 where one is
ulp             most floats of the output's own type that lie between a and r, counting one end (Goldberg 1991);
                of integers, most integers
top1_flips      how many rows along the last axis have their largest element at another place
==============  ==================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aibenchd import errors
from aibenchd.specs import schema

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray

LARGEST_TEXT = 16 << 20  # bytes; as numbers it takes many times as much
PART = 1 << 20  # numbers that are compared at a time: an output of a gigabyte must not take several
SMALL = 0.01  # of the largest reference: what is smaller counts as large as that in max_relative
SHOWN = 80  # characters of what is no number


@dataclass(frozen=True, slots=True)
class Compared:
    """Attributes:
    measures: by name; empty where the two cannot be laid side by side.
    fault: why they cannot; empty where they can.
    """

    measures: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""

    def beyond(self, limits: Mapping[str, float]) -> str:
        """What is wrong, for a person; empty where every measure is within its limit."""
        over = [
            f"{name} {self.measures[name]:.4g} (at most {limit:g})" for name, limit in limits.items() if self._over(name, limit)
        ]
        return self.fault or ", ".join(over)

    def _over(self, name: str, limit: float) -> bool:
        return name in self.measures and not self.measures[name] <= limit


def compare(output: Array, reference: Array) -> Compared:
    """Lay an output beside a reference of the same shape."""
    if output.shape != reference.shape:
        return Compared(fault=f"shape {list(output.shape)}, expected {list(reference.shape)}")
    fault = _not_finite("", output) or _not_finite("the reference ", reference)
    if fault:
        return Compared(fault=fault)
    if not output.size:
        return Compared({})
    pairs = _Pairs(output, reference)
    if not math.isfinite(pairs.distance):
        return Compared(fault="differs by more than a float64 holds")
    squares, cosine, relative = pairs.sums()
    flips = _largest(output) != _largest(reference)
    measures = {
        "max_absolute": pairs.distance,
        "max_relative": relative,
        "rmse": pairs.distance * math.sqrt(squares / output.size),
        "cosine": cosine,
        "top1_flips": float(flips.sum()),
        "ulp": _steps_between(output, reference) if output.dtype.kind == "f" else pairs.distance,
    }
    return Compared(measures)


def _not_finite(whose: str, values: Array) -> str:
    import numpy as np

    flat, found, first = values.reshape(-1), 0, 0
    for start in range(0, flat.size, PART):
        bad = np.flatnonzero(~np.isfinite(flat[start : start + PART].astype(np.float64)))
        first = first if found or not bad.size else start + int(bad[0])
        found += bad.size
    place = [int(index) for index in np.unravel_index(first, values.shape)] if found else []
    return f"{whose}holds {flat[first]} at {place}, {found} such in all" if found else ""


class _Pairs:
    """An output and a reference, element by element, as float64.

    Attributes:
        distance: the largest between the two.
    """

    def __init__(self, output: Array, reference: Array) -> None:
        import numpy as np

        self._output, self._reference = output.reshape(-1), reference.reshape(-1)
        self.distance = self._largest_output = self._largest_reference = 0.0
        with np.errstate(over="ignore"):
            for a, r in self._parts():
                self.distance = max(self.distance, float(np.abs(a - r).max()))
                self._largest_output = max(self._largest_output, float(np.abs(a).max()))
                self._largest_reference = max(self._largest_reference, float(np.abs(r).max()))

    def sums(self) -> tuple[float, float, float]:
        """Squares of distances, as parts of the largest; the cosine's distance; the largest relative distance."""
        import numpy as np

        floor = max(self._largest_reference * SMALL, float(np.finfo(np.float64).tiny))
        squares, relative, products = 0.0, 0.0, np.zeros(3)
        for a, r in self._parts():
            distance = np.abs(a - r)
            relative = max(relative, float((distance / np.maximum(np.abs(r), floor)).max()))
            squares += float(np.sum((distance / (self.distance or 1.0)) ** 2))
            a, r = a / (self._largest_output or 1.0), r / (self._largest_reference or 1.0)  # so that no square overflows
            products += (a @ r, a @ a, r @ r)
        return squares, _cosine(*map(float, products)), relative

    def _parts(self) -> Iterator[tuple[Array, Array]]:
        import numpy as np

        for start in range(0, self._output.size, PART):
            part = slice(start, start + PART)
            yield self._output[part].astype(np.float64), self._reference[part].astype(np.float64)


def _cosine(product: float, output: float, reference: float) -> float:
    """The distance, of the product of two vectors and the square of each."""
    if not output or not reference:
        return float(bool(output or reference))
    return max(0.0, 1.0 - product / (math.sqrt(output) * math.sqrt(reference)))


def _largest(values: Array) -> Array:
    """Where in each row along the last axis its largest element is."""
    rows: Array = (values if values.ndim else values.reshape(1)).argmax(axis=-1)
    return rows


def _steps_between(output: Array, reference: Array) -> float:
    """The most floats of the output's type between two."""
    import numpy as np

    most, a, r = 0.0, output.reshape(-1), reference.reshape(-1)
    for start in range(0, a.size, PART):
        one = _steps(a[start : start + PART])
        with np.errstate(over="ignore"):
            other = _steps(r[start : start + PART].astype(output.dtype))
        most = max(most, float(np.where(one > other, one - other, other - one).max()))
    return most


def _steps(values: Array) -> Array:
    """The place of each float among all floats of its type; both zeros are at 2^63."""
    import numpy as np

    bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign, middle = np.uint64(1 << (values.dtype.itemsize * 8 - 1)), np.uint64(1 << 63)
    size = bits & (sign - np.uint64(1))
    return np.where(bits & sign, middle - size, middle + size)


def read(path: Path, described: schema.OutputFile, name: str) -> Array:
    """The array in a file.

    Args:
        described: says its form, and of a raw file or a text also type and shape.
        name: of the file, for messages.

    Raises:
        CommandError: it is not what it is described as.
    """
    try:
        values = {"npy": _npy, "raw": _raw, "text": _text}[described.form](path, described)
    except Exception as error:  # the bytes are a program's: numpy raises whatever it meets in them
        raise errors.CommandError(f"{name}: cannot be read as {described.form}: {_first_line(error)}") from error
    if values.dtype.kind not in "fiub":
        raise errors.CommandError(f"{name}: holds {values.dtype}, expected numbers")
    return _native(values)


def _native(values: Array) -> Array:
    """In this host's order of bytes; a float that is longer than 64 bits as one of 64."""
    import numpy as np

    dtype = np.dtype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize > 8 else values.dtype
    return values.astype(dtype.newbyteorder("="), copy=False)


def _npy(path: Path, _: schema.OutputFile) -> Array:
    import numpy as np

    # Mapped: a header that promises more than the file holds is an error then, and not an allocation.
    return np.lib.format.open_memmap(path, mode="r")


def _raw(path: Path, described: schema.OutputFile) -> Array:
    import numpy as np

    dtype = np.dtype(described.type or "uint8")
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise ValueError(f"{size} bytes are no whole number of {dtype}")
    return _shaped(np.fromfile(path, dtype.newbyteorder("<")).astype(dtype), described)


def _text(path: Path, described: schema.OutputFile) -> Array:
    import numpy as np

    if path.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"is larger than {LARGEST_TEXT} bytes; have the program write .npy or raw")
    text = path.read_text(errors="replace")
    if described.shape is not None and _sizes(text) == list(described.shape):
        text = text.partition("\n")[2]
    words = text.replace(",", " ").split()
    return _shaped(np.array([_number(word) for word in words]).astype(described.type or "float32"), described)


def _sizes(text: str) -> list[int]:
    """The row of sizes with which Caffe2's own programs begin; no other has a row of these very numbers before its values."""
    first, _, rest = text.partition("\n")
    words = first.replace(",", " ").split()
    return [int(word) for word in words] if rest.strip() and all(word.isdecimal() for word in words) else []


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word[:SHOWN]!r} is no number") from None


def _shaped(values: Array, described: schema.OutputFile) -> Array:
    if described.shape is None:
        return values
    try:
        return values.reshape(described.shape)
    except ValueError:
        raise ValueError(f"holds {values.size} numbers, expected the shape {list(described.shape)}") from None


def _first_line(error: BaseException) -> str:
    text: Any = str(error).strip() or type(error).__name__
    return str(text).splitlines()[0]
