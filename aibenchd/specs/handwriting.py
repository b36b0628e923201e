"""A key set in a text that a person wrote, JSON or YAML, with every other character left as it is. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, slots=True)
class _Member:
    """A key with its value, as places in the text.

    Attributes:
        key, value: where each begins and ends.
        one_line: whether the value is a scalar that can be followed by something on its line.
        indentation: of the block that it is a line of; None within brackets.
    """

    key: tuple[int, int]
    value: tuple[int, int]
    one_line: bool
    indentation: int | None = None


_Members: TypeAlias = dict[Path, _Member]


def with_key(text: str, *, is_json: bool, key: str, values: Mapping[Path, str]) -> str:
    """``text`` in which each of the mappings at these paths has ``key`` with that value: replaced, or after its last scalar.

    Args:
        text: valid JSON or YAML.
        values: texts without quotes or backslashes, by the path of a mapping.

    Raises:
        ValueError: a mapping has no scalar that a key could follow.
    """
    members = _of_json(text) if is_json else _of_yaml(text)
    edits = {_edit(text, members, path, key, value) for path, value in values.items()}  # an alias is another path to one place
    for start, end, written in sorted(edits, reverse=True):
        text = text[:start] + written + text[end:]
    return text


def _edit(text: str, members: _Members, path: Path, key: str, value: str) -> tuple[int, int, str]:
    """What is put in place of which characters."""
    known = members.get((*path, key))
    if known is not None:
        start, end = known.value
        if start < end:
            return start, end, f'"{value}"'
        colon = text.index(":", known.key[1])  # of nothing the parser does not say where it is
        return colon + 1, colon + 1, f' "{value}"'
    beside = [member for place, member in members.items() if place[:-1] == path and member.one_line]
    if not beside:
        raise ValueError(f"{path} has no scalar")
    last = max(beside, key=lambda member: member.value)
    if last.indentation is not None:
        return _line_after(text, last, f'{" " * last.indentation}{key}: "{value}"')
    quote = text[last.key[0]] if text[last.key[0]] in "\"'" else ""
    return _after_comma(text, last, f"{quote}{key}{quote}", value)


def _line_after(text: str, last: _Member, line: str) -> tuple[int, int, str]:
    end = text.find("\n", last.value[1])
    end = len(text) if end < 0 else end
    if text[end - 1 : end] == "\r":
        return end - 1, end - 1, f"\r\n{line}"
    return end, end, f"\n{line}"


def _after_comma(text: str, last: _Member, key: str, value: str) -> tuple[int, int, str]:
    """In brackets: on a line of its own where the last one is."""
    between = text[last.key[1] : last.value[0]]
    before = text[text.rfind("\n", 0, last.key[0]) + 1 : last.key[0]]
    if before.strip():
        gap = " " if " " in between else ""
    else:
        newline = "\r\n" if "\r\n" in text else "\n"
        gap = newline + before
    end = last.value[1]
    return end, end, f',{gap}{key}{between}"{value}"'


def _of_json(text: str) -> _Members:
    tokens = _JSON_TOKEN.finditer(text)
    members: _Members = {}

    def value(path: Path, token: re.Match[str]) -> int:
        """Note all that is in a value; where it ends."""
        if token[0] == "{":
            while (key := next(tokens))[0] != "}":
                place = (*path, json.loads(key[0]))
                inner = next(tokens)
                end = value(place, inner)
                members[place] = _Member(key.span(), (inner.start(), end), inner[0] not in ("{", "["))
            return key.end()
        if token[0] == "[":
            index = 0
            while (item := next(tokens))[0] != "]":
                value((*path, index), item)
                index += 1
            return item.end()
        return token.end()

    value((), next(tokens))
    return members


def _of_yaml(text: str) -> _Members:
    import ruamel.yaml

    root = ruamel.yaml.YAML(typ="safe", pure=True).compose(text)
    return dict(_in_node((), root))


def _in_node(path: Path, node: Any) -> Iterator[tuple[Path, _Member]]:
    for step, key, value in _children(node):
        place = (*path, step)
        if key is not None:
            one_line = isinstance(value.value, str) and value.style not in ("|", ">")
            indentation = None if node.flow_style else node.value[0][0].start_mark.column
            yield place, _Member(_span(key), _span(value), one_line, indentation)
        yield from _in_node(place, value)


def _children(node: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """Steps, keys and values; items of a list have no key."""
    if isinstance(node.value, str):
        return
    for index, child in enumerate(node.value):
        if isinstance(child, tuple):
            yield child[0].value, child[0], child[1]
        else:
            yield index, None, child


def _span(node: Any) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index
