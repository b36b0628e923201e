"""Where the files of a model file stand in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import pydantic

from aibenchd.specs import schema

KeyPath: TypeAlias = tuple[str | int, ...]


def files(value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Every file of a model file, wherever one may stand, as it is written there.

    Args:
        value: valid but for digests, once it is in plain form.
    """
    for key_path, inner in _mappings(value):
        for group in ("files", "input_files"):
            for key, one in _named(inner.get(group)):
                yield (*key_path, group, key), one
        for key, one in _named(inner.get("output_files")):
            if isinstance(one, Mapping) and one.get("golden") is not None:
                yield (*key_path, "output_files", key, "golden"), one["golden"]


def of(value: Any, key: str, file: schema.File) -> KeyPath:
    """Where a file of a benchmark stands: where the same is written, else where a file of its key is.

    Args:
        value: what the model file holds.
        key: as the model cache has it, such as ``files.predict`` or ``golden.softmax``.
        file: with all that was merged into it.
    """
    named = [(key_path, one) for key_path, one in files(value) if _key(key_path) == key]
    same = (key_path for key_path, one in named if _same(one, file))
    elsewhere = ("model", *key.split(".", 1))  # it came by the meta of another file, which is merged into the model
    return next(same, named[0][0] if named else elsewhere)


def _key(key_path: KeyPath) -> str:
    *above, group, key = key_path
    if above[-1:] == ["output_files"]:
        return f"golden.{group}"
    on_host = group == "files" and above not in (["model"], ["meta"])
    return f"{'host_files' if on_host else group}.{key}"


def _same(written: Any, file: schema.File) -> bool:
    try:
        return schema.File.model_validate(written, context=schema.UNPINNED) == file
    except pydantic.ValidationError:  # before texts in it are replaced
        return False


def _mappings(value: Any) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """What may have files: the model, what is merged into it, each test, and what is done around each."""
    tests = ((("tests", index), test) for index, test in enumerate(value["tests"]))
    for key_path, inner in ((("model",), value["model"]), (("meta",), value.get("meta")), *tests):
        for around in ((), ("preprocess",), ("postprocess",)):
            found = inner.get(around[0]) if around and isinstance(inner, Mapping) else inner
            if isinstance(found, Mapping):
                yield (*key_path, *around), found


def _named(group: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(group, Mapping):
        yield from group.items()
    elif isinstance(group, list):
        yield from enumerate(group)
