"""``aibenchctl top``: the daemon's pages on a whole terminal, drawn again and again, with keys to turn and scroll them."""

from __future__ import annotations

import contextlib
import curses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from aibenchd.api import call, devices, experiments, findings, pages, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Show = Callable[[screen.Screen, dict[str, Any]], None]

PAGES: tuple[tuple[str, str, Show], ...] = (
    ("now", "/v1/status", pages.status),
    ("devices", "/v1/devices", devices.devices),
    ("experiments", "/v1/experiments", experiments.experiments),
    ("findings", "/v1/findings", findings.findings),
    ("builds", "/v1/builds", pages.builds),
    ("sinks", "/v1/sinks", pages.sinks),
)
KEYS = "1-6 or Tab: page   arrows, PgUp, PgDn, Home, End: scroll   space: hold   q: quit"
HERE_SECONDS, AFAR_SECONDS = 2.0, 10.0  # between two looks; afar each takes a session of ssh
TICK_MILLISECONDS = 200
SIDEWAYS = 8  # columns
SAID = 4096  # bytes of what was written to standard error that are looked at
FIRST_COLOUR = 30  # of a terminal's codes


class Lines(screen.Screen):
    """Keeps what is printed, with its style, in place of printing it."""

    def __init__(self, program: str) -> None:
        super().__init__(program)
        self.width = 0  # none is cut: the window scrolls
        self.kept: list[tuple[str, str]] = []

    def _put(self, text: str, style: str) -> None:
        self.kept.append((text, style))


class View:
    """What is shown, and how far it is scrolled; knows no terminal.

    Args:
        program: what a command line begins with that asks the same daemon.
        aside: what was last written to standard error meanwhile, which is no part of the screen.

    Attributes:
        page: index into :data:`PAGES`.
        lines: of that page, with their styles.
        trouble: why they are not of now; empty where they are.
    """

    def __init__(self, daemon: call.Daemon, program: str = screen.PROGRAM, aside: Callable[[], str] = str) -> None:
        self._daemon, self._program, self._aside = daemon, program, aside
        self.page, self.row, self.column = 0, 0, 0
        self.held, self.trouble = False, ""
        self.lines: list[tuple[str, str]] = []

    def look(self) -> None:
        """Ask the daemon. What it said before stays where it does not answer."""
        _, target, show = PAGES[self.page]
        out = Lines(self._program)
        try:
            show(out, self._daemon.get(target))
        except (call.Unreachable, call.Refused) as error:
            self.trouble = ": ".join(filter(None, (screen.pasteable(str(error), self._program), self._aside())))
            return
        self.lines, self.trouble = out.kept, ""

    def turn(self, page: int) -> None:
        """Show another page, from its beginning."""
        self.page, self.row, self.column, self.lines = page % len(PAGES), 0, 0, []
        self.look()

    def scroll(self, rows: int, height: int) -> None:
        """By so many rows, in a window of that height: never past the last."""
        self.row = min(max(self.row + rows, 0), max(len(self.lines) - height, 0))

    def shift(self, columns: int) -> None:
        """To the side, never past what is widest."""
        widest = max((len(text) for text, _ in self.lines), default=0)
        self.column = min(max(self.column + columns, 0), max(widest - SIDEWAYS, 0))

    def window(self, height: int, width: int) -> list[tuple[str, str]]:
        """What of the page is seen."""
        seen = self.lines[self.row : self.row + height]
        return [(text[self.column : self.column + width], style) for text, style in seen]


def run(daemon: call.Daemon, program: str, *, seconds: float) -> None:
    """Until the user has seen enough. The first look is before the terminal is taken: what is wrong then is said plainly.

    Raises:
        Unreachable, Refused: at the first look.
        OSError: there is no terminal that this could be shown on.
    """
    daemon.get("/v1/status")
    if not (os.isatty(0) and os.isatty(1)):
        raise OSError("'top' needs a terminal; see 'status --watch', or 'events'")
    try:
        with _kept_aside() as aside:
            curses.wrapper(_loop, View(daemon, program, aside), seconds)
    except curses.error as error:
        raise OSError(f"this terminal ({os.environ.get('TERM', 'TERM is not set')}) cannot be drawn on: {error}") from None


