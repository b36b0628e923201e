"""YAML 1.2 (core schema) and JSON files as plain values, with a position for each key.

What a person wrote is read once, bounded in size and depth, and nothing in it is guessed at: dates, ``yes`` and ``1:30`` are
text, ``010`` is ten, a key is text, a number is finite. ``<<`` merges mappings, as YAML 1.1 has it.
Configuration and specifications both come through here. Blocking.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from aibenchd import errors

KeyPath: TypeAlias = Sequence[str | int]
Position: TypeAlias = tuple[int, int]

MAX_BYTES = 8 << 20
MAX_DEPTH = 100  # levels of lists and mappings
MAX_VALUES = 500_000  # of one file, each counted as often as an alias repeats it
MERGE = "<<"
MAX_INTEGER = 2**63 - 1


@dataclass(slots=True)
class _Node:
    """A value with its place; ``children`` by key or index, None for a scalar and behind an alias."""

    value: Any
    line: int
    column: int
    children: dict[str | int, _Node] | None = None
    size: int = 1  # values in it, itself included


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    Attributes:
        file: path as the user gave it.
        value: dict, list, str, int, float, bool or None; None for an empty file. Aliases share one object: do not change it.
        duplicates: one fault for each key that a mapping has twice; ``value`` holds the last.
        earlier: by the paths of those keys, what they held before.
    """

    file: str
    value: Any
    duplicates: tuple[errors.Fault, ...]
    earlier: Mapping[tuple[str | int, ...], Any]
    _root: _Node

    def position(self, key_path: KeyPath) -> Position:
        """Line and column, 1-based, of a key (or of a list's item); of its nearest known ancestor where it is absent."""
        node = self._root
        for step in key_path:
            child = (node.children or {}).get(step)
            if child is None:
                break
            node = child
        return node.line, node.column

    def fault(self, key_path: KeyPath, message: str) -> errors.Fault:
        """A fault at a key of this file."""
        line, column = self.position(key_path)
        return errors.Fault(self.file, message, line=line, column=column, key=key_text(key_path))


def load(path: Path) -> Document:
    """Read a file: JSON where its name ends in ``.json``, else YAML.

    Raises:
        InvalidFileError: it cannot be read, is too large or too deep, is not UTF-8, breaks the syntax, or holds what
            neither format's core has (tags, keys that are not text, NaN). Duplicate keys are no error here.
    """
    text = _read(path)
    builder = _Builder(str(path))
    events = _json_events(text, str(path)) if path.suffix == ".json" else _yaml_events(text, str(path))
    root = builder.document(events)
    if builder.faults:
        raise errors.InvalidFileError(builder.faults)
    return Document(str(path), root.value, tuple(builder.duplicates), builder.earlier, root)


