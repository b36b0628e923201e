"""What a vendor's tool prints, as the rest of the house reads it: samples as observer lines, facts as names and values. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

import pydantic

IDENTIFIER = "PyTorchObserver "  # which every framework reads
LONGEST_ROW = 16 << 10  # characters; a longer one holds no metric
MOST_MATCHES = 100_000  # of one output
MOST_FACTS = 256
LONGEST_FACT = 1000  # characters
NUMBERS = ("temperature", "load", "battery", "charge", "voltage")  # facts that gates and meters read
SHOWN = 100  # characters of an output that a message repeats

_NAMED = ("type", "metric", "unit")


class Metric(pydantic.BaseModel):
    """A row of the tool's own text that holds samples."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    pattern: Annotated[
        str,
        pydantic.Field(
            description="regular expression that is looked for in each row; its groups are named value (a number) or text (such "
            "as a backend's name), and type, metric and unit where these keys do not say them"
        ),
    ]
    type: Annotated[str, pydantic.Field(description="such as NET, or ID_0_Conv for an operator")] = ""
    metric: Annotated[str, pydantic.Field(description="such as latency")] = ""
    unit: Annotated[str, pydantic.Field(description="such as us")] = ""

    @pydantic.field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if len({"value", "text"} & groups.keys()) != 1:
            raise ValueError("needs one group that is named value or text, such as (?P<value>[0-9.]+)")
        if unknown := sorted(groups.keys() - {"value", "text", *_NAMED}):
            raise ValueError(f"has a group that is named {unknown[0]}; known: value, text, {', '.join(_NAMED)}")
        return pattern

    @pydantic.model_validator(mode="after")
    def _named_once(self) -> Self:
        groups = re.compile(self.pattern).groupindex
        for name in _NAMED:
            if getattr(self, name) and name in groups:
                raise ValueError(f"{name} is said twice, by the key and by a group of the pattern; remove one")
            if name != "unit" and not getattr(self, name) and name not in groups:
                raise ValueError(f"nothing says the {name}; add the key, or a group (?P<{name}>…) to the pattern")
        return self


def observed(text: str, metrics: Sequence[Metric]) -> tuple[list[str], list[str]]:
    """Observer lines of all that ``metrics`` find in an output, in its order; and for a person, what was not as expected."""
    compiled = [(re.compile(metric.pattern), metric) for metric in metrics]
    lines: list[str] = []
    notes: dict[str, None] = {}
    seen: set[str] = set()
    for match, metric in _matches(text, compiled):
        if len(lines) >= MOST_MATCHES:
            notes[f"more than {MOST_MATCHES} samples were printed; the others are left out"] = None
            break
        seen.add(metric.pattern)
        groups = {name: found or "" for name, found in match.groupdict().items()}
        if "value" in groups and not _is_number(groups["value"]):
            notes[f"metrics: {groups['value'][:SHOWN]!r} is no number, which the group value of {metric.pattern!r} found"] = None
        else:
            lines.append(IDENTIFIER + json.dumps(_record(metric, groups)))
    for metric in metrics:
        if metric.pattern not in seen:
            notes[f"metrics: no row that was printed matches {metric.pattern!r}"] = None
    return lines, list(notes)


def _matches(text: str, compiled: Sequence[tuple[re.Pattern[str], Metric]]) -> Iterator[tuple[re.Match[str], Metric]]:
    for row in text.splitlines():
        if len(row) <= LONGEST_ROW:
            for pattern, metric in compiled:
                for match in pattern.finditer(row):
                    yield match, metric


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _record(metric: Metric, groups: Mapping[str, str]) -> dict[str, str]:
    record = {name: getattr(metric, name) or groups.get(name, "") for name in _NAMED}
    return record | ({"value": groups["value"]} if "value" in groups else {"info_string": groups["text"]})


def facts(text: str) -> dict[str, str]:
    """Names and values: a JSON object, or rows ``name: value``; rows without a colon are skipped.

    Raises:
        ValueError: it is neither.
    """
    found = _object(text) if text.lstrip().startswith("{") else _rows(text)
    if not found:
        raise ValueError(f"expected rows 'name: value' or a JSON object, found {text.strip()[:SHOWN]!r}")
    bounded = list(found.items())[:MOST_FACTS]
    return {name[:LONGEST_FACT]: value[:LONGEST_FACT] for name, value in bounded}


def no_numbers(found: Mapping[str, str]) -> list[str]:
    """The names of those that should be numbers and are none."""
    return [name for name in NUMBERS if name in found and not _is_number(found[name])]


def _object(text: str) -> dict[str, str]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in loaded.items()}


def _rows(text: str) -> dict[str, str]:
    split = (row.partition(":") for row in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in split if colon and name.strip()}
