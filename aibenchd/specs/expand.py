"""From a model file's JSON to benchmarks: meta, shapes and identifiers applied. Pure; changes nothing it is given.

The steps and their order are FAI-PEP's. Before them come the string map (:func:`aibenchd.substitution.replaced`), the plain
form (:mod:`aibenchd.specs.forms`) and the judgement of :mod:`aibenchd.specs.schema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aibenchd import model

Object = dict[str, Any]


def merged(mine: model.JsonObject, other: model.JsonObject) -> Object:
    """``mine`` with what ``other`` adds: scalars of ``mine`` win, objects are merged, lists joined, mine first."""
    result = dict(mine)
    for key, value in other.items():
        result[key] = _joined(result[key], value) if key in result else value
    return result


def _joined(mine: Any, other: Any) -> Any:
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        return merged(mine, other)
    if isinstance(mine, list) and isinstance(other, list):
        return [*mine, *other]
    return mine


def benchmarks(
    document: Mapping[str, Any], *, source: str = "", metas: Iterable[model.JsonObject] = (), pep_extra_args: str = ""
) -> tuple[model.Benchmark, ...]:
    """One benchmark for each test of a valid model file, in the order of the file, with identifiers that differ.

    Args:
        document: valid by :class:`aibenchd.specs.schema.ModelFile`, string map applied, in plain form.
        source: the file's path, for messages.
        metas: merged into the model, the first wins: the benchmarks file's, then the run's.
        pep_extra_args: the string map's entry of that name; kept in each test, and appended to its only command.
    """
    merged_model: Object = dict(document["model"])
    for meta in metas:
        merged_model = merged(merged_model, meta)
    extra = {"pep_extra_args": pep_extra_args} if pep_extra_args else {}
    tests = [
        {"iter": -1, "warmup": -1, **test, "identifier": str(test.get("identifier") or merged_model["name"]), **extra}
        for test in document["tests"]
    ]
    if tests[0]["metric"] == "generic":
        tests = [test if "commands" in test else _with_commands(test) for test in tests]
    else:
        tests = _numbered(_with_commands(one) for test in tests for one in _spread(test))
    return tuple(model.Benchmark(merged_model, test, source) for test in _told_apart(tests))


def _spread(test: Object) -> Iterator[Object]:
    """One test for each shape of its inputs."""
    inputs: Mapping[str, Any] = test.get("inputs") or {}
    count = max((len(one["shapes"]) for one in inputs.values()), default=1)
    for index in range(count):
        yield {**test, "inputs": {name: _shaped(one, index) for name, one in inputs.items()}} if inputs else test


def _shaped(one: Object, index: int) -> Object:
    """An input with one of its shapes, and the type of that where it has a list of them."""
    types = {"type": one["type"][index]} if isinstance(one.get("type"), list) else {}
    return {**one, "shapes": [one["shapes"][index]], **types}


def _with_commands(test: Object) -> Object:
    """``arguments``, else ``command``, rewritten as ``commands``; ``command`` is kept, since others may name it."""
    if "arguments" in test:
        rest = {key: value for key, value in test.items() if key != "arguments"}
        return {**rest, "commands": ["{program} " + test["arguments"]]}
    return {**test, "commands": [test["command"]]} if "command" in test else test


def _numbered(tests: Iterable[Object]) -> list[Object]:
    return [{**test, "identifier": test["identifier"].replace("{ID}", str(index))} for index, test in enumerate(tests)]


def _told_apart(tests: list[Object]) -> Iterator[Object]:
    """A later test with an identifier that an earlier one has gets its own index appended, as ``{ID}`` would have."""
    taken = {test["identifier"] for test in tests}
    seen: set[str] = set()
    for index, test in enumerate(tests):
        identifier = test["identifier"]
        if identifier in seen:
            while identifier in taken:
                identifier = f"{identifier}-{index}"
        taken.add(identifier)
        seen.add(identifier)
        yield {**test, "identifier": identifier}
