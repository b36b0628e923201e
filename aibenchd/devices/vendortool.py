"""A vendor's command line tool: argument lists with placeholders, and what its exit codes mean."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import shlex
import shutil
import signal
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Self, TypeAlias

import pydantic

from aibenchd import errors
from aibenchd.devices import base

ALWAYS = ("device", "timeout")  # placeholders of every verb
SEVERAL = ("arguments", "env")  # placeholders that stand for any number of texts
LONGEST_ANSWER = 1 << 20  # bytes kept of what a verb other than run prints

Values: TypeAlias = Mapping[str, str | Sequence[str]]
Code = Annotated[int, pydantic.Field(ge=1, le=255)]


# ---- argument lists


def template(*known: str) -> Callable[[str], str]:
    """A validator of one argument: its placeholders are ``known`` or of every verb."""

    def check(argument: str) -> str:
        found = names(argument)
        for name in found:
            if name not in (*known, *ALWAYS):
                listed = ", ".join(f"{{{one}}}" for one in (*known, *ALWAYS))
                raise ValueError(
                    f"no placeholder is called {{{name}}}; known here: {listed}; a brace of its own is written twice"
                )
        if len([name for name in found if name in SEVERAL]) > 1:
            raise ValueError("{arguments} and {env} each need an argument of their own")
        return argument

    return check


def names(argument: str) -> list[str]:
    """The placeholders in an argument.

    Raises:
        ValueError: a brace of it belongs to none.
    """
    return [name for _, name in _parts(argument) if name is not None]


def filled(arguments: Sequence[str], values: Values) -> tuple[str, ...]:
    """An argument list with its placeholders replaced.

    An argument with a placeholder that stands for several texts is there once for each of them, so ``["-D{env}"]`` becomes
    ``["-DA=1", "-DB=2"]``; without any, it is left out.
    """
    return tuple(text for argument in arguments for text in _texts(_parts(argument), values))


def _texts(parts: Sequence[tuple[str, str | None]], values: Values) -> Iterator[str]:
    several = next((name for _, name in parts if name in SEVERAL), None)
    for one in [""] if several is None else values[several]:
        yield "".join(
            literal + ("" if name is None else one if name == several else str(values[name])) for literal, name in parts
        )


def _parts(argument: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the placeholder that comes after it."""
    try:
        parsed = list(string.Formatter().parse(argument))
    except ValueError:
        parsed = [("", "", "?", None)]
    if any(specification or conversion for _, _, specification, conversion in parsed):
        raise ValueError("a brace belongs to no placeholder such as {target}; one of its own is written twice")
    return [(literal, name) for literal, name, _, _ in parsed]


# ---- exit codes


class Meaning(enum.StrEnum):
    """What an exit code says."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    HARNESS = "harness"


class ExitCodes(pydantic.BaseModel):
    """What the tool's exit codes mean."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    ok: Annotated[tuple[Code, ...], pydantic.Field(description="that say success, beside 0")] = ()
    failed: Annotated[
        tuple[Code, ...], pydantic.Field(description="that say that the program failed, or a file is not there")
    ] = ()
    timed_out: Annotated[tuple[Code, ...], pydantic.Field(description="that say that the program took too long")] = ()
    lost: Annotated[tuple[Code, ...], pydantic.Field(description="that say that the device cannot be reached")] = ()
    harness: Annotated[tuple[Code, ...], pydantic.Field(description="that say that the tool itself is at fault")] = ()

    @pydantic.model_validator(mode="after")
    def _one_meaning(self) -> Self:
        known: dict[int, str] = {}
        for meaning in Meaning:
            for code in getattr(self, meaning):
                if known.setdefault(code, meaning) != meaning:
                    raise ValueError(f"{code} is both {known[code]} and {meaning.value}; remove one")
        return self

    def meaning(self, code: int) -> Meaning | None:
        """None where none is configured."""
        if code == 0:
            return Meaning.OK
        return next((meaning for meaning in Meaning if code in getattr(self, meaning)), None)

    @property
    def any(self) -> bool:
        """Whether any code has a meaning; one that has none is noted then."""
        return any(getattr(self, meaning) for meaning in Meaning)


# ---- what is run


def missing(tools: Mapping[str, str], path: str) -> dict[str, str]:
    """By verb, what is said of tools that cannot be run on this host; ``tools`` has the verb of each. Blocking."""
    return {verb: _missing(tool, path) for tool, verb in sorted(tools.items()) if shutil.which(tool, path=path) is None}


def _missing(tool: str, path: str) -> str:
    if there := shutil.which(tool, os.F_OK, path):
        return f"{there} is there, and cannot be executed; have it so with 'chmod a+x {shlex.quote(there)}'"
    if "/" in tool:
        return f"{tool} is not there, or is no file; correct the path, or install it"
    return f"{tool} cannot be found in {path}; install it, or write its whole path"


def program_values(command: base.Command, env: Mapping[str, str]) -> dict[str, str | Sequence[str]]:
    """The values of the placeholders of ``run``; a text for a shell has no program of its own."""
    program = {} if command.shell else {"program": command.argv[0], "arguments": command.argv[1:]}
    return {
        **program,
        "command": command.argv[0] if command.shell else shlex.join(command.argv),
        "directory": str(command.cwd),
        "env": [f"{name}={value}" for name, value in env.items()],
        "timeout": seconds(command.timeout),
    }


def seconds(timeout: float) -> str:
    """A timeout as tools take it: whole seconds."""
    return str(math.ceil(timeout))


def judged(completed: base.Completed, codes: ExitCodes, what: str) -> base.Completed:
    """What the run of a program came to, its exit code read.

    Raises:
        DeviceLostError, HarnessError: that is what the exit code says.
    """
    completed = dataclasses.replace(completed, cpu_seconds=math.nan, peak_bytes=math.nan, instructions=math.nan)  # the tool's
    if completed.ending is not base.Ending.EXITED:
        return completed
    meaning = codes.meaning(completed.code)
    if meaning is Meaning.OK:
        return dataclasses.replace(completed, code=0)
    if meaning is Meaning.TIMED_OUT:
        return dataclasses.replace(completed, ending=base.Ending.TIMED_OUT, code=int(signal.SIGKILL))
    raise_for(meaning, what, completed)
    if meaning is None and codes.any:
        note = f"[exit_codes says nothing of {completed.code}: it is taken for the program's own]"
        completed = dataclasses.replace(completed, stderr="\n".join(filter(None, (completed.stderr.rstrip("\n"), note))))
    return completed


def raise_for(meaning: Meaning | None, what: str, completed: base.Completed) -> None:
    """Raise what an exit code stands for, where it is none of the program's."""
    if meaning is Meaning.LOST:
        raise errors.DeviceLostError(f"{what} says that the device is lost: {completed.failure}")
    if meaning is Meaning.HARNESS:
        raise errors.HarnessError(f"{what} says that it is at fault itself: {completed.failure}")
