"""``default_args`` of a specification: flags of FAI-PEP's command line, for who runs it without them. Pure.

What the configuration says of the same thing goes first. Flags read with and without their dashes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aibenchd import faults

FIELDS = ("timeout", "cooldown", "framework", "command_args", "env", "log_output", "platform_args")  # of the model they stand for


@dataclass(frozen=True, slots=True)
class Defaults:
    """What flags come to.

    Attributes:
        string_map: as the selection's, which goes before it.
        meta: what is merged into the model, after all else.
        unknown: flags that mean nothing here, or whose value cannot be read, with what is to be said of them.
    """

    string_map: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)

    def beside(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """``meta`` without what a person chose otherwise: values that are not empty, and single variables of ``env``."""
        left = {name: value for name, value in self.meta.items() if name == "env" or not chosen.get(name)}
        if "env" in left:
            left["env"] = {name: value for name, value in left["env"].items() if name not in chosen.get("env", {})}
        return left


def of(value: Any) -> Defaults:
    """The defaults of a file: of its key ``default_args``, a mapping of flags, a list of words or one text."""
    string_map: Mapping[str, str] = {}
    meta: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for written, given in _flags(value):
        name = written.lstrip("-").replace("-", "_")
        if name not in ("string_map", *FIELDS):
            unknown[written] = f"is no flag that means something here; {faults.suggestion(name, ('string_map', *FIELDS))}"
        elif name not in ("string_map", "env", "platform_args"):
            meta[name] = given
        elif (mapping := _mapping(given)) is None:
            unknown[written] = f"expected keys with values, found {faults.found(given)}"
        elif name == "string_map":
            string_map = {key: str(one) for key, one in mapping.items()}
        else:
            meta[name] = mapping
    return Defaults(string_map, meta, unknown)


def _flags(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(name), given) for name, given in value.items() if given is not None)
        return
    words = _words(value) if isinstance(value, str) else [str(word) for word in value] if isinstance(value, list) else []
    while words:
        name, equals, given = words.pop(0).partition("=")
        values = [given] if equals else []
        while not equals and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        yield name, values[0] if len(values) == 1 else values or True


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """``{"A": "1"}``, that as JSON in a text, ``A=1``, or a list of such."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except ValueError:
            return None
        return parsed if isinstance(parsed, dict) else None
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and "=" in word for word in words):
        return None
    return dict(word.split("=", 1) for word in words)
