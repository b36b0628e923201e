"""``aibenchctl top``: the real client on a real terminal, against a real status socket."""

from __future__ import annotations

import contextlib
import curses
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest
import statusd

from aibenchd.api import call, top

CLIENT = [sys.executable, "-m", "aibenchd.api.client"]
ROWS, COLUMNS = 24, 100


class Terminal:
    """A client on a terminal of its own: what it is typed, and what it draws."""

    def __init__(self, path: Path, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        size = {"LINES": str(ROWS), "COLUMNS": str(COLUMNS)}  # curses asks for these first, and who runs tests may have set them
        env = {**os.environ, **size, "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen([*CLIENT, "-s", str(path), "top"], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        self.drawn = b""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, text: bytes, seconds: float = 60.0) -> None:
        """Read until it has drawn ``text`` since it was last asked."""
        self.drawn, end = b"", time.monotonic() + seconds
        while text not in self.drawn:
            ready, _, _ = select.select([self._ours], [], [], max(end - time.monotonic(), 0))
            assert ready, self.drawn
            self.drawn += os.read(self._ours, 1 << 16)

    def ended(self) -> int:
        with contextlib.suppress(OSError):
            while os.read(self._ours, 1 << 16):
                pass
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(daemon: statusd.Daemon) -> Iterator[Terminal]:
    opened = Terminal(daemon.path)
    yield opened
    opened.close()


async def seen(terminal: Terminal, text: bytes) -> None:
    await anyio.to_thread.run_sync(terminal.until, text)


async def test_pages_are_turned_and_it_ends_at_q(terminal: Terminal) -> None:
    await seen(terminal, b"lab-host")
    terminal.type("2")
    await seen(terminal, b"[devices]")
    terminal.type("\t")
    await seen(terminal, b"[experiments]")
    terminal.type(" ")
    await seen(terminal, b"held")
    terminal.type("q")
    assert await anyio.to_thread.run_sync(terminal.ended) == 0


async def test_without_a_terminal_it_says_what_to_use_instead(daemon: statusd.Daemon) -> None:
    told = await anyio.run_process([*CLIENT, "-s", str(daemon.path), "top"], check=False)
    assert told.returncode == 3
    assert told.stderr.decode() == "aibenchctl: 'top' needs a terminal; see 'status --watch', or 'events'\n"


async def test_a_terminal_that_cannot_be_drawn_on_is_said(daemon: statusd.Daemon) -> None:
    terminal = Terminal(daemon.path, TERM="no-such-terminal")
    await seen(terminal, b"cannot be drawn on")
    assert await anyio.to_thread.run_sync(terminal.ended) == 3


async def test_no_daemon_is_said_before_the_terminal_is_taken(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "none.sock")
    await seen(terminal, b"aibenchd does not run there")
    assert b"\x1b[?1049h" not in terminal.drawn
    assert await anyio.to_thread.run_sync(terminal.ended) == 4


class Answers(call.Daemon):
    """Says what it is told to, or nothing."""

    def __init__(self, *devices: str) -> None:
        super().__init__("/nowhere")
        self.names = list(devices)
        self.away = False

    def get(self, target: str) -> dict[str, object]:
        if self.away:
            raise call.Unreachable("away")
        assert target.startswith("/v1/")
        empty = dict.fromkeys(("hash", "abi", "model", "os", "health", "reason"), "")
        facts = {
            "kind": "local",
            "state": "ready",
            "since": None,
            "smallest": None,
            "experiments": {},
            "last_block": None,
            "left": None,
        }
        return {"devices": [{**empty, **facts, "name": name, "advice": []} for name in self.names]}


@pytest.fixture
def view() -> top.View:
    made = top.View(Answers(*(f"device {number}" for number in range(50))))
    made.turn(1)
    return made


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ([curses.KEY_DOWN], "device 0"),
        ([curses.KEY_NPAGE, curses.KEY_NPAGE], "device 19"),
        ([curses.KEY_END], "device 40"),
        ([curses.KEY_END, curses.KEY_UP, ord("k")], "device 38"),
        ([curses.KEY_UP], "device  "),
    ],
)
def test_a_page_scrolls_and_not_past_its_ends(view: top.View, keys: list[int], first: str) -> None:
    for key in keys:
        top.press(view, key, 10)
    assert view.window(10, 9)[0][0].startswith(first[:9])
    assert len(view.window(10, 9)) == 10


def test_it_shifts_to_the_side(view: top.View) -> None:
    whole = view.window(1, 200)[0][0]
    top.press(view, curses.KEY_RIGHT, 10)
    assert view.window(1, 200)[0][0] == whole[top.SIDEWAYS :]
    for _ in range(100):
        top.press(view, curses.KEY_RIGHT, 10)
    assert view.window(1, 200)[0][0]
    for _ in range(100):
        top.press(view, curses.KEY_LEFT, 10)
    assert view.column == 0


def test_what_was_said_stays_while_the_daemon_is_away(view: top.View) -> None:
    before = list(view.lines)
    daemon = view._daemon
    assert isinstance(daemon, Answers)
    daemon.away = True
    view.look()
    assert (view.lines, view.trouble) == (before, "away")
    daemon.away = False
    view.look()
    assert view.trouble == ""


def test_what_ssh_says_is_kept_off_the_screen_and_said_below_it() -> None:
    before = os.fstat(2).st_ino
    with top._kept_aside() as aside:
        assert aside() == ""
        os.write(2, b"ssh: connect to host lab port 22: No route to host\r\n\n")
        view = top.View(Answers(), aside=aside)
        view._daemon.away = True  # type: ignore[attr-defined]
        view.look()
    assert view.trouble == "away: ssh: connect to host lab port 22: No route to host"
    assert os.fstat(2).st_ino == before
