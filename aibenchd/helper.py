"""Does the few things that aibenchd needs root for: a stand-alone program of the standard library alone.

    python3 -I -m aibenchd.helper [for=NAME]

systemd hands it a listening Unix socket as file 3 and starts it when it is needed; without work for a while it ends. Root
and the user named by ``for`` may ask. A connection carries requests one after another, each a JSON object on a line, each
answered by one:

``{"verb": "set-governor", "cpus": [0, 1], "governor": "performance"}``
    One of the governors that each of the CPUs has.
``{"verb": "set-frequency", "cpus": [0, 1], "least": 1200000, "most": 1200000}``
    In kHz, within what each of the CPUs can do.
``{"verb": "drop-caches"}``
    Write out what is dirty, then forget the page cache, dentries and inodes.
``{"verb": "read-energy"}``
    ``{"zones": [{"name": "package-0", "microjoules": …, "range": …}, …]}``: counters that begin again at ``range``.

What was done is answered by an object without ``error``, what was not by ``{"error": text}``.

There is no verb that takes a path, a command or a value that is not checked against what the kernel itself offers.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

LISTENING = 3  # the first file that systemd hands over
IDLE_SECONDS = 60.0  # without a connection, after which this process ends
REQUEST_SECONDS = 30.0  # until the next request of a connection is there
REQUEST_LIMIT = 64 << 10  # bytes
CPUS_LIMIT = 8192
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


class Refused(Exception):  # noqa: N818  it is an answer
    """What the caller is told: nothing was changed that it asked for, or not all of it."""


class Machine:
    """The files of the kernel below ``root``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._cpus = root / "sys/devices/system/cpu"
        self._zones = root / "sys/class/powercap"
        self._caches = root / "proc/sys/vm/drop_caches"

    def set_governor(self, cpus: Any, governor: Any) -> dict[str, Any]:
        """
        Raises:
            Refused: one of the CPUs lacks it; then none is changed.
            OSError: a file cannot be written; those before it are changed.
        """
        places = self._places(cpus)
        for place in places:
            offered = _read(place / "scaling_available_governors").split()
            if governor not in offered:
                raise Refused(f"{place.parent.name} has the governors {', '.join(offered)}, not {governor!r}")
        for place in places:
            _write(place / "scaling_governor", governor)
        return {}

    def set_frequency(self, cpus: Any, least: Any, most: Any) -> dict[str, Any]:
        """
        Raises:
            Refused: one of the CPUs cannot run there; then none is changed.
            OSError: a file cannot be written; those before it are changed.
        """
        places = self._places(cpus)
        for place in places:
            lowest, highest = (int(_read(place / f"cpuinfo_{end}_freq")) for end in ("min", "max"))
            if not (_is_integer(least) and _is_integer(most) and lowest <= least <= most <= highest):
                raise Refused(f"{place.parent.name} runs at {lowest} to {highest} kHz, not at {least!r} to {most!r}")
        for place in places:
            # The kernel refuses a minimum above the maximum, so the one that makes room goes first.
            ends = [("max", most), ("min", least)]
            if most < int(_read(place / "scaling_min_freq")):
                ends.reverse()
            for end, frequency in ends:
                _write(place / f"scaling_{end}_freq", str(frequency))
        return {}

    def drop_caches(self) -> dict[str, Any]:
        """Blocks until all that is dirty is on the disk, however long that takes."""
        os.sync()  # only what is clean can be forgotten
        _write(self._caches, "3")
        return {}

    def read_energy(self) -> dict[str, Any]:
        """The counters of all RAPL zones as they stand, in µJ; each begins again at its ``range``."""
        return {"zones": [_zone(place) for place in sorted(self._zones.glob("*-rapl:*")) if (place / "energy_uj").exists()]}

    def _places(self, cpus: Any) -> list[Path]:
        if not isinstance(cpus, list) or not cpus or len(cpus) > CPUS_LIMIT or not all(map(_is_integer, cpus)):
            raise Refused("cpus: expected a list of numbers of CPUs, such as [0, 1]")
        places = [self._cpus / f"cpu{cpu}" / "cpufreq" for cpu in sorted(set(cpus))]
        for place in places:
            if not place.is_dir():
                raise Refused(f"{place.parent.name}: there is no such CPU, or its frequency cannot be set")
        return places


