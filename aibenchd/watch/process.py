"""Runs the command lines of version control systems: argument lists, deadlines, whole process groups."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.abc

from aibenchd import errors, redaction

CHUNK = 64 << 10  # bytes
OUTPUT_BOUND = 1 << 20  # bytes, of what is read whole
FIELD_BOUND = 64 << 10  # bytes, of one field; the rest of a longer one is dropped
SAID_BOUND = 4 << 10  # bytes, of the end of what a failed program said
GRACE_SECONDS = 5.0  # between SIGTERM, on which git removes its lock files, and SIGKILL
CHILDREN_SECONDS = 0.5  # that what it started has to end in, after it

# What a user's environment may say about how to reach a server. All else could change what is printed.
_KEPT = ("GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_")
_DROPPED = ("GIT_", "HG", "SSH_ASKPASS", "LANGUAGE")


class ProgramFailedError(errors.HarnessError):
    """A program of a version control system did not do what it was asked.

    Attributes:
        code: its exit status; negative: the signal that ended it; None: its deadline passed.
        said: the end of its standard error, secrets masked.
    """

    def __init__(self, command: str, code: int | None, said: str, timeout: float) -> None:
        self.code, self.said = code, said
        end = f"did not end within {timeout:g} s" if code is None else f"ended with {code}"
        super().__init__(redaction.text(f"{command} {end}: {said}" if said else f"{command} {end}"))


@dataclass(frozen=True, slots=True)
class Program:
    """One program and how it is run.

    Attributes:
        arguments: its name, looked up on PATH, and the arguments before all others.
        environment: all of it.
        timeout: seconds, of one run.
        held: descriptors that its processes inherit.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    timeout: float
    held: tuple[int, ...] = ()

    async def output(self, *arguments: str | Path) -> str:
        """What it prints, where that is little; white space at the end is cut.

        Raises:
            ProgramFailedError: it failed, overran its deadline, or printed more than ``OUTPUT_BOUND``.
            HarnessError: it is not installed.
        """
        printed = bytearray()
        async with contextlib.aclosing(self.chunks(*arguments)) as chunks:
            async for chunk in chunks:
                printed += chunk
                if len(printed) > OUTPUT_BOUND:
                    raise self._failed(arguments, 0, "printed more than expected")
        return printed.decode(errors="replace").rstrip()

    async def says_yes(self, *arguments: str | Path) -> bool:
        """Whether it ends with 0 rather than with 1, which such programs answer *no* with.

        Raises:
            ProgramFailedError, HarnessError: as :meth:`output`.
        """
        try:
            await self.output(*arguments)
        except ProgramFailedError as error:
            if error.code == 1:
                return False
            raise
        return True

    async def fields(self, *arguments: str | Path) -> AsyncGenerator[bytes, None]:
        """What it prints, streamed, cut at each NUL; a field is cut at ``FIELD_BOUND``.

        Close it (``contextlib.aclosing``) where it is not read to its end: that ends the program.

        Raises:
            ProgramFailedError, HarnessError: as :meth:`output`.
        """
        begun = b""
        async with contextlib.aclosing(self.chunks(*arguments)) as chunks:
            async for chunk in chunks:
                *complete, rest = chunk.split(b"\0")
                for field in complete:
                    yield (begun + field)[:FIELD_BOUND]
                    begun = b""
                begun = (begun + rest)[:FIELD_BOUND]
        if begun:
            yield begun

    async def chunks(self, *arguments: str | Path) -> AsyncGenerator[bytes, None]:
        """What it prints, streamed. Close it, as :meth:`fields`."""
        deadline = anyio.current_time() + self.timeout
        with _spool() as said:  # not a pipe: nothing has to read it while a caller works on a chunk
            process = await self._start(arguments, said)
            try:
                while chunk := await _next(process, deadline):
                    yield chunk
                with _until(deadline):
                    code = await process.wait()
            except TimeoutError:
                raise self._failed(arguments, None, _end_of(said)) from None
            finally:
                await _stop(process)
            if code != 0:
                raise self._failed(arguments, code, _end_of(said))

    async def _start(self, arguments: tuple[str | Path, ...], said: IO[bytes]) -> anyio.abc.Process:
        command = [*self.arguments, *map(str, arguments)]
        try:
            with anyio.CancelScope(shield=True):  # asyncio answers a cancellation here with SIGKILL, on which git leaves locks
                process = await anyio.open_process(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=self.environment,
                    start_new_session=True,
                    pass_fds=self.held,
                )
        except FileNotFoundError as error:
            name = self.arguments[0]
            raise errors.HarnessError(f"{name} is not installed, or not on PATH; install it to watch its repositories") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            raise errors.HarnessError(f"{self.arguments[0]} cannot be run: {error}") from error
        return process

    def _failed(self, arguments: tuple[str | Path, ...], code: int | None, said: str) -> ProgramFailedError:
        command = " ".join([self.arguments[0], *(str(argument) for argument in arguments[:2])])
        return ProgramFailedError(command, code, said, self.timeout)


def environment(**more: str) -> dict[str, str]:
    """The daemon's environment, without what could change what the programs print, and with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED) or name.startswith(_KEPT)}
    return kept | {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"} | more


def _spool() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise errors.HarnessError(f"{tempfile.gettempdir()}: {error.strerror}; git and hg need a temporary directory") from error


@contextlib.contextmanager
def _until(deadline: float) -> Iterator[None]:
    with anyio.fail_after(max(0.0, deadline - anyio.current_time())):
        yield


async def _next(process: anyio.abc.Process, deadline: float) -> bytes:
    assert process.stdout is not None  # noqa: S101  it was opened as a pipe
    try:
        with _until(deadline):
            return await process.stdout.receive(CHUNK)
    except anyio.EndOfStream:
        return b""


async def _stop(process: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            with anyio.move_on_after(GRACE_SECONDS):
                await process.wait()
            with anyio.move_on_after(CHILDREN_SECONDS):
                while _signal(process, 0):  # noqa: ASYNC110  nobody tells when another's children end
                    await anyio.sleep(0.01)
            _signal(process, signal.SIGKILL)
        await process.aclose()


def _signal(process: anyio.abc.Process, number: int) -> bool:
    """Whether any process of the group, ended but not yet waited for ones too, was there to be sent it."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _end_of(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - SAID_BOUND))
    return redaction.text(said.read().decode(errors="replace").strip())
