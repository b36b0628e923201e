"""``aibenchd decide --plot``: how the interval of each tape narrows from block to block, until a verdict holds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aibenchd import errors, model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
COLOURS = {model.Verdict.REGRESSED: "#c0392b", model.Verdict.IMPROVED: "#1e8449", model.Verdict.UNCHANGED: "#2471a3"}
OTHERS = "#5d6d7e"
ZONE = "#d5dbdb"
PANEL = (5.2, 3.2)  # inches
LINE = 64  # characters, as wide as a panel
ROOM = 1.3  # of what is shown, beside what must be
FARTHEST = 1e6  # of a change that is shown: an axis has no room for all that a float holds


@dataclass(frozen=True, slots=True)
class Panel:
    """One tape.

    Attributes:
        tape: its name.
        said: the verdict in words.
        course: decisions after more and more blocks, the last of which is the verdict; one at least.
    """

    tape: str
    said: str
    course: Sequence[model.Decision]


def draw(path: Path, panels: Sequence[Panel], min_effect: float) -> None:
    """Draw panels, one at least, into ``path``, whose suffix is one of :data:`SUFFIXES` and says as what.

    Text stays text in an SVG, and the same panels make the same bytes.

    Raises:
        AibenchdError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise errors.AibenchdError("a plot needs matplotlib, which is not installed: pip install 'aibenchd[plot]'") from None
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "aibenchd", "axes.formatter.useoffset": False}):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        for number, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
            _panel(axes, panel, min_effect, f"tape-{number}")
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise errors.AibenchdError(f"{path}: cannot be written: {error.strerror}") from None


def _panel(axes: Axes, panel: Panel, min_effect: float, name: str) -> None:
    """Draw one; its parts bear ``name`` in an SVG."""
    blocks = [decision.blocks for decision in panel.course]
    low, estimate, high = ([_shown(getattr(decision, side)) for decision in panel.course] for side in ("low", "estimate", "high"))
    last = panel.course[-1]
    colour = COLOURS.get(last.verdict, OTHERS) if last.verdict else OTHERS
    axes.axhspan(1 / (1 + min_effect) - 1, min_effect, color=ZONE, gid=f"{name}-zone")
    axes.axhline(0, color=OTHERS, linewidth=0.8)
    axes.fill_between(blocks, low, high, color=colour, alpha=0.15, linewidth=0, gid=f"{name}-interval")
    axes.plot(blocks, low, color=colour, linewidth=1, gid=f"{name}-low")
    axes.plot(blocks, high, color=colour, linewidth=1, gid=f"{name}-high")
    axes.plot(blocks, estimate, color=colour, linewidth=2, gid=f"{name}-estimate")
    axes.plot(blocks[-1:], estimate[-1:], "o", color=colour, gid=f"{name}-verdict")
    axes.set_xlim(0, blocks[-1] + 1)
    axes.set_ylim(*_limits([low[-1], estimate[-1], high[-1]], min_effect))
    axes.set_xlabel("blocks")
    axes.set_ylabel("treatment against control")
    title = "\n".join([_printable(panel.tape), *textwrap.wrap(panel.said, LINE)])
    axes.set_title(title, fontsize="medium", color=colour, parse_math=False)


def _limits(needed: Sequence[float], min_effect: float) -> tuple[float, float]:
    """Room for the zone twice, and for the last interval; the first ones may be far wider."""
    known = [value for value in needed if math.isfinite(value)]
    return ROOM * min(-2 * min_effect, *known, 0), ROOM * max(2 * min_effect, *known, 0)


def _shown(value: float) -> float:
    return value if abs(value) <= FARTHEST else math.nan


def _printable(text: str) -> str:
    """What XML cannot hold, a name of a file can."""
    return "".join(character if character.isprintable() else "?" for character in text)
