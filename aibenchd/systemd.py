"""What the service manager is told, by sd_notify(3)'s protocol: one datagram of ``NAME=value`` lines per message.

Started by hand, there is no manager, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping

import anyio
import structlog

from aibenchd import errors

SEND_SECONDS = 1.0  # that the manager may take to receive

log = structlog.get_logger()


class Notifier:
    """Speaks to the manager that started this process.

    Takes the variables out of ``environment`` that the manager set: what this process starts must not speak for it.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.pop("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if meant and microseconds.isdecimal() else 0.0

    def ready(self, status: str = "") -> None:
        """Started, or reloaded."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """Begins to reload; to be followed by :meth:`ready`, whether or not anything changed."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self, seconds: float, status: str = "") -> None:
        """Begins to stop, and may take ``seconds`` from now."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}", *_status(status))

    def extend(self, seconds: float) -> None:
        """Starting, reloading or stopping takes up to ``seconds`` more from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(*_status(text))

    async def watchdog(self, alive: Callable[[], Awaitable[object]]) -> None:
        """Tell the manager twice per interval that this process lives, as long as ``alive`` returns in time.

        Ends at once where the manager keeps no watch. A loop that hangs tells nothing, and neither does a journal
        that cannot be written: the manager then restarts the process.
        """
        if not self.watchdog_seconds:
            return
        pause = self.watchdog_seconds / 2
        while True:
            try:
                with anyio.fail_after(pause):
                    await alive()
            except (TimeoutError, errors.StoreError) as error:
                log.warning("watchdog", reason=str(error) or f"no answer within {pause:g} s")
            else:
                self._send("WATCHDOG=1")
            await anyio.sleep(pause)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as datagrams:
            datagrams.settimeout(SEND_SECONDS)
            try:
                datagrams.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                log.warning("service manager not told", lines=lines, reason=str(error))


def _address(text: str) -> str | None:
    """A path, or an abstract name, which is written with ``@`` for its leading null byte; None for what is neither."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
