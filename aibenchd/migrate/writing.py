"""A configuration as YAML that a person might have written. Pure."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ruamel.yaml
from ruamel.yaml import comments, scalarstring

from aibenchd import yamlfile
from aibenchd.migrate.old import Note, Tree, Value

WIDTH = 120  # characters of a comment's line
COLUMN = 40  # of comments beside values


def text(sections: Mapping[str, Tree], notes: Sequence[Note], script: str, schema: str) -> str:
    """The whole file.

    Args:
        sections: by key, in their order.
        notes: said above all sections.
        script: of FAI-PEP's, whose work this does.
        schema: what editors complete the file by, relative to it or absolute.
    """
    head = [f"# yaml-language-server: $schema={schema}", "#", *_about(script), *_noted(notes)]
    body = [_section(name, tree) for name, tree in (("version", 1), *sections.items())]
    return "\n".join(("\n".join(head) + "\n", *body))


def _about(script: str) -> Iterator[str]:
    yield from _commented(
        f"What {script} of FAI-PEP did, as a configuration of aibenchd, by `aibenchd migrate`. On the right are the arguments "
        "that values come from. `aibenchd check FILE` validates it, `aibenchd serve FILE` runs it; "
        "config/aibenchd.yaml has every key."
    )


def _noted(notes: Sequence[Note]) -> Iterator[str]:
    if notes:
        yield from ("#", "# What has no key of its own, or is otherwise here:")
    for note in notes:
        yield from _commented(f"- {note}", "  ")


def _commented(words: str, indent: str = "") -> list[str]:
    """On one line whatever a person gave; breaks only between words."""
    plain = "".join(letter if letter.isprintable() else " " for letter in words)
    return textwrap.wrap(
        plain, WIDTH, initial_indent="# ", subsequent_indent=f"# {indent}", break_long_words=False, break_on_hyphens=False
    )


def _section(name: str, tree: Tree) -> str:
    yaml = ruamel.yaml.YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1 << 20  # a value is never folded
    stream = io.StringIO()
    yaml.dump(_mapping({name: tree}), stream)
    lines = (_TIGHT.sub("  # ", line) for line in stream.getvalue().rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"


_TIGHT = re.compile(r"(?<! ) # (?=[^'\"]*$)")  # before a comment; within a value it would be in quotes


def _mapping(items: Mapping[str, Tree]) -> comments.CommentedMap:
    made = comments.CommentedMap((_scalar(name), _node(item)) for name, item in items.items())
    _remark(made, items.items())
    return made


def _list(items: Sequence[Tree]) -> comments.CommentedSeq:
    made = comments.CommentedSeq(map(_node, items))
    _remark(made, enumerate(items))
    return made


def _remark(made: comments.CommentedBase, items: Iterable[tuple[str | int, Tree]]) -> None:
    """Beside each value the argument that it comes from, and what there is to say."""
    for place, item in items:
        said = "; ".join(filter(None, (item.origin, item.remark))) if isinstance(item, Value) else ""
        if said:
            made.yaml_add_eol_comment(said, place, column=COLUMN)


def _node(item: Tree) -> Any:
    if isinstance(item, dict):
        return _mapping(item)
    if isinstance(item, list):
        return _list(item)
    value = item.value if isinstance(item, Value) else item
    return _flow(value) if isinstance(value, dict | list) else _scalar(value)


def _flow(value: Any) -> Any:
    """What an argument gave is on one line, as beside it is where it comes from."""
    if isinstance(value, dict):
        mapping = comments.CommentedMap((_flow(name), _flow(item)) for name, item in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        items = comments.CommentedSeq(map(_flow, value))
        items.fa.set_flow_style()
        return items
    return _quoted(value) if isinstance(value, str) and not _WORDS.fullmatch(value) else _scalar(value)


_WORDS = re.compile(r"[\w./]([\w./ -]*[\w./-])?", re.ASCII)  # which mean nothing else between brackets


def _scalar(item: Any) -> Any:
    """Text in quotes where it would be read as something else."""
    return _quoted(item) if isinstance(item, str) and (yamlfile.plain(item) != item or not item.isprintable()) else item


def _quoted(text: str) -> str:
    quoted: str = scalarstring.DoubleQuotedScalarString(text)
    return quoted