def answer(machine: Machine, line: bytes) -> dict[str, Any]:
    """Do what one request asks for."""
    try:
        return _done(machine, _parsed(line))
    except Refused as refusal:
        return {"error": str(refusal)}
    except OSError as error:
        return {"error": f"{error.filename}: {error.strerror}"}


def _done(machine: Machine, request: dict[str, Any]) -> dict[str, Any]:
    verbs: dict[str, tuple[Callable[..., dict[str, Any]], frozenset[str]]] = {
        "set-governor": (machine.set_governor, frozenset({"cpus", "governor"})),
        "set-frequency": (machine.set_frequency, frozenset({"cpus", "least", "most"})),
        "drop-caches": (machine.drop_caches, frozenset()),
        "read-energy": (machine.read_energy, frozenset()),
    }
    verb, wanted = verbs.get(request.pop("verb", ""), (None, frozenset()))
    if verb is None:
        raise Refused(f"verb: expected one of {', '.join(verbs)}")
    if request.keys() != wanted:
        raise Refused(f"expected the keys verb{''.join(f', {key}' for key in sorted(wanted))}")
    return verb(**request)


def serve(listening: socket.socket, friends: frozenset[int], machine: Machine) -> None:
    """Answer one connection after another, until none comes for a while."""
    while select.select([listening], [], [], IDLE_SECONDS)[0]:
        # A caller that goes away or dawdles is no reason to end.
        with contextlib.suppress(OSError), listening.accept()[0] as connection:
            connection.settimeout(REQUEST_SECONDS)
            _serve_one(connection, friends, machine)


def _serve_one(connection: socket.socket, friends: frozenset[int], machine: Machine) -> None:
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid not in friends:
        connection.recv(REQUEST_LIMIT)  # what is left unread would reset the connection, and the answer be lost
        connection.sendall(_line({"error": f"user {uid} may not ask for anything here"}))
        return
    for request in _requests(connection):
        connection.sendall(_line(answer(machine, request)))


def _requests(connection: socket.socket) -> Iterator[bytes]:
    received = b""
    while piece := connection.recv(REQUEST_LIMIT):
        *lines, received = (received + piece).split(b"\n")
        yield from lines
        if len(received) > REQUEST_LIMIT:
            connection.sendall(_line({"error": f"a request may have {REQUEST_LIMIT} bytes"}))
            return


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused("expected a JSON object on one line") from error
    if not isinstance(request, dict) or not isinstance(request.get("verb", ""), str):
        raise Refused('expected a JSON object with a verb, such as {"verb": "read-energy"}')
    return request


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _zone(place: Path) -> dict[str, Any]:
    return {
        "name": _read(place / "name"),
        "microjoules": int(_read(place / "energy_uj")),
        "range": int(_read(place / "max_energy_range_uj")),
    }


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read(path: Path) -> str:
    return path.read_text().strip()


def _write(path: Path, text: str) -> None:
    # Neither made where it is not there, nor opened to be read, which root without capabilities may not everywhere.
    file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def main(arguments: list[str]) -> None:
    options = dict(argument.split("=", 1) for argument in arguments)
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("aibenchd.helper: expected one socket from systemd; start aibenchd-helper.socket")
    friends = {0, pwd.getpwnam(options["for"]).pw_uid} if "for" in options else {0}
    with socket.socket(fileno=LISTENING) as listening:
        serve(listening, frozenset(friends), Machine(Path(options.get("root", "/"))))


if __name__ == "__main__":
    main(sys.argv[1:])
