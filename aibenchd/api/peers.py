"""Who is at the other end of a socket, by the kernel's word, and what they may do. Blocking: it asks for groups."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NO_PROCESS, NO_GROUP = 0, -1  # where the kernel tells neither

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was when it did."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """Login name, or the number where this host knows none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def groups(self) -> frozenset[int]:
        """Its own group and all that its user is a member of."""
        try:
            user = pwd.getpwuid(self.uid)
        except KeyError:
            return frozenset({self.gid})
        return frozenset({self.gid, *os.getgrouplist(user.pw_name, user.pw_gid)})


def of(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket."""
    return Peer(*_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def on_this_host(here: tuple[str, int], there: tuple[str, int]) -> Peer | None:
    """The peer of a TCP connection within this host, by its two ends; None where the kernel knows no such one.

    The kernel lists each socket with its user (``/proc/net/tcp`` of proc(5)): its own end is the peer's other one. It does not
    tell which process it is.
    """
    ends = [_end(*there), _end(*here)]
    for line in Path("/proc/net/tcp6" if ":" in there[0] else "/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return _of_user(int(fields[7]))
    return None


def _end(address: str, port: int) -> str:
    """As ``/proc/net/tcp`` has it: words of four bytes, in the order of this machine."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _of_user(uid: int) -> Peer:
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = NO_GROUP
    return Peer(NO_PROCESS, uid, gid)


def may_operate(peer: Peer, operators: Sequence[str]) -> bool:
    """Whether a peer may change things: root, this process's own user, and members of the groups named."""
    return peer.uid in (0, os.getuid()) or not peer.groups.isdisjoint(_numbers(operators))


def way_in(groups: Sequence[str], key: str) -> str:
    """How to become one of those who may, for who may not; the ``key`` of the configuration names the groups."""
    if groups:
        return f"root, the daemon's user and members of {' or '.join(groups)} may; ask to be added to the group"
    return f"root and the daemon's user may; '{key}' of the configuration names groups that may too"


def _numbers(groups: Sequence[str]) -> set[int]:
    numbers = set()
    for name in groups:
        try:
            numbers.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue  # a group that this host does not have has no members
    return numbers
