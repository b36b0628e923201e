"""What a program computed, laid beside what it should have computed. Blocking; numpy is imported when it is needed.

==============  ==================================================================================================
measure         of an output a and a reference r, over all their elements
==============  ==================================================================================================
max_absolute    largest |a - r|
max_relative    largest |a - r| / max(|r|, a hundredth of the largest |r|): what is next to nothing beside the others
                does not make an error large
rmse            root of the mean of (a - r)^2
cosine          1 - a·r / (|a| |r|): 0 where both point the same way; 0 too where both are zero, 1 where one is
ulp             most floats of the output's own type that lie between a and r, counting one end (Goldberg 1991)
top1_flips      how many rows along the last axis have their largest element at another place
==============  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aibenchd import errors
from aibenchd.specs import schema

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray

LARGEST_TEXT = 64 << 20  # bytes; as numbers it takes many times as much
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
    import numpy as np

    if output.shape != reference.shape:
        return Compared(fault=f"shape {list(output.shape)}, expected {list(reference.shape)}")
    for whose, values in (("", output), ("the reference ", reference)):
        bad = np.argwhere(~np.isfinite(values.astype(np.float64)))
        if len(bad):
            return Compared(fault=f"{whose}holds {values[tuple(bad[0])]} at {bad[0].tolist()}, {len(bad)} such in all")
    if not output.size:
        return Compared({})
    a, r = output.astype(np.float64), reference.astype(np.float64)
    distance = np.abs(a - r)
    measures = {
        "max_absolute": float(distance.max()),
        "max_relative": _relative(distance, np.abs(r)),
        "rmse": float(distance.max() and np.sqrt(np.mean((distance / distance.max()) ** 2)) * distance.max()),
        "cosine": _cosine(a.ravel(), r.ravel()),
        "top1_flips": float(np.count_nonzero(_rows(a).argmax(axis=-1) != _rows(r).argmax(axis=-1))),
    }
    if output.dtype.kind == "f" and output.dtype.itemsize <= 8:
        measures["ulp"] = float(np.abs(_steps(output) - _steps(reference.astype(output.dtype))).max())
    return Compared(measures)


def _relative(distance: Array, size: Array) -> float:
    import numpy as np

    floor = max(float(size.max()) * SMALL, np.finfo(np.float64).tiny)
    return float((distance / np.maximum(size, floor)).max())


def _cosine(a: Array, r: Array) -> float:
    import numpy as np

    if not a.any() or not r.any():
        return float(a.any() or r.any())
    a, r = a / np.abs(a).max(), r / np.abs(r).max()  # so that no square overflows
    return max(0.0, 1.0 - float(a @ r) / float(np.linalg.norm(a) * np.linalg.norm(r)))


def _rows(values: Array) -> Array:
    return values if values.ndim else values.reshape(1)


def _steps(values: Array) -> Array:
    """The place of each float among all floats of its type, as a number that a float64 holds well enough for a distance."""
    import numpy as np

    width = values.dtype.itemsize * 8
    bits = np.ascontiguousarray(values).view(f"i{values.dtype.itemsize}").astype(object if width == 64 else np.int64)
    return np.where(bits < 0, -(1 << (width - 1)) - bits, bits)


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
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise errors.CommandError(f"{name}: cannot be read as {described.form}: {_first_line(error)}") from error
    if values.dtype.kind not in "fiub":
        raise errors.CommandError(f"{name}: holds {values.dtype}, expected numbers")
    return values


def _npy(path: Path, _: schema.OutputFile) -> Array:
    import numpy as np

    # Mapped first: a header that promises more than the file holds is an error then, and not an allocation.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.ndarray):
        raise ValueError("is an archive of arrays, expected one array")
    return np.array(mapped)


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
