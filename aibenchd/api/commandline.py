"""Command lines of ``aibenchctl``: what a command takes, and what somebody has typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from aibenchd.api import call, screen

DONE, REGRESSED, INCONCLUSIVE, REFUSED, UNREACHABLE = range(5)
DIGITS = 18  # of an ID
PLAIN = "@%+=:,./-_"  # in what a shell takes for one word as it is, as shlex has it
SHORT = {"-s": "socket", "-h": "help", "-H": "host"}
CHOICES = {  # words for arguments that must be one of these
    "build|trial": ("build", "trial"),
    "SHELL": ("bash", "zsh", "fish"),
    "KIND": (
        *("devices", "repositories", "benchmarks", "models", "cells", "sinks"),
        *("experiments", "findings", "builds", "requests"),
    ),
}
GENERAL = {"host": "ADDRESS", "socket": "PATH", "json": "", "help": "", "version": ""}


class Misuse(Exception):  # noqa: N818
    """The command line is wrong."""


class Command:
    """One command. ``arguments`` as the help shows them; ``options`` by name, each with the word for its value, if it has one."""

    __slots__ = ("about", "arguments", "options", "run")

    def __init__(
        self, run: Callable[[Call], int], about: str, arguments: str = "", options: dict[str, str] | None = None
    ) -> None:
        self.run, self.about, self.arguments, self.options = run, about, arguments, options or {}


class Call:
    """One command line, read, of one of ``commands``, by their names."""

    def __init__(self, words: Sequence[str], commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self.name = ""
        self.arguments: list[str] = []
        self.options: dict[str, list[str]] = {}
        rest = iter(words)
        for word in rest:
            if word == "--":
                self.arguments += rest
            elif word.startswith("-") and word != "-":
                self._option(word, rest)
            elif not self.name:
                self.name = word
            else:
                self.arguments.append(word)

    @property
    def command(self) -> Command:
        """The one that is named.

        Raises:
            Misuse: there is none of that name.
        """
        try:
            return self._commands[self.name]
        except KeyError:
            raise Misuse(f"there is no command {self.name!r}; see 'aibenchctl --help'") from None

    @property
    def daemon(self) -> call.Daemon:
        """On ``--host`` or $AIBENCHD_HOST; at ``--socket``, else where :func:`call.default_socket` says; not connected to yet.

        Raises:
            Misuse: the host is no address.
        """
        host = self.host
        if host:
            from aibenchd.api import afar

            try:
                return afar.Daemon(host, self.option("socket"))
            except ValueError as error:
                raise Misuse(str(error)) from None
        return call.Daemon(self.option("socket") or call.default_socket())

    @property
    def host(self) -> str:
        """Where the daemon is; empty for this host."""
        return self.option("host") or os.environ.get("AIBENCHD_HOST", "")

    @property
    def program(self) -> str:
        """What a command line begins with that asks the same daemon: ``-H`` and ``-s``, where this one had them.

        What the environment says holds for the next command too, and is not repeated.
        """
        given = [(short, self.option(name)) for short, name in (("-H", "host"), ("-s", "socket"))]
        return " ".join([screen.PROGRAM, *(f"{short} {_quoted(value)}" for short, value in given if value)])

    def flag(self, name: str) -> bool:
        """Whether an option was given, with whatever value."""
        return name in self.options

    def option(self, name: str) -> str | None:
        """The value that was given last; None where there is none."""
        return self.options[name][-1] if name in self.options else None

    def check(self) -> None:
        """Whether there are as many arguments as the command has, and each ID is a number."""
        words = self.command.arguments.split()
        least = sum(not word.startswith("[") for word in words)
        if not least <= len(self.arguments) <= len(words) or "" in self.arguments:
            raise Misuse(f"usage: {usage(self.name, self.command)}")
        for word, given in zip(words, self.arguments, strict=False):
            if word == "ID" and not (given.isascii() and given.isdecimal() and len(given) <= DIGITS):
                raise Misuse(f"ID: expected a number, not {given!r}; usage: {usage(self.name, self.command)}")
            if given not in CHOICES.get(word, (given,)):
                raise Misuse(f"expected {', '.join(CHOICES[word])}, not {given!r}; usage: {usage(self.name, self.command)}")

    def _option(self, word: str, rest: Iterator[str]) -> None:
        name, equals, value = word.removeprefix("--").partition("=")
        name = SHORT.get(word[:2], name) if not word.startswith("--") else name
        known = GENERAL | (self._commands[self.name].options if self.name in self._commands else {})
        if name not in known:
            where = f" of 'aibenchctl {self.name}'" if self.name else ""
            raise Misuse(f"there is no option {word}{where}; see 'aibenchctl --help'")
        if known[name] and not equals:
            value = word[2:] if not word.startswith("--") and len(word) > 2 else next(rest, "")
        if bool(known[name]) != bool(value):
            raise Misuse(f"--{name} " + (f"needs a value: --{name} {known[name]}" if known[name] else "takes no value"))
        self.options.setdefault(name, []).append(value)


def usage(name: str, command: Command) -> str:
    """A command's row, without its options."""
    return f"aibenchctl {name} {command.arguments}".rstrip()


def _quoted(text: str) -> str:
    """As a shell takes it for one word. What quotes is imported where there is something to quote: most paths need nothing."""
    if text.isascii() and all(character.isalnum() or character in PLAIN for character in text):
        return text
    import shlex

    return shlex.quote(text)
