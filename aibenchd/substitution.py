"""Texts within JSON values replaced by others. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def replaced(value: Any, string_map: Mapping[str, str]) -> Any:
    """A copy of a JSON value in which each ``{name}`` of every text is what ``string_map`` says; keys stay as they are.

    Names are replaced one after the other, so that a text may bring in a name that comes later.
    """
    if isinstance(value, str):
        for name, text in string_map.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, Mapping):
        return {key: replaced(child, string_map) for key, child in value.items()}
    if isinstance(value, Sequence):
        return [replaced(child, string_map) for child in value]
    return value
