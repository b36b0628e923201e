"""What the client shows a person: aligned tables, times as they are spoken of, colours where a terminal shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRAM = "aibenchctl"
_GAP = "  "
SHORT = 12  # characters of a commit
STYLES = {  # by the names of verdicts and states, as terminals have them
    "heading": "1",
    "regressed": "31",
    "broken": "35",
    "failed": "31",
    "fault": "31",
    "improved": "32",
    "inconclusive": "33",
    "building": "36",
    "busy": "36",
    "open": "36",
    "dim": "2",
}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SPANS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Screen:
    """Prints to stdout. ``program`` is what a command line begins with that asks the same daemon."""

    def __init__(self, program: str = PROGRAM) -> None:
        self.program = program
        self.on_terminal = sys.stdout.isatty()
        self.colours = self.on_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = _width() if self.on_terminal else 0  # columns; 0: as long as it gets
        self.now = datetime.now(UTC)

    def line(self, text: str = "", style: str = "") -> None:
        """One line, cut at the terminal's edge."""
        self._put(self._cut(printable(text)), style)

    def paragraph(self, text: str, style: str = "") -> None:
        """A text in as many lines as it takes, where there is an edge that would cut it."""
        left = printable(text)
        while 0 < self.width < len(left) and (end := left.rfind(" ", 1, self.width)) > 0:
            self._put(left[:end], style)
            left = left[end + 1 :]
        self._put(left, style)

    def command(self, text: str) -> str:
        """A command line of this client's, such as ``show 17``, as it can be pasted."""
        return f"{self.program} {text}"

    def said(self, text: str) -> str:
        """What the daemon says, which does not know how it was called: the commands that it quotes as they can be pasted."""
        return pasteable(text, self.program)

    def facts(self, named: Sequence[tuple[str, str | None]]) -> None:
        """What is known of one thing, a line each; nothing of what is empty."""
        for name, value in named:
            if value:
                self.line(f"  {name:16}{value}")

    def more(self, answer: dict[str, Any]) -> None:
        """How a list goes on, where this was not its last page."""
        if answer["next"] is not None:
            self.line(f"there are more: --cursor {answer['next']}", "dim")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        """Rows under their headings; ``styles`` has one style per row, by the names of verdicts and states."""
        if not rows:
            self.line("none", "dim")
            return
        texts = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
        for row, style in zip([head, *texts], ["heading", *(styles or [""] * len(rows))], strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._put(self._cut(_GAP.join(cells).rstrip()), style)

    def bands(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of many columns: as many at a time as fit on the terminal, each time behind the first column."""
        if len(head) == 1:
            self.table(head, rows)
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        start = 1
        while start < len(head):
            end, width = start + 1, widths[0] + len(_GAP) + widths[start]
            while end < len(head) and not 0 < self.width < (width := width + len(_GAP) + widths[end]):
                end += 1
            if start > 1:
                self.line()
            self.table((head[0], *head[start:end]), [(row[0], *row[start:end]) for row in rows])
            start = end

    def ago(self, time: str | None) -> str:
        """How long ago a time of the daemon's was, such as ``3m ago``."""
        if not time:
            return ""
        return f"{span((self.now - datetime.fromisoformat(time)).total_seconds())} ago"

    def clear(self) -> None:
        """Begin at the top again; nothing where this is no terminal."""
        if self.on_terminal:
            print("\033[H\033[2J", end="")

    def _put(self, text: str, style: str) -> None:
        code = STYLES.get(style)
        print(f"\033[{code}m{text}\033[0m" if self.colours and code else text)

    def _cut(self, text: str) -> str:
        return text[: self.width - 1] + "…" if self.width and len(text) > self.width else text


class Status:
    """One row on stderr that says how something stands, and is written over; nothing where that is no terminal."""

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Say this in place of what was said before; an empty text leaves nothing."""
        if self.on_terminal:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sys.stderr.write(f"\r\033[K{printable(text)[: columns - 1]}")
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Leave a row that is not written over, on whatever stderr is."""
        self.show("")
        print(printable(text), file=sys.stderr, flush=True)


def pasteable(text: str, program: str) -> str:
    """The daemon's text, whose quoted commands begin with ``program`` in place of ``aibenchctl``."""
    return text.replace(f"'{PROGRAM} ", f"'{program} ")


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return "0s"


def left(blocks: int, seconds: float) -> str:
    """What is expected, as ``about 12 blocks, 4m``."""
    return f"about {blocks} block{'s' if blocks != 1 else ''}, {span(seconds)}"


def spoken(value: Any) -> str:
    """A value of JSON as a person would say it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey: subjects and reasons come from anywhere."""
    return "".join(character if character.isprintable() else " " for character in text)


def percent(ratio: float | None) -> str:
    """A ratio minus 1, as ``+2.1 %``."""
    return "" if ratio is None else f"{100 * ratio:+.1f} %"


def interval(item: Mapping[str, Any]) -> str:
    """An estimate with its interval, as ``+2.1 % (+1.8 … +2.4)``."""
    if item.get("estimate") is None:
        return ""
    if item.get("low") is None or item.get("high") is None:
        return percent(item["estimate"])
    return f"{percent(item['estimate'])} ({100 * item['low']:+.1f} … {100 * item['high']:+.1f})"


def size(number: float) -> str:
    """Bytes, as ``3.1 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def quantity(value: float, unit: str) -> str:
    """A value of a series in three digits, a time in the unit that suits it: ``12.3 ms``."""
    if unit in _TIMES and value > 0:
        seconds = value * _TIMES[unit]
        unit = next((name for name, length in _TIMES.items() if seconds >= length), "ns")
        value = seconds / _TIMES[unit]
    return f"{value:.3g} {unit}".strip() if value < 1000 else f"{value:.0f} {unit}".strip()


def change(value: float, unit: str) -> str:
    """A difference as :func:`quantity` has it, with its sign."""
    return f"{'-' if value < 0 else '+'}{quantity(abs(value), unit)}"


def tally(counts: dict[str, int]) -> str:
    """Counts by name, as ``3 open, 1 regressed``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def style_of(item: dict[str, Any]) -> str:
    """The name in :data:`STYLES` that an item of an answer is shown in, by its verdict or state; others have no style."""
    return "fault" if item.get("fault") else str(item.get("verdict") or item["state"])


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0
