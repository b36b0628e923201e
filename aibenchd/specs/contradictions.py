"""Where a specification contradicts itself: what can be run all the same, told as warnings. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Finding: TypeAlias = tuple[tuple[str | int, ...], str]

WHAT_RUNS = ("arguments", "command", "commands")  # the first that is given holds
POWER_KEYS = ("method", "monsoon", "voltage", "collection_time")
FILE_NAME = re.compile(r"((?:input_|output_)?files)\.([\w|]+)")  # of a file, as commands name it in braces
_FILE_NAMES = re.compile(rf"\{{{FILE_NAME.pattern}\}}")


def of(document: Mapping[str, Any]) -> Iterator[Finding]:
    """What is odd in a valid model file in plain form, by the path of its key.

    Args:
        document: with the benchmarks file's meta merged into its model, whose files its commands may name.
    """
    yield from _identifiers(document["tests"])
    for index, test in enumerate(document["tests"]):
        generic = document["tests"][0]["metric"] == "generic"
        for check in (_ways_to_run, _program_twice, _unused_options, _shapes, _cpus, _power, _profiler):
            yield from (((*("tests", index), *key), message) for key, message in check(test, generic))
        yield from _lost_files(("tests", index), test, document["model"])
    yield from _lost_in_processes(("model",), document["model"], _any_of(document["tests"]), document["model"])


def _identifiers(tests: list[dict[str, Any]]) -> Iterator[Finding]:
    """Two tests of one name; those of no name are called as the model is."""
    first: dict[str, int] = {}
    for index, test in enumerate(tests):
        name = str(test.get("identifier", ""))
        other = first.setdefault(name, index)
        if other != index and "{ID}" not in name:
            said = f"{name!r} is the name of tests[{other}] too" if name else f"gives no identifier, as tests[{other}]"
            yield ("tests", index, "identifier"), f"{said}; its number is appended to this one's"


def _ways_to_run(test: Mapping[str, Any], generic: bool) -> Iterator[Finding]:
    """Of what a generic test says, ``commands`` holds: nothing is rewritten there."""
    order = ("commands", *WHAT_RUNS[:2]) if generic else WHAT_RUNS
    given = [key for key in order if key in test]
    if len({str(_commands(key, test[key])) for key in given}) > 1:
        yield (given[0],), f"and {' and '.join(given[1:])} say different things to run; {given[0]!r} holds"


def _commands(key: str, value: Any) -> list[str]:
    return value if key == "commands" else [f"{{program}} {value}" if key == "arguments" else value]


def _program_twice(test: Mapping[str, Any], _generic: bool) -> Iterator[Finding]:
    if "{program}" in test.get("arguments", ""):
        yield ("arguments",), "names {program}, which stands before arguments anyway; the program is given its own path"


def _unused_options(test: Mapping[str, Any], _generic: bool) -> Iterator[Finding]:
    given = next((key for key in WHAT_RUNS if key in test), None)
    if given and test.get("command_options"):
        frameworks = ", ".join(test["command_options"])
        yield ("commands",), f"has options ({frameworks}) for a test that does not say what to run; {given!r} does, and holds"


def _shapes(test: Mapping[str, Any], generic: bool) -> Iterator[Finding]:
    count = max((len(one["shapes"]) for one in test.get("inputs", {}).values()), default=1)
    if count > 1 and any(key in test for key in WHAT_RUNS) and not generic:
        yield ("inputs",), f"has {count} shapes and makes {count} tests, whose commands are the same"


def _cpus(test: Mapping[str, Any], _generic: bool) -> Iterator[Finding]:
    if "cpu-list" in test and "taskset" in test.get("platform_args", {}):
        yield ("cpu-list",), "and platform_args.taskset both choose CPUs; 'cpu-list' holds"


def _power(test: Mapping[str, Any], _generic: bool) -> Iterator[Finding]:
    given = [key for key in POWER_KEYS if key in test]
    if test["metric"] != "power":
        yield from (((key,), f"belongs to the metric 'power', and this test's is {test['metric']!r}") for key in given)
        return
    monsoon = test.get("monsoon", {})
    for key in ("voltage", "collection_time"):
        if key in test and monsoon.get(key, test[key]) != test[key]:
            yield (key,), f"is {test[key]} here and {monsoon[key]} in 'monsoon'; this one holds"


def _profiler(test: Mapping[str, Any], _generic: bool) -> Iterator[Finding]:
    if str(test.get("profiler", {}).get("enabled")).lower() in {"true", "1"}:
        yield ("profiler",), "no profiler is run: the test is measured without"


def _lost_files(path: tuple[str | int, ...], test: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Finding]:
    for key in WHAT_RUNS:
        if key in test:
            yield from _lost((*path, key), _commands(key, test[key]), test, model)
    yield from _lost_in_processes(path, test, test, model)


def _lost_in_processes(
    path: tuple[str | int, ...], owner: Mapping[str, Any], test: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[Finding]:
    for key in ("preprocess", "postprocess"):
        process = owner.get(key, {})
        for inner, commands in (("commands", process.get("commands", [])), ("command", [process.get("command", "")])):
            yield from _lost((*path, key, inner), commands, test, model)


def _lost(
    path: tuple[str | int, ...], commands: list[str], test: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[Finding]:
    """Files that commands name and nobody describes; the program would be given the braces as they are."""
    told = set()
    for index, command in enumerate(commands):
        for group, name in _FILE_NAMES.findall(command):
            there = {*test.get(group, {}), *model.get(group, {})}
            if name not in there and (group, name) not in told:
                told.add((group, name))
                where = (*path, index) if len(commands) > 1 else path
                near = _around(name, test) or [f"{group}.{one}" for one in difflib.get_close_matches(name, there, 1)]
                advice = f"did you mean {{{near[0]}}}? it" if near else "it"
                yield where, f"names {{{group}.{name}}}, and there is no such file; {advice} stays as it is"


def _around(name: str, test: Mapping[str, Any]) -> list[str]:
    """What commands call a file of this name that a test's preprocess or postprocess describes."""
    return [f"{key}.files.{name}" for key in ("preprocess", "postprocess") if name in test.get(key, {}).get("files", {})]


def _any_of(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """All files of all tests: a model's commands run around each."""
    groups = ("files", "input_files", "output_files")
    return {group: {key: file for test in tests for key, file in test.get(group, {}).items()} for group in groups}
