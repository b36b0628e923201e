"""The status socket: HTTP/1.1 with JSON over a Unix socket, for people, scripts and ``curl --unix-socket``; and the dashboard's.

They listen within milliseconds of :func:`serve`; the HTTP server behind it is imported only then, in a thread, for
that alone takes longer than all else that the daemon does before it is ready. Who connects meanwhile waits in the backlog.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import importlib
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio
import anyio.abc
import anyio.to_thread

from aibenchd import board, credentials, errors, events, model, planning
from aibenchd import settings as configuration
from aibenchd.store import store
from aibenchd.submissions import kept, submitting

BACKLOG = 128  # connections that wait to be accepted
PATH_LIMIT = 107  # bytes that the kernel takes for the path of a Unix socket
PORT_LIMIT = 65_535
TOKEN_LEAST = 16  # characters, of what opens the dashboard
PROBE_SECONDS = 1.0  # for a daemon that may already be there to accept


class Cell(NamedTuple):
    """One cell of the coverage matrix as configured."""

    repository: str  # whose builds run in it; empty where there is none
    framework: str
    benchmark: str  # identifier
    benchmark_digest: str
    model: str
    metric: str
    row: str  # what it can be laid side by side with has the same
    device: str
    backend: str
    impossible: str  # why it cannot be measured; empty where it can


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload did.

    Attributes:
        applied: whether the file was good; a bad one changes nothing.
        changes: what is different now, one line each, for a person.
        faults: why it was not applied, one line each.
    """

    applied: bool
    changes: Sequence[str] = ()
    faults: Sequence[str] = ()


class Controls(Protocol):
    """What the daemon does when an operator asks. All of it may be asked again: what is so already stays so."""

    def status(self) -> model.JsonObject:
        """The process: ``version started_at config paused`` (a boolean) ``paused_since paused_by``, and what else there is."""

    def cells(self) -> Sequence[Cell]:
        """All cells of the coverage matrix, by the configuration. May be called on any thread: they are many."""

    async def compare(self, wanted: planning.Comparison) -> int:
        """Plan a comparison of two cells; the number of the request.

        Raises:
            CommandError: it cannot be done.
        """

    async def calibrate(self, wanted: planning.Calibration) -> int:
        """Plan to compare a commit with itself on a device; the number of the request.

        Raises:
            CommandError: it cannot be done.
        """

    async def submit(self, wanted: submitting.Wanted) -> submitting.Planned | submitting.Lacking:
        """Plan to measure programs that somebody sent, once all of it is here.

        Raises:
            CommandError, UploadError: it cannot be done.
        """

    async def cancel(self, request: int, by: str) -> int:
        """End what is left of a request, also what runs; how many experiments were."""

    async def reload(self) -> ReloadResult:
        """Read the configuration again."""

    async def pause(self, by: str) -> None:
        """Begin no block and no build until :meth:`resume`; what runs is finished."""

    async def resume(self, by: str) -> None:
        """Begin blocks and builds again, unless something other than an operator holds them back."""

    async def drain(self, device: str, by: str) -> None:
        """Take no more blocks on a device until :meth:`undrain`; the one in flight is finished."""

    async def undrain(self, device: str, by: str) -> None:
        """Take blocks on a device again; one in quarantine stays in it."""

    async def release(self, device: str, by: str) -> bool:
        """Trust a device again that is in quarantine, and try one now that is lost or waits; whether it was any of these."""


@dataclass(frozen=True, slots=True)
class House:
    """What the status socket shows and acts on. ``settings`` gives those in force now; ``kept`` is what people sent."""

    store: store.Store
    board: board.Board
    events: events.Events
    settings: Callable[[], configuration.Settings]
    controls: Controls
    state_directory: Path
    kept: kept.Kept


class Dashboard(NamedTuple):
    """Where the dashboard listens, and the token that people sign in with; empty where none is needed."""

    listening: socket.socket
    token: str


@dataclass(frozen=True, slots=True)
class Sockets:
    """What is listened on: ``metrics`` and ``dashboard`` only where they are configured."""

    status: socket.socket
    metrics: socket.socket | None
    dashboard: Dashboard | None