def key_text(key_path: KeyPath) -> str:
    """``("devices", 0, "cpus")`` as ``devices[0].cpus``."""
    text = ""
    for step in key_path:
        if isinstance(step, str) and re.fullmatch(r"[\w-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step, ensure_ascii=False)}]"
    return text


def _read(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _invalid(str(path), "is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _invalid(str(path), f"cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise _invalid(str(path), f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode("utf-8", "replace"))
        raise _invalid(str(path), f"is not UTF-8: byte 0x{data[error.start]:02x}; save it as UTF-8", line, column) from error


def _invalid(file: str, message: str, line: int = 0, column: int = 0) -> errors.InvalidFileError:
    return errors.InvalidFileError([errors.Fault(file, message, line=line, column=column)])


def _place(before: str) -> Position:
    """Line and column of what comes after ``before``."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Event(NamedTuple):
    """One step of a document. ``kind`` is map, list, end, scalar, merge or alias; ``value`` a scalar's, or an alias' name."""

    kind: str
    line: int
    column: int
    value: Any = None
    anchor: str | None = None


class _Refused:
    """In place of a scalar that has no plain value; says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Builder:
    """Events to nodes; what is wrong with a value is collected, what is wrong with the whole is raised."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[errors.Fault] = []
        self.duplicates: list[errors.Fault] = []
        self.earlier: dict[tuple[str | int, ...], Any] = {}
        self._anchors: dict[str, _Node] = {}
        self._values = 0
        self._path: list[str | int] = []

    def document(self, events: Iterator[_Event]) -> _Node:
        """The one value of a stream of events."""
        first = next(events, None)
        root = self._node(first, events, 0) if first else _Node(None, 1, 1)
        more = next(events, None)
        if more is not None:
            raise _invalid(self.file, "holds a second document; one file holds one", more.line, more.column)
        return root

    def _node(self, event: _Event, events: Iterator[_Event], depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise _invalid(self.file, f"is nested deeper than {MAX_DEPTH} levels", event.line, event.column)
        self._count(event, 1)
        node = self._make(event, events, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _count(self, event: _Event, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _invalid(self.file, f"holds more than {MAX_VALUES:,} values, aliases counted", event.line, event.column)

    def _make(self, event: _Event, events: Iterator[_Event], depth: int) -> _Node:
        if event.kind == "map":
            return self._mapping(event, events, depth)
        if event.kind == "list":
            return self._sequence(event, events, depth)
        if event.kind == "alias":
            return self._alias(event)
        if isinstance(event.value, _Refused):
            self._fault(event, event.value.reason)
            return _Node(None, event.line, event.column)
        return _Node(event.value, event.line, event.column)

    def _mapping(self, start: _Event, events: Iterator[_Event], depth: int) -> _Node:
        children: dict[str | int, _Node] = {}
        merges: list[_Node] = []
        while (event := next(events)).kind != "end":
            if event.kind == "merge":
                merges.append(self._merge(event, merges, events, depth + 1))
                continue
            key = self._key(event, events, depth + 1)
            before = children.get(key)
            child = self._child(key, next(events), events, depth + 1)
            if before is not None:
                self.duplicates.append(self._duplicate(key, before, event))
                self.earlier[*self._path, key] = before.value
            # A key's place serves better than its value's: it is on one line with its name.
            children[key] = _Node(child.value, event.line, event.column, child.children, child.size)
        size = sum(merge.size for merge in merges)
        for merge in merges:
            children = {**(merge.children or {}), **children}
        return _collection({key: child.value for key, child in children.items()}, start, children, size)

    def _merge(self, event: _Event, before: Sequence[_Node], events: Iterator[_Event], depth: int) -> _Node:
        """What ``<<`` gives a mapping that has no such keys of its own, at its own place; where several have one, the first's."""
        if before:
            self.duplicates.append(self._duplicate(MERGE, before[0], event))
        given = self._child(MERGE, next(events), events, depth)
        bases = given.value if isinstance(given.value, list) else [given.value]
        if not all(isinstance(base, dict) for base in bases):
            self._path.append(MERGE)
            self._fault(event, "takes a mapping, such as *name of one that is marked &name, or a list of them")
            self._path.pop()
            bases = []
        children: dict[str | int, _Node] = {
            key: _Node(value, event.line, event.column, None, 0) for base in reversed(bases) for key, value in base.items()
        }
        return _Node(None, event.line, event.column, children, given.size)

    def _sequence(self, start: _Event, events: Iterator[_Event], depth: int) -> _Node:
        children: dict[str | int, _Node] = {}
        while (event := next(events)).kind != "end":
            children[len(children)] = self._child(len(children), event, events, depth + 1)
        return _collection([child.value for child in children.values()], start, children)

    def _child(self, step: str | int, event: _Event, events: Iterator[_Event], depth: int) -> _Node:
        self._path.append(step)
        node = self._node(event, events, depth)
        self._path.pop()
        return node

    def _key(self, event: _Event, events: Iterator[_Event], depth: int) -> str:
        node = self._node(event, events, depth)
        if isinstance(node.value, str):
            return node.value
        written = "a list or mapping" if isinstance(node.value, list | dict) else json.dumps(node.value)
        self._fault(event, f"a key must be text, not {written}; put quotes around it")
        return f"<{event.line}:{event.column}>"

    def _alias(self, event: _Event) -> _Node:
        target = self._anchors.get(event.value)
        if target is None:
            raise _invalid(self.file, f"*{event.value} stands for nothing: no &{event.value} ends before it", *event[1:3])
        self._count(event, target.size)
        return _Node(target.value, event.line, event.column, None, target.size)

    def _duplicate(self, key: str, before: _Node, event: _Event) -> errors.Fault:
        message = f"is given twice, first in line {before.line}, column {before.column}; keep one of them"
        return errors.Fault(self.file, message, line=event.line, column=event.column, key=key_text((*self._path, key)))

    def _fault(self, event: _Event, message: str) -> None:
        self.faults.append(errors.Fault(self.file, message, line=event.line, column=event.column, key=key_text(self._path)))


def _collection(value: Any, start: _Event, children: dict[str | int, _Node], merged: int = 0) -> _Node:
    size = 1 + merged + sum(child.size for child in children.values())
    return _Node(value, start.line, start.column, children, size)


_NO_CHARACTER = re.compile(r"[\x00\ud800-\udfff]")
_YAML_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_PRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2, section 5.1
_YAML_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_YAML_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_YAML_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _yaml_events(text: str, file: str) -> Iterator[_Event]:
    import ruamel.yaml  # 30 ms that a JSON file does not need

    bad = _NOT_PRINTABLE.search(text)
    if bad:
        raise _invalid(file, f"holds the control character U+{ord(bad.group()):04X}", *_place(text[: bad.start()]))
    try:
        for event in _parsed(text):
            yield from _yaml_event(event, file)
    except ruamel.yaml.error.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _invalid(file, f"is not YAML: {problem}", mark.line + 1, mark.column + 1) from error


def _parsed(text: str) -> Iterator[Any]:
    """By libyaml; from a colon on that only YAML 1.2 allows, as in ``{listen: 127.0.0.1:8080}``, by a parser 25 times slower."""
    import ruamel.yaml

    given = 0
    try:
        for event in ruamel.yaml.YAML(typ="safe").parse(text):
            yield event
            given += 1
    except ruamel.yaml.error.MarkedYAMLError as error:
        if error.problem != "found unexpected ':'":
            raise
        yield from itertools.islice(ruamel.yaml.YAML(typ="safe", pure=True).parse(text), given, None)


def _yaml_event(event: Any, file: str) -> Iterator[_Event]:
    """An event of the parser's as one of ours; those of streams and documents as none."""
    name = type(event).__name__
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    if getattr(event, "tag", None):
        raise _invalid(file, f"{event.tag[:40]} is a tag; write the value without it", line, column)
    if name == "ScalarEvent" and event.implicit[0] and event.value == MERGE:
        yield _Event("merge", line, column, MERGE, event.anchor)
    elif name == "ScalarEvent":
        yield _Event("scalar", line, column, plain(event.value) if event.implicit[0] else _text(event.value), event.anchor)
    elif name == "MappingStartEvent":
        yield _Event("map", line, column, None, event.anchor)
    elif name == "SequenceStartEvent":
        yield _Event("list", line, column, None, event.anchor)
    elif name in {"MappingEndEvent", "SequenceEndEvent"}:
        yield _Event("end", line, column)
    elif name == "AliasEvent":
        yield _Event("alias", line, column, event.anchor)


def plain(text: str) -> Any:
    """The value of a scalar without quotes, by YAML 1.2's core schema (section 10.3.2); of one that is refused something else."""
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    if _YAML_INTEGER.fullmatch(text):
        return _integer(text, 16 if text.startswith("0x") else 8 if text.startswith("0o") else 10)
    if _YAML_FLOAT.fullmatch(text):
        return _float(text)
    if _YAML_NOT_FINITE.fullmatch(text):
        return _Refused(f"{text} is not a finite number")
    return text


def _text(text: str) -> str | _Refused:
    """Text that a path, a command, a name and UTF-8 can all hold."""
    if _NO_CHARACTER.search(text):
        return _Refused("holds a null character or half of a surrogate pair, which no path or command can")
    return text


def _integer(text: str, base: int = 10) -> int | _Refused:
    if len(text) > 70 or abs(value := int(text, base)) > MAX_INTEGER:
        return _Refused(f"{text[:20]}… is too large: an integer has at most 64 bits")
    return value


def _float(text: str) -> float | _Refused:
    value = float(text)
    return value if math.isfinite(value) else _Refused(f"{text[:20]} is not a finite number")


_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\],:"]+')
_JSON_BRACKETS = {"{": "map", "[": "list", "}": "end", "]": "end"}
_JSON_WORDS = {"null": None, "true": True, "false": False}


def _json_events(text: str, file: str) -> Iterator[_Event]:
    _check_json(text, file)
    line, line_start, scanned = 1, 0, 0
    for token in _JSON_TOKEN.finditer(text):
        start = token.start()
        line += text.count("\n", scanned, start)
        line_start = max(line_start, text.rfind("\n", scanned, start) + 1)
        scanned = start
        yield _json_event(token.group(), line, start - line_start + 1)


def _check_json(text: str, file: str) -> None:
    """Let the standard library judge the syntax, so that tokens need no second look."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise _invalid(file, f"is not JSON: {error.msg}", error.lineno, error.colno) from error
    except RecursionError as error:
        raise _invalid(file, f"is nested deeper than {MAX_DEPTH} levels") from error


def _json_event(token: str, line: int, column: int) -> _Event:
    kind = _JSON_BRACKETS.get(token)
    return _Event(kind, line, column) if kind else _Event("scalar", line, column, _json_scalar(token))


def _json_scalar(token: str) -> Any:
    if token.startswith('"'):
        return _text(json.loads(token))
    if token in _JSON_WORDS:
        return _JSON_WORDS[token]
    if re.fullmatch(r"-?[0-9]+", token):
        return _integer(token)
    return _float(token)
