"""How a device is reached over SSH: where it listens, whom we are there, and by what we know that it is itself."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import asyncssh
import pydantic
from anyio.lowlevel import RunVar

from aibenchd import credentials, errors

CLOSE_DEADLINE = 5.0  # seconds
AT_ONCE = 64  # devices that are being reached; each takes 20 ms of this processor, which a thousand would wait too long for
PORT = 22
FINGERPRINT_LENGTH = 43  # of a SHA-256 in base64, without padding

_turns: RunVar[anyio.CapacityLimiter] = RunVar("_turns")

logging.getLogger("asyncssh").setLevel(logging.CRITICAL)  # what it says, our errors say


def _fingerprint(text: str) -> str:
    if text and (not text.startswith("SHA256:") or len(text) != len("SHA256:") + FINGERPRINT_LENGTH):
        raise ValueError(
            "expected a fingerprint, SHA256: and 43 characters; `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it"
        )
    return text


def _private(path: Path | None) -> Path | None:
    if path is not None and path.suffix == ".pub":
        raise ValueError(f"{path.name} is the public half of a key; name the private one, most often {path.stem}")
    return path


_ADDRESS = re.compile(r"(?:(?P<username>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:\[\]@]*)(?::(?P<port>[0-9]+))?")


def _alone(host: str) -> str:
    """A host that names no user and no port beside itself: what a person would write after ``ssh`` has keys of its own here."""
    found = _ADDRESS.fullmatch(host)
    if found is not None and (alone := found["host"].strip("[]")) != host:
        keys = {"host": alone, "username": found["username"], "port": found["port"]}
        said = ", ".join(f"{key}: {value}" for key, value in keys.items() if value)
        raise ValueError(f"is not the host alone; write {said}")
    return host


class Endpoint(pydantic.BaseModel):
    """An SSH server."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    host: Annotated[
        str, pydantic.AfterValidator(_alone), pydantic.Field(min_length=1, description="name or address of its SSH server")
    ]
    port: Annotated[int, pydantic.Field(ge=1, le=65535, description="of its SSH server")] = PORT
    username: Annotated[str, pydantic.Field(description="whom programs run as there; empty: the daemon's own name")] = ""
    key_file: Annotated[
        credentials.File | None,
        pydantic.AfterValidator(_private),
        pydantic.Field(description="private key without a passphrase; null: those in ~/.ssh of the daemon's user"),
    ] = None
    certificate_file: Annotated[
        Path | None, pydantic.Field(description="that an authority signed for key_file, as ssh-keygen -s makes it; null: none")
    ] = None
    agent: Annotated[bool, pydantic.Field(description="try the keys of the agent at SSH_AUTH_SOCK first")] = False
    known_hosts_file: Annotated[
        credentials.File | None, pydantic.Field(description="host keys that are accepted; null: those of the daemon's user")
    ] = None
    host_key: Annotated[
        str,
        pydantic.AfterValidator(_fingerprint),
        pydantic.Field(description="fingerprint of the only host key that is accepted, SHA256:…; empty: known_hosts decides"),
    ] = ""

    def __str__(self) -> str:
        return f"{self.username}@{self.host}:{self.port}" if self.username else f"{self.host}:{self.port}"


class _Identified(asyncssh.SSHClient):
    """Accepts the pinned host key, and remembers one that was refused and where it was seen."""

    def __init__(self, pinned: str) -> None:
        self._pinned = pinned
        self.refused: asyncssh.SSHKey | None = None
        self.address = ""

    def validate_host_public_key(self, _host: str, addr: str, _port: int, key: asyncssh.SSHKey) -> bool:
        self.address = addr
        self.refused = None if key.get_fingerprint() == self._pinned else key
        return not self.refused


def turn() -> anyio.CapacityLimiter:
    """Had by who connects, until the device's supervisor has begun too: many devices may be one host, such as its GPUs."""
    try:
        return _turns.get()
    except LookupError:
        _turns.set(limiter := anyio.CapacityLimiter(AT_ONCE))
        return limiter


