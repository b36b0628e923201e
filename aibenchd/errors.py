"""Exceptions. Each says what went wrong and what to do next; none of them ever reaches a user as a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Self


class AibenchdError(Exception):
    """Something aibenchd cannot do; the message names what, where and the way out.

    Attributes:
        keys: path of the key that it is about, below the entry of a device or repository; empty where it is about no one key.
    """

    keys: tuple[str | int, ...] = ()

    def at(self, *keys: str | int) -> Self:
        """Itself, about a key; what is raised ``from`` it is about the same one."""
        self.keys = keys
        return self


@contextlib.contextmanager
def about(*keys: str | int) -> Iterator[None]:
    """What is raised inside is about a key, where it is about none yet."""
    try:
        yield
    except AibenchdError as error:
        error.keys = error.keys or keys
        raise


def keys_of(error: BaseException | None) -> tuple[str | int, ...]:
    """The keys that an error is about, or what it was raised from."""
    while error is not None:
        if isinstance(error, AibenchdError) and error.keys:
            return error.keys
        error = error.__cause__
    return ()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group ended by: the first that is ours, else the first."""
    leaves = [*_leaves(group)]
    return next((one for one in leaves if isinstance(one, AibenchdError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


class SeveralError(AibenchdError):
    """More than one thing is wrong; ``each`` is an error of its own."""

    def __init__(self, each: Sequence[AibenchdError]) -> None:
        self.each = tuple(each)
        super().__init__("; ".join(map(str, each)))


class Gathering:
    """What a number of looks at one thing find wrong, so that the first that fails hides none of the others.

    Attributes:
        found: each once, though several looks came upon it and put it in words of their own.
    """

    def __init__(self) -> None:
        self.found: list[AibenchdError] = []

    @contextlib.contextmanager
    def look(self) -> Iterator[None]:
        """One look; what follows it is done whatever it raises."""
        try:
            yield
        except SeveralError as error:
            self._add(error.each)
        except AibenchdError as error:
            self._add((error,))

    def _add(self, more: Sequence[AibenchdError]) -> None:
        known = {_first_words(error) for error in self.found}
        self.found += [error for error in more if _first_words(error) not in known]

    def tell(self) -> None:
        """Raise what was found: as it is where it is one, as a :class:`SeveralError` where there is more."""
        if len(self.found) > 1:
            raise SeveralError(self.found)
        if self.found:
            raise self.found[0]


def _first_words(error: AibenchdError) -> str:
    """What was said where it was found."""
    return _first_words(error.__cause__) if isinstance(error.__cause__, AibenchdError) else str(error)


class Fault:
    """One thing wrong with a file that a person wrote.

    Attributes:
        file: path as the user gave it.
        line, column: 1-based position, 0 where it is not known.
        key: path of the key, such as ``devices[0].cpus``; empty for the file as a whole.
        message: what was found, what was expected, what to do.
    """

    __slots__ = ("column", "file", "key", "line", "message")

    def __init__(self, file: str, message: str, *, line: int = 0, column: int = 0, key: str = "") -> None:
        self.file, self.message, self.line, self.column, self.key = file, message, line, column, key

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"

    def __repr__(self) -> str:
        return f"Fault({str(self)!r})"


class InvalidFileError(AibenchdError):
    """A configuration or specification with faults: all of them at once, in the order of the file."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.file, fault.line, fault.column))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ArgumentError(AibenchdError):
    """A command line of FAI-PEP's that means nothing; the message names the argument and what was expected."""


class PeriodError(AibenchdError):
    """What a report is to be of, or since when, is nothing that the journal or the configuration knows."""


class UnknownKindError(AibenchdError):
    """A kind that no installed plug-in offers."""


class StoreError(AibenchdError):
    """The journal cannot be used: of a newer version, locked, damaged or on a full disk."""


class RemoteUnreachableError(AibenchdError):
    """A repository's remote did not answer, or refused; tried again with backoff."""


class UnknownRevisionError(AibenchdError):
    """A commit, branch or tag that the repository does not have."""


class BuildError(AibenchdError):
    """A revision does not build; recorded once, with its log."""


class ModelFileError(AibenchdError):
    """A model file is missing or its bytes are not those that its digest names."""


class CommandError(AibenchdError):
    """A benchmark cannot be composed into commands, or its program's output not be read."""


class UploadError(AibenchdError):
    """What was sent is not what was announced, or cannot be taken."""


class TooLargeError(UploadError):
    """More is sent than the configuration lets one send."""


class NoSpaceError(UploadError):
    """The disk is full, so that what is sent cannot be kept."""


class ShareError(UploadError):
    """Who sends it has as much here as one user may.

    ``seconds`` is when some of that may be let go; None where that is not known.
    """

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


class TriageError(AibenchdError):
    """A finding is not in a state of which this can be made."""


class DeviceLostError(AibenchdError):
    """A device cannot be reached; its experiments are parked and resume at their next block."""


class LostRunningError(DeviceLostError):
    """A device was lost while a benchmark's program ran on it, of this ``arm``: it may be what the program does to it."""

    def __init__(self, arm: str, message: str) -> None:
        super().__init__(message)
        self.arm = arm


class HarnessError(AibenchdError):
    """aibenchd itself, or the host it runs on, is at fault; the same block is tried again."""


class SourceAwayError(HarnessError):
    """Where a model file comes from does not answer; tried again for a while, and then given up."""


class CredentialError(AibenchdError):
    """A secret cannot be read, or others could read it too."""


class SinkError(AibenchdError):
    """A sink cannot be opened as it is configured; tried again, its records kept."""


class BadRecordError(AibenchdError):
    """A record is not what a format is made of: an older version left it; it is a dead letter, and holds up no other."""


class QueryTooSlowError(AibenchdError):
    """A question to the journal that would take too long; ask for less."""


class SocketError(AibenchdError):
    """The status socket or the address for metrics cannot be had."""