async def serve(house: House, path: Path, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Answer on ``path``, and on TCP what is configured, until cancelled; started once all listen.

    Raises:
        SocketError: the socket or an address cannot be had; the message says why.
        CredentialError: the dashboard's token cannot be read.
    """
    chosen = house.settings()
    with contextlib.ExitStack() as stack:
        status = stack.enter_context(unix_socket(path, int(chosen.status.mode, 8), chosen.status.group))
        at = chosen.status.metrics_listen
        metrics = stack.enter_context(tcp_socket("status.metrics_listen", at)) if at else None
        dashboard = stack.enter_context(_dashboard(chosen.dashboard)) if chosen.dashboard.listen else None
        task_status.started()
        routes = await anyio.to_thread.run_sync(importlib.import_module, "aibenchd.api.routes")
        await routes.serve(house, Sockets(status, metrics, dashboard))


@contextlib.contextmanager
def _dashboard(chosen: configuration.DashboardSettings) -> Iterator[Dashboard]:
    token = dashboard_token(chosen.token_file) if chosen.token_file else ""
    with tcp_socket("dashboard.listen", chosen.listen) as listening:
        yield Dashboard(listening, token)


def dashboard_token(source: Path) -> str:
    """What people sign in with at the dashboard. Blocking.

    Raises:
        CredentialError: it cannot be read, or can be guessed.
    """
    token = credentials.read(source)
    if len(token) < TOKEN_LEAST:
        raise errors.CredentialError(
            f"{source}: fewer than {TOKEN_LEAST} characters can be guessed; make a token by 'openssl rand -hex 24'"
        )
    return token


def default_path(settings: configuration.StatusSettings, state_directory: Path, environment: Mapping[str, str]) -> Path:
    """Where the status socket is: as configured, else in the runtime directory that systemd gave, else in the state directory."""
    if settings.socket is not None:
        return settings.socket
    runtime = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return (Path(runtime) if runtime else state_directory) / "aibenchd.sock"


@contextlib.contextmanager
def unix_socket(path: Path, mode: int, group: str) -> Iterator[socket.socket]:
    """Listen on ``path``. What a dead daemon left there is replaced, in one step; a live one's is left alone.

    Raises:
        SocketError: another daemon answers there, or the socket cannot be made.
    """
    _check_free(path)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    if len(os.fsencode(made)) > PATH_LIMIT:
        raise errors.SocketError(f"{path}: too long for the path of a socket; set status.socket to a shorter one")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listening:
        try:
            inode = _listen(listening, made, mode, group)
            made.rename(path)
        except OSError as error:
            raise errors.SocketError(
                f"{path}: cannot listen there: {error.strerror}; set status.socket to another path"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                made.unlink()
        try:
            yield listening
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


@contextlib.contextmanager
def tcp_socket(key: str, address: str) -> Iterator[socket.socket]:
    """Listen on ``host:port``, as ``key`` of the configuration says.

    Raises:
        SocketError: the address is not this host's, or is taken.
    """
    host, _, port = address.rpartition(":")
    if int(port) > PORT_LIMIT:
        raise errors.SocketError(f"{key}: there is no port {port}; the largest is {PORT_LIMIT}")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise errors.SocketError(f"{key}: cannot listen on {address}: {error}") from error
    with contextlib.closing(listening):
        yield listening


def _check_free(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.SocketError(f"{path}: is there and is no socket; remove it, or set status.socket to another path")
    except OSError:
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(PROBE_SECONDS)
        # Any other answer than a refusal, such as a full backlog, comes from a process that lives.
        if probe.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise errors.SocketError(f"{path}: another aibenchd answers there; stop it, or set status.socket to another path")


def _listen(listening: socket.socket, path: Path, mode: int, group: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening.bind(os.fspath(path))
    if group:
        _give(path, group)
    path.chmod(mode)
    listening.listen(BACKLOG)  # not before the mode is right: until then nobody can connect
    return path.stat().st_ino


def _give(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        raise errors.SocketError(f"status.group: this host has no group {group!r}; create it, or name another") from None
    except PermissionError:
        raise errors.SocketError(
            f"status.group: only a member of {group!r} can give it the socket; add the daemon's user to it, or name another"
        ) from None
