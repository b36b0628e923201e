"""How commands with placeholders become commands that run: FAI-PEP's rules, pure.

First the names of places (``{TGTDIR}``, ``{HOSTDIR}``, …) are replaced in every text of the model and the test. Then, in a
command, each ``{name}`` is looked up in the test, the model, the programs and the place; as a key first, then as a path of
keys (``{files.init}``). That goes on until nothing changes. What nobody knows stays, and so does ``awk``'s ``{print}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aibenchd import errors, model, substitution
from aibenchd.frameworks import base

PATTERN = re.compile(r"\{([\w|\.]+)\}")
ROUNDS = 50  # of replacement; more is a circle
LONGEST = 128 << 10  # characters of a command; Linux takes no longer argument
ROOT = str(Path(__file__).parents[1])  # {FAIPEPROOT}
PLACES: Mapping[str, Callable[[base.Place], str]] = {
    "TGTDIR": lambda place: place.target_directory,
    "HOSTDIR": lambda place: place.host_directory,
    "BUILDDIR": lambda place: place.build_directory,
    "DEVICEHASH": lambda place: place.device_hash,
    "FAIPEPROOT": lambda _place: ROOT,
}
ALWAYS = (*PLACES, "INDEX", "program", "backend")  # names that stand for something in every command


def commands(benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
    """The main commands of one repeat.

    Raises:
        CommandError: the test has none, or one cannot be composed.
    """
    found = benchmark.test.get("commands")
    if isinstance(found, str) or not isinstance(found, Sequence) or not found:
        raise errors.CommandError(f"{_shown(benchmark)}: does not say what to run: expected commands, command or arguments")
    composed = compose([str(command) for command in found], benchmark, place)
    extra = str(benchmark.test.get("pep_extra_args", ""))
    return (" ".join([*composed, *compose([extra], benchmark, place)]),) if extra and len(composed) == 1 else composed


def compose(texts: Sequence[str], benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
    """Commands of any kind, those of a pre- or postprocess too, with all that is known replaced.

    Raises:
        CommandError: names stand for each other in a circle, a command grows too long, or a file has no path.
    """
    names = _Names(settled(benchmark, place), place)
    arguments = [text for text in (str(benchmark.model.get("command_args", "")), place.extra_arguments) if text]
    with_arguments = [" ".join([text, *arguments]) if "{program}" in text else text for text in texts]
    return tuple(_composed(substitution.replaced(text, _places(place)), names) for text in with_arguments)


def settled(benchmark: model.Benchmark, place: base.Place) -> model.Benchmark:
    """The benchmark with the names of places replaced in all its texts: where files made at run time lie, too."""
    places = _places(place)
    return model.Benchmark(
        substitution.replaced(benchmark.model, places), substitution.replaced(benchmark.test, places), benchmark.source
    )


def _places(place: base.Place) -> dict[str, str]:
    return {name: text(place) for name, text in PLACES.items()}


def _composed(written: str, names: _Names) -> str:
    before, command = "", written
    for _ in range(ROUNDS):
        before, command = command, _once(command, names)
        if command == before:
            return command
    circle = sorted({f"{{{name}}}" for name in PATTERN.findall(before + command)})
    raise errors.CommandError(f"{names.shown}: {written[:100]}: {', '.join(circle)} stand for each other in a circle")


def _once(command: str, names: _Names) -> str:
    room = LONGEST

    def text(match: re.Match[str]) -> str:
        nonlocal room
        found = names.value(match[1], otherwise=match[0])
        room -= len(found)
        if room < 0:
            raise errors.CommandError(f"{names.shown}: a command grows beyond {LONGEST} characters: {command[:100]}…")
        return found

    return PATTERN.sub(text, command)


class _Names:
    """What the names in a benchmark's commands stand for."""

    def __init__(self, benchmark: model.Benchmark, place: base.Place) -> None:
        self.shown = _shown(benchmark)
        host = dict.fromkeys(("files", "preprocess", "postprocess"), place.host_files)
        test = {**benchmark.test, "INDEX": place.index}
        self._roots: tuple[tuple[Mapping[str, Any], Mapping[str, Mapping[str, str]]], ...] = (
            (test, {"input_files": place.input_files, "output_files": place.output_files, **host}),
            (benchmark.model, {"files": place.files}),
            (place.programs, {}),
            ({"backend": place.backend}, {}),
        )

    def value(self, name: str, otherwise: str) -> str:
        """The text that ``name`` stands for, or ``otherwise``."""
        for root, paths in self._roots:
            found = root[name] if name in root else _at(root, name.split("."))
            if isinstance(found, Mapping) and "filename" in found and name.partition(".")[0] in paths:
                return self._path(name, paths)
            if found is not None and not isinstance(found, Mapping | list):
                return str(found)
        return otherwise

    def _path(self, name: str, paths: Mapping[str, Mapping[str, str]]) -> str:
        parts = name.split(".")
        try:
            return paths[parts[0]][parts[-1]]
        except KeyError:
            raise errors.CommandError(f"{self.shown}: {{{name}}} is a file that was not put anywhere") from None


def _at(root: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(root, Mapping) or key not in root:
            return None
        root = root[key]
    return root


def _shown(benchmark: model.Benchmark) -> str:
    return f"{benchmark.source}: {benchmark.identifier}"