@contextlib.contextmanager
def _kept_aside() -> Iterator[Callable[[], str]]:
    """What this process's children, ssh for one, write to standard error would be written over the screen.

    Gives what asks for its last line.
    """
    sys.stderr.flush()
    screen_of_old = os.dup(2)
    try:
        with tempfile.TemporaryFile() as kept:
            os.dup2(kept.fileno(), 2)
            yield lambda: _last_line(kept.fileno())
    finally:
        os.dup2(screen_of_old, 2)
        os.close(screen_of_old)


def _last_line(file: int) -> str:
    end = os.fstat(file).st_size
    lines = os.pread(file, SAID, max(end - SAID, 0)).decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


def _loop(window: curses.window, view: View, seconds: float) -> None:
    colours = _colours()
    window.timeout(TICK_MILLISECONDS)
    looked = 0.0
    while True:
        if not view.held and time.monotonic() - looked >= seconds:
            view.look()
            looked = time.monotonic()
        _draw(window, view, colours)
        key = window.getch()
        if key in (ord("q"), 27):
            return
        press(view, key, max(window.getmaxyx()[0] - 2, 1))


def press(view: View, key: int, height: int) -> None:
    """Do what a key says."""
    scrolls = {
        curses.KEY_UP: -1,
        ord("k"): -1,
        curses.KEY_DOWN: 1,
        ord("j"): 1,
        curses.KEY_PPAGE: -height,
        curses.KEY_NPAGE: height,
        curses.KEY_HOME: -len(view.lines),
        curses.KEY_END: len(view.lines),
    }
    if ord("1") <= key < ord("1") + len(PAGES):
        view.turn(key - ord("1"))
    elif key in (ord("\t"), curses.KEY_BTAB):
        view.turn(view.page + (1 if key == ord("\t") else -1))
    elif key in (curses.KEY_LEFT, curses.KEY_RIGHT):
        view.shift(SIDEWAYS if key == curses.KEY_RIGHT else -SIDEWAYS)
    elif key == ord(" "):
        view.held = not view.held
    elif key in scrolls:
        view.scroll(scrolls[key], height)


def _draw(window: curses.window, view: View, colours: dict[str, int]) -> None:
    height, width = window.getmaxyx()
    window.erase()
    named = "  ".join(f"[{name}]" if index == view.page else f"{index + 1} {name}" for index, (name, _, _) in enumerate(PAGES))
    _write(window, 0, f"{'held  ' if view.held else ''}{named}", width, curses.A_REVERSE)
    view.scroll(0, max(height - 2, 1))  # the window may have grown
    for row, (text, style) in enumerate(view.window(max(height - 2, 0), width), 1):
        _write(window, row, text, width, colours.get(style, curses.A_NORMAL))
    _write(window, height - 1, view.trouble or KEYS, width, curses.A_REVERSE if view.trouble else curses.A_DIM)
    window.refresh()


def _write(window: curses.window, row: int, text: str, width: int, attribute: int) -> None:
    if 0 <= row < window.getmaxyx()[0]:
        # One cell short: curses takes it for an error to write into the last one.
        window.addnstr(row, 0, screen.printable(text), max(width - 1, 0), attribute)


def _colours() -> dict[str, int]:
    """Attributes by the names of styles; without colours where the terminal, or its user, has none."""
    plain = {style: {"1": curses.A_BOLD, "2": curses.A_DIM}.get(code, curses.A_NORMAL) for style, code in screen.STYLES.items()}
    if not curses.has_colors() or "NO_COLOR" in os.environ:
        return plain
    curses.use_default_colors()
    for style, code in screen.STYLES.items():
        if int(code) >= FIRST_COLOUR:
            curses.init_pair(int(code), int(code) - FIRST_COLOUR, -1)
            plain[style] = curses.color_pair(int(code))
    return plain
