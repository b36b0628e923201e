"""``aibenchd bench`` and ``aibenchd ab``: from a command line to an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aibenchd import errors, logs
from aibenchd.oneshot import answers, exits, options
from aibenchd.oneshot.exits import Exit

if TYPE_CHECKING:
    from aibenchd.oneshot import results, running  # they import all rooms

DESK = "desk"  # the state directory, below the cache
SCHEMA = 1  # of what --json prints


def bench(parsed: argparse.Namespace) -> int:
    """Measure once; its exit code."""
    said = options.read(parsed)
    if said.reset_options:
        answers.forget(answers.path())
        if not said.benchmarks:
            return Exit.SUCCESS
    return _run(said)


def ab(parsed: argparse.Namespace) -> int:
    """Compare two commits; its exit code."""
    return _run(options.read(parsed))


def _run(said: options.Options) -> int:
    logs.configure(level="info" if said.debug else "error")
    try:
        with _told_apart():
            return _measured(said)
    except errors.AibenchdError as error:
        code = _code(error)
        if said.json:
            _print({"exit": code, "error": str(error), "experiments": []})
        print(error, file=sys.stderr)
        return code


def _measured(said: options.Options) -> int:
    from aibenchd import daemon
    from aibenchd.oneshot import arranging, fleet, running

    directory = said.state_directory or answers.cache() / DESK
    daemon.allow_many_files()
    with daemon.alone(directory):
        known = answers.Answers(answers.path(), answers.on_terminal())
        there = anyio.run(fleet.chosen, said)
        arranged = arranging.arrange(said, known, there, directory)
        for warning in arranged.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        daemon.leave_trials_alone(arranged.settings)
        with _watcher(said) as watcher:
            ended = anyio.run(running.Run(arranged, directory, watcher).run)
    return _conclude(said, ended, directory)


@contextlib.contextmanager
def _watcher(said: options.Options) -> Iterator[running.Watcher]:
    """Bars where somebody looks on, else nobody."""
    from aibenchd.oneshot import running

    if said.json or said.debug or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield running.Watcher()
        return
    from aibenchd.oneshot import showing

    with showing.Bars() as bars:
        yield bars


def _conclude(said: options.Options, ended: running.Ended, directory: Path) -> int:
    code, shown = _exit(ended), _told_once(ended)
    if said.json:
        _print({"exit": code, "error": "\n".join(ended.stuck), "experiments": [one.json() for one in ended.results]})
    elif said.screen_reporter or said.simple_screen_reporter:
        _say_why([one for one in shown if not one.verdict])  # which no reporter has heard of
    else:
        from aibenchd.oneshot import showing

        showing.table(shown, operators=said.operators)
    for reason in ended.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    for reason in ended.stuck:
        print(reason, file=sys.stderr)
    for one in ended.results:
        if one.advice:
            print(f"{one.benchmark}: {one.advice}", file=sys.stderr)
        if one.log and one.exit is not Exit.SUCCESS:
            print(f"{one.benchmark}: its output: {directory / one.log}", file=sys.stderr)
    return code


def _told_once(ended: running.Ended) -> list[results.Result]:
    """The results without the reasons that are told below all of them: one device may keep many from being measured."""
    told = tuple(ended.stuck)
    return [replace(one, reason="") if any(f": {one.reason}" in reason for reason in told) else one for one in ended.results]


def _say_why(ended: Sequence[results.Result]) -> None:
    for one in ended:
        print(f"{one.benchmark}: {one.reason or 'not finished'}", file=sys.stderr)


def _exit(ended: running.Ended) -> int:
    if ended.killed is not None:
        return exits.of_signal(ended.killed)
    found = {one.exit for one in ended.results}
    return exits.worst({Exit.HARNESS_ERROR, *found} if ended.stuck else found)


def _code(error: errors.AibenchdError) -> int:
    return int(Exit.HARNESS_ERROR if isinstance(error, HARNESS) else Exit.USER_ERROR)


HARNESS = (errors.HarnessError, errors.StoreError, errors.DeviceLostError, errors.RemoteUnreachableError, errors.SinkError)


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """What breaks without being ours is the harness's fault, and no traceback unless the log is shown."""
    try:
        yield
    except (errors.AibenchdError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise errors.HarnessError(f"{type(error).__name__}: {error}; --debug shows where") from error


def _print(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"schema": SCHEMA, **result}, indent=2, sort_keys=True) + "\n")
