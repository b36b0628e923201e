"""``aibenchd report``: its arguments, and where the file goes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from aibenchd import errors

if TYPE_CHECKING:
    import sqlalchemy as sa

    from aibenchd import settings
    from aibenchd.store import periods

CONFIG = Path("/etc/aibenchd/aibenchd.yaml")  # where 'make install' puts it
SINCE = "7d"
STDOUT = "-"
NAMED = 20  # of what there is, in a message
MORE = """Findings with their culprits, slow drifts, what was not decided and why, devices' health, a comparison table, each
benchmark over commits, and each experiment with its pictures, in one HTML file that can be mailed: it needs no other file,
no script and no network. The journal is read as it is; a daemon may be running, and is not asked.

A period begins and ends with a date (2026-03-02, UTC where no zone is said), some time ago (7d, 12h), or a commit: then what
counts came after the first, and no later than the second, on its line. The file stays mailable however much was measured;
what is left out is said in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`run` takes."""
    parser.add_argument("config", metavar="FILE", type=Path, nargs="?", help=f"the configuration, YAML ({CONFIG})")
    parser.add_argument("--since", metavar="WHEN", default=SINCE, help="a date, how long ago, or a commit (%(default)s)")
    parser.add_argument("--until", metavar="WHEN", default="0s", help="in the same way (now)")
    parser.add_argument("--benchmark", metavar="NAME", help="this one alone: an identifier, or the digest of one")
    parser.add_argument("--device", metavar="NAME", help="this one alone")
    parser.add_argument("--repository", metavar="NAME", help="this one alone")
    parser.add_argument("--all", action="store_true", help="leave nothing out, however large the file becomes")
    parser.add_argument(
        "--state-directory", type=Path, metavar="DIRECTORY", help="where the journal is, whatever the file says; it needs none"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="where to; -: standard output (%(default)s)"
    )


def run(parsed: argparse.Namespace) -> int:
    """Write the report.

    Raises:
        AibenchdError: the configuration or the journal cannot be read, an argument means nothing, or the file cannot be written.
    """
    from aibenchd import daemon, settings
    from aibenchd.bulletin import contents, page
    from aibenchd.store import store

    chosen, now = _chosen(parsed), datetime.now(UTC)
    daemon.leave_trials_alone(chosen)  # a daemon may be measuring here
    directory = parsed.state_directory or settings.state_directory(chosen)
    with _output(parsed.output) as file, store.reading(directory / "journal.db") as connection:
        period = _period(connection, parsed, chosen, now)
        reader = contents.Reader(connection, period, chosen, contents.ALL if parsed.all else contents.Limits())
        for piece in page.written(reader, now):
            file.write(piece.encode())
    return 0


def _chosen(parsed: argparse.Namespace) -> settings.Settings:
    """The configuration that is named, else the usual one; else, where the journal is named, what is usual.

    Raises:
        InvalidFileError: it cannot be read, or has faults.
    """
    from aibenchd import settings

    if parsed.config is None and parsed.state_directory is not None and not os.access(CONFIG, os.R_OK):
        return settings.Settings()
    return settings.load(parsed.config or CONFIG)


def _period(connection: sa.Connection, parsed: argparse.Namespace, chosen: settings.Settings, now: datetime) -> periods.Period:
    from aibenchd.bulletin import words
    from aibenchd.store import periods

    _check_names(connection, parsed, chosen)
    since = words.end(connection, "--since", parsed.since, now, parsed.repository)
    until = words.end(connection, "--until", parsed.until, now, parsed.repository)
    _check_order(parsed, since, until)
    return periods.Period(since, until, parsed.benchmark, parsed.device, parsed.repository)


def _check_names(connection: sa.Connection, parsed: argparse.Namespace, chosen: settings.Settings) -> None:
    """Whether what is named is configured, or was measured once.

    Raises:
        PeriodError: the first that is not, with what is.
    """
    from aibenchd.store import periods

    known = periods.names(connection, parsed.benchmark)
    known["device"] |= {one.name for one in chosen.devices}
    known["repository"] |= {one.name for one in chosen.repositories}
    for kind, names in known.items():
        name = getattr(parsed, kind)
        if name is not None and name not in names:
            raise errors.PeriodError(f"there is no {kind} {name!r}; there is {', '.join(sorted(names)[:NAMED]) or 'none'}")


def _check_order(parsed: argparse.Namespace, since: periods.End, until: periods.End) -> None:
    """Whether a period begins before it ends, where that can be told of its ends.

    Raises:
        PeriodError: it does not.
    """
    ordered = True
    if isinstance(since, datetime) and isinstance(until, datetime):
        ordered = since < until
    elif not isinstance(since, datetime) and not isinstance(until, datetime):
        ordered = since.repository == until.repository and since.position < until.position
    if not ordered:
        raise errors.PeriodError(f"--since {parsed.since} is not before --until {parsed.until}")


@contextlib.contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """What is written into.

    Raises:
        AibenchdError: it cannot be written.
    """
    path = Path(name).resolve()
    try:
        if name == STDOUT:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with _whole(path) as file:
                yield file
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer goes nowhere
        raise errors.AibenchdError(f"{name}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once all of it is, and until then whatever was there before."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
