"""Who is at the other end of the status socket, by the kernel's word, and what they may do. Blocking: it asks for groups."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

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


def may_operate(peer: Peer, operators: Sequence[str]) -> bool:
    """Whether a peer may change things: root, this process's own user, and members of the groups named."""
    return peer.uid in (0, os.getuid()) or not peer.groups.isdisjoint(_numbers(operators))


def _numbers(groups: Sequence[str]) -> set[int]:
    numbers = set()
    for name in groups:
        try:
            numbers.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue  # a group that this host does not have has no members
    return numbers
