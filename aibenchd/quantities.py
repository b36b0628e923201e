"""Durations and sizes as people write them: ``90s``, ``1h30m``, ``20GiB``."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pydantic

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"
SIZE_PATTERN = r"^\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"


def seconds(text: Any) -> Any:
    """``"1h30m"`` as seconds. What is no text is returned as it came, for pydantic to judge.

    Raises:
        ValueError: it does not read as a duration.
    """
    if not isinstance(text, str):
        if isinstance(text, int | float) and not isinstance(text, bool) and text == 0:
            return 0.0
        raise ValueError("expected a duration with its unit, such as 90s, 15m or 1h30m")
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"expected a duration such as 90s, 15m or 1h30m, not {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text))


def size(text: Any) -> Any:
    """``"20GiB"`` as bytes. What is no text is returned as it came, for pydantic to judge.

    Raises:
        ValueError: it does not read as a size.
    """
    if not isinstance(text, str):
        raise ValueError("expected a size with its unit, such as 512MiB or 20GiB")
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError(f"expected a size such as 512MiB or 20GiB, not {text!r}")
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(float(number) * _BYTES[unit])


Duration = Annotated[
    float,
    pydantic.BeforeValidator(seconds),
    pydantic.WithJsonSchema({"type": ["string", "integer"], "pattern": DURATION_PATTERN, "examples": ["90s", "15m", "1h30m"]}),
]
Size = Annotated[
    int,
    pydantic.BeforeValidator(size),
    pydantic.WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["512MiB", "20GiB"]}),
]
