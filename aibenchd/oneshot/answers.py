"""What a person was asked once, and answered. Kept in their configuration directory, so that nobody is asked twice. Blocking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aibenchd import errors, faults

NAME = "answers.json"
TRIES = 3  # before somebody who gives no good answer is taken to have none

Ask = Callable[[str], str]  # a question to its answer; empty where there is none


def path() -> Path:
    """Where answers are kept: ``$XDG_CONFIG_HOME/aibenchd``, by default ``~/.config/aibenchd``."""
    return _home("XDG_CONFIG_HOME", ".config") / NAME


def cache() -> Path:
    """Where a run keeps what it can make again: ``$XDG_CACHE_HOME/aibenchd``, by default ``~/.cache/aibenchd``."""
    return _home("XDG_CACHE_HOME", ".cache")


def on_terminal() -> Ask | None:
    """Asks whoever sits there; None where nobody does. Questions go to standard error: standard output is for results."""
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


class Answers:
    """Answers by key; those that were kept, and then those that ``ask`` gets."""

    def __init__(self, kept: Path, ask: Ask | None) -> None:
        self._path, self._ask = kept, ask
        self._known = _load(kept)

    def of(self, key: str, question: str, option: str, *, known: Sequence[str] = (), meant: Callable[[str], str] = str) -> str:
        """The answer to a question.

        Args:
            option: that says it on the command line.
            known: the answers that there are; empty where any will do.
            meant: what is kept of an answer; raises CommandError where it is none, and then it is asked for again.

        Raises:
            CommandError: nobody can be asked, or nobody knows.
        """
        if key in self._known:
            before = f"{key}: {self._known[key]}, as you answered before"
            sys.stderr.write(f"{before} ({option} says otherwise for once, --reset-options forgets it)\n")
            return self._known[key]
        choice = f" ({', '.join(known)})" if known else ""
        for _ in range(TRIES if self._ask else 0):
            assert self._ask is not None  # noqa: S101  the line above
            answer = self._ask(f"{question}{choice}: ")
            if not answer:
                continue
            try:
                self._known[key] = meant(_one_of(known, answer))
            except errors.CommandError as error:
                sys.stderr.write(f"{error}\n")
                continue
            _save(self._path, self._known)
            return self._known[key]
        raise errors.CommandError(f"{question}?{choice} Say it with {option}")


def _one_of(known: Sequence[str], answer: str) -> str:
    if known and answer not in known:
        raise errors.CommandError(f"{faults.quoted(answer)} is none of them; {faults.suggestion(answer, known)}")
    return answer


def forget(kept: Path) -> None:
    """Remove what was kept.

    Raises:
        CommandError: it cannot be.
    """
    try:
        kept.unlink(missing_ok=True)
    except OSError as error:
        raise errors.CommandError(f"{kept}: cannot be removed: {error.strerror}") from error


def _home(variable: str, usual: str) -> Path:
    given = os.environ.get(variable, "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / usual) / "aibenchd"


def _ask(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _load(kept: Path) -> dict[str, str]:
    try:
        value = json.loads(kept.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise errors.CommandError(f"{kept}: cannot be read: {error}; mend it, or forget it with --reset-options") from error
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise errors.CommandError(f"{kept}: expected a JSON object of texts; mend it, or forget it with --reset-options")
    return value


def _save(kept: Path, known: dict[str, str]) -> None:
    draft = kept.with_name(f".{NAME}.new")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        draft.replace(kept)
    except OSError as error:
        sys.stderr.write(f"{kept}: cannot be written, so you will be asked again: {error.strerror}\n")
