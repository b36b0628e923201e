"""The odd forms that specifications come in, made plain before they are judged. Pure; changes nothing it is given.

A form with one clear meaning is rewritten: one command as a text, files as a list, a single shape, a key that is null.
What is not understood stays as it is, for :mod:`aibenchd.specs.schema` to say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

Rewrite: TypeAlias = Callable[[Any], Any]
Earlier: TypeAlias = Mapping[tuple[str | int, ...], Any]

_ABSENT: Mapping[str, Any] = MappingProxyType({})  # in place of what the file does not hold, such as what comes from elsewhere


def model_file(value: Any, earlier: Earlier) -> Any:
    """A model file as :class:`aibenchd.specs.schema.ModelFile` describes it.

    Args:
        earlier: by path, what keys that the file gives twice held before: a test's ``commands`` may be given once to say what
            to run and once more with options.
    """
    return _rewritten(value, {"model": meta, "meta": meta, "tests": lambda tests: _tests(tests, earlier)})


def benchmarks_file(value: Any) -> Any:
    """A benchmarks file as :class:`aibenchd.specs.schema.BenchmarksFile` describes it."""
    return _rewritten(value, {"meta": meta, "benchmarks": _listed})


def meta(value: Any) -> Any:
    """A model, or what is merged into one."""
    around = {"preprocess": _process, "postprocess": _process}
    return _rewritten(value, {"files": _named, "libraries": _libraries, "converter": _converter, **around})


def as_written(key_path: Sequence[str | int], value: Any) -> tuple[str | int, ...]:
    """Where a key of the plain form stands in the file: what is in it only in plain form is left out.

    Args:
        value: what the file holds.
    """
    steps: tuple[str | int, ...] = ()
    for plain in key_path:
        step = int(plain) if isinstance(value, list) and isinstance(plain, str) and plain.isdecimal() else plain
        if value is _ABSENT or isinstance(value, Mapping if isinstance(step, str) else list):
            steps, value = (*steps, step), _child(value, step)
    return steps


def _child(value: Any, step: Any) -> Any:
    try:
        return value[step]
    except LookupError:
        return _ABSENT


def _tests(value: Any, earlier: Earlier) -> Any:
    if not isinstance(value, list):
        return value
    return [_test(_options_apart(one, earlier.get(("tests", index, "commands")))) for index, one in enumerate(value)]


def _options_apart(test: Any, before: Any) -> Any:
    """``commands: {tflite: {num_threads: 4}}`` are options: they get a key of their own, and leave theirs to what is run."""
    if not isinstance(test, Mapping) or not _are_options(test.get("commands")):
        return test
    kept = {key: one for key, one in test.items() if key != "commands"}
    if isinstance(before, str | list):
        kept["commands"] = before
    return {**kept, "command_options": {name: _texts(given) for name, given in test["commands"].items()}}


def _are_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(given, Mapping) for given in value.values())


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _test(value: Any) -> Any:
    files = {"files": _named, "input_files": _named, "output_files": _outputs}
    around = {"preprocess": _process, "postprocess": _process}
    return _rewritten(value, {"commands": _listed, "inputs": _inputs, "cpu-list": _cpus, **files, **around})


def _process(value: Any) -> Any:
    return _rewritten({"commands": value} if isinstance(value, str | list) else value, {"commands": _listed, "files": _named})


def _inputs(value: Any) -> Any:
    each = dict.fromkeys(value, _input) if isinstance(value, Mapping) else {}
    return _rewritten(value, each)


def _input(value: Any) -> Any:
    return _rewritten(value, {"shapes": _shapes})


def _shapes(value: Any) -> Any:
    """One shape, ``[1, 3]``, is a list of one shape."""
    return [value] if isinstance(value, list) and value and not any(isinstance(one, list) for one in value) else value


def _libraries(value: Any) -> Any:
    """Libraries by name are a list; one that is a text is a location."""
    items = list(value.values()) if isinstance(value, Mapping) else value
    return [{"location": one} if isinstance(one, str) else one for one in items] if isinstance(items, list) else items


def _named(value: Any) -> Any:
    """Files in a list have their places in it for names: ``{files.0}``."""
    return {str(index): one for index, one in enumerate(value)} if isinstance(value, list) else value


def _outputs(value: Any) -> Any:
    named = _named(value)
    each = dict.fromkeys(named, _output) if isinstance(named, Mapping) else {}
    return _rewritten(named, each)


def _output(value: Any) -> Any:
    return _rewritten(value, {"converter": _converter})


def _converter(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _cpus(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _rewritten(value: Any, rewrites: Mapping[str, Rewrite]) -> Any:
    """A mapping without its keys that are null, and with some of its values rewritten."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: one for key, one in value.items() if one is not None}
    return kept | {key: rewrite(kept[key]) for key, rewrite in rewrites.items() if key in kept}
