"""Durations and sizes as people write them: ``90s``, ``1h30m``, ``20GiB``."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any

import pydantic

_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "kB": 10**3,
    "B": 1,
}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
LONGEST = 36500 * 86400.0  # seconds; the calendar's arithmetic still holds
LARGEST = 2**63 - 1  # bytes


def seconds(text: Any) -> float:
    """``"1h30m"`` as seconds.

    Raises:
        ValueError: it does not read as a duration, or is longer than a hundred years.
    """
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError("expected a duration with its unit, such as 90s, 15m or 1h30m")
    total = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])", text))
    if total > LONGEST:
        raise ValueError("expected a duration of at most 36500d")
    return total


def some_seconds(text: Any) -> float:
    """As :func:`seconds`, for what must take time.

    Raises:
        ValueError: it is shorter than a millisecond, or no duration.
    """
    total = seconds(text)
    if total < _SECONDS["ms"]:
        raise ValueError("expected a duration of at least 1ms")
    return total


def size(text: Any) -> int:
    """``"20GiB"`` as bytes, rounded down.

    Raises:
        ValueError: it does not read as a size, or does not fit in 64 bits.
    """
    match = re.fullmatch(r"([0-9]+)(\.[0-9]+)?([A-Za-z]+)", text) if isinstance(text, str) else None
    if match is None or match[3] not in _BYTES:
        raise ValueError("expected a size with its unit, such as 512MiB or 20GiB")
    if len(match[1]) > len(str(LARGEST)):
        raise ValueError("expected a size of less than 8388608TiB")
    total = int(match[1]) * _BYTES[match[3]] + int(float(match[2] or 0) * _BYTES[match[3]])
    if total > LARGEST:
        raise ValueError("expected a size of less than 8388608TiB")
    return total


def duration_text(total: float) -> str:
    """Seconds as :func:`seconds` reads them: ``5400.0`` as ``1h30m``. Milliseconds are the finest."""
    left = round(total * 1000)
    parts = []
    for unit, each in itertools.islice(_SECONDS.items(), 1, None):  # 90d reads better than 12w6d
        count, left = divmod(left, round(each * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def size_text(total: int) -> str:
    """Bytes as :func:`size` reads them, exactly: ``20 << 30`` as ``20GiB``."""
    unit, each = next((unit, each) for unit, each in _BYTES.items() if total % each == 0 and (total or each == 1))
    return f"{total // each}{unit}"


# Not WithJsonSchema: it would drop the description of a key whose type may also be None.
_DURATION_SCHEMA = pydantic.Field(
    json_schema_extra={"type": "string", "pattern": DURATION_PATTERN, "examples": ["90s", "15m", "1h30m"]}
)
_DURATION_TEXT = pydantic.PlainSerializer(duration_text, return_type=str, when_used="json")

Duration = Annotated[float, pydantic.BeforeValidator(seconds), _DURATION_TEXT, _DURATION_SCHEMA]
Interval = Annotated[float, pydantic.BeforeValidator(some_seconds), _DURATION_TEXT, _DURATION_SCHEMA]
Size = Annotated[
    int,
    pydantic.BeforeValidator(size),
    pydantic.PlainSerializer(size_text, return_type=str, when_used="json"),
    pydantic.Field(json_schema_extra={"type": "string", "pattern": SIZE_PATTERN, "examples": ["512MiB", "20GiB"]}),
]