@contextlib.asynccontextmanager
async def connected(
    way: Sequence[Endpoint], timeout: float, keepalive: float, lost_after: float
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to the last of ``way``, through those before it; it closes itself where nothing comes back any more.

    Raises:
        DeviceLostError: it cannot be had within ``timeout`` seconds; the message says what to do.
    """
    options = {
        "keepalive_interval": keepalive,
        "keepalive_count_max": max(1, round(lost_after / keepalive) - 1),
        "config": None,  # what a person's ~/.ssh/config says is not in our configuration
        "preferred_auth": "publickey",
        "agent_forwarding": False,
        "encoding": None,
    }
    connection: asyncssh.SSHClientConnection | None = None
    reached = way[0]
    async with contextlib.AsyncExitStack() as stack:
        try:
            with anyio.fail_after(timeout):
                for reached in way:
                    connection = await _connect(reached, tunnel=connection, **options)
                    stack.push_async_callback(_close, connection)
        except TimeoutError:
            raise errors.DeviceLostError(f"{reached}: no answer within {timeout:g} s; see whether it is on and reachable").at(
                *_place(way, reached), "host"
            ) from None
        except (errors.DeviceLostError, errors.CredentialError) as error:
            error.at(*_place(way, reached), *error.keys)
            raise
        assert connection is not None  # noqa: S101
        yield connection


def _place(way: Sequence[Endpoint], reached: Endpoint) -> tuple[str | int, ...]:
    """Of an endpoint's keys in a device's entry, whose own are those of the last."""
    return () if reached is way[-1] else ("jump", way.index(reached))


async def _connect(endpoint: Endpoint, **options: Any) -> asyncssh.SSHClientConnection:
    identified = _Identified(endpoint.host_key)
    try:
        return await asyncssh.connect(
            endpoint.host,
            endpoint.port,
            username=endpoint.username or (),
            client_keys=await anyio.to_thread.run_sync(_keys, endpoint),
            agent_path=() if endpoint.agent else None,
            known_hosts=_known_hosts(endpoint),
            client_factory=lambda: identified,
            **options,
        )
    except (asyncssh.Error, OSError, ValueError) as error:
        reason = f"{endpoint}: {_reason(endpoint, identified, error)}"
        raise errors.DeviceLostError(reason).at(_key(endpoint, error)) from error


def _keys(endpoint: Endpoint) -> Any:
    """As asyncssh takes them. Blocking."""
    if endpoint.key_file is None:
        return ()
    with errors.about("key_file"):
        path = credentials.path_of(endpoint.key_file)
    try:
        key = asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise errors.DeviceLostError(f"key_file {path}: {reason}; name a private key that needs no passphrase, or set agent").at(
            "key_file"
        ) from error
    return [(key, str(endpoint.certificate_file))] if endpoint.certificate_file else [key]


def _known_hosts(endpoint: Endpoint) -> Any:
    if endpoint.host_key:
        return [], [], []  # none is known; what is pinned is accepted when it is seen
    with errors.about("known_hosts_file"):
        return str(credentials.path_of(endpoint.known_hosts_file)) if endpoint.known_hosts_file else ()


def _key(endpoint: Endpoint, error: Exception) -> str:
    """The key that a connection which could not be had is about."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return "host_key"
    if isinstance(error, asyncssh.PermissionDenied):
        return "username"
    if _of_known_hosts(error):
        return "known_hosts_file"
    if isinstance(error, OSError) and error.filename:
        return "certificate_file" if error.filename == str(endpoint.certificate_file) else "known_hosts_file"
    return "host"


def _reason(endpoint: Endpoint, identified: _Identified, error: Exception) -> str:
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and identified.refused:
        return _not_verified(endpoint, identified.refused, identified.address)
    if isinstance(error, asyncssh.PermissionDenied):
        key = f"the public half of {endpoint.key_file}" if endpoint.key_file else "a public key of ours"
        return f"it does not let us in ({error.reason}); put {key} into ~/.ssh/authorized_keys there: passwords are never used"
    if isinstance(error, asyncssh.ChannelOpenError):
        return f"the connection failed: {error.reason}; see whether it is on, and whether the server before it lets us through"
    if isinstance(error, asyncssh.DisconnectError):
        return f"the connection failed: {error.reason}; see what its SSH server logged, such as by 'journalctl -u ssh'"
    if isinstance(error, socket.gaierror):
        return f"it cannot be reached: {error.strerror}; correct host, or write its address"
    if isinstance(error, ConnectionRefusedError):
        return f"it cannot be reached: Connection refused; see whether its SSH server runs, and on port {endpoint.port}"
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        said = os.strerror(error.errno or 0)
        return (
            f"it cannot be reached: {said}{f': {error.filename}' if error.filename else '; see whether it is on and reachable'}"
        )
    if _of_known_hosts(error):
        return f"{_known_hosts_file(endpoint)}: {error}; mend or remove that line"
    return f"it cannot be reached: {error}"


def _not_verified(endpoint: Endpoint, key: asyncssh.SSHKey, address: str) -> str:
    """What is wrong with a host key, and what to do about it."""
    algorithm, found = key.get_algorithm(), key.get_fingerprint()
    sort = next((sort for sort in ("ed25519", "ecdsa") if sort in algorithm), "rsa")
    seen = f"its host key {found} ({algorithm})"
    compare = f"compare it with `ssh-keygen -lf /etc/ssh/ssh_host_{sort}_key.pub` on that machine, then set host_key"
    changed = "it was set up anew, or somebody stands between"
    if endpoint.host_key:
        return f"{seen} is not the pinned {endpoint.host_key}: {changed}; {compare}"
    file = _known_hosts_file(endpoint)
    if known := _known(file, endpoint, address):
        return f"{seen} is not {', '.join(known)}, which {file} has: {changed}; {compare}"
    scan = f"ssh-keyscan -p {endpoint.port} {endpoint.host} >> {shlex.quote(str(file))}"
    return f"{seen} is not known yet; {compare}: {found}, or run `{scan}`"


def _of_known_hosts(error: Exception) -> bool:
    """Whether it is about a line of a file of known hosts: of which file, asyncssh does not say."""
    return isinstance(error, ValueError) and str(error).startswith("Invalid known hosts")


def _known_hosts_file(endpoint: Endpoint) -> Path:
    named = endpoint.known_hosts_file
    return credentials.path_of(named) if named else Path("~/.ssh/known_hosts").expanduser()


def _known(file: Path, endpoint: Endpoint, address: str) -> list[str]:
    """Fingerprints of the keys that a file of known hosts has of a server."""
    if not file.exists():
        return []
    port = None if endpoint.port == PORT else endpoint.port
    keys = asyncssh.match_known_hosts(str(file), endpoint.host, address, port)[0]
    return sorted({key.get_fingerprint() for key in keys})


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    with anyio.move_on_after(CLOSE_DEADLINE, shield=True) as waiting:
        await connection.wait_closed()
    if waiting.cancelled_caught:
        connection.abort()
