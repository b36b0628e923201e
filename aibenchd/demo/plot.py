"""The demonstration's picture: the ratio of each revision to the one before it, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"regressed": "#c0392b", "improved": "#1e8449", "broken": "#000000"}
OTHERS = "#5d6d7e"


def ratios(path: Path, found: Sequence[tuple[str, Mapping[str, Any] | None]]) -> None:
    """Draw ``(subject, verdict record)`` of revisions, oldest first, into ``path`` (its suffix says as what)."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.use("Agg")
    figure, axes = pyplot.subplots(figsize=(10, 0.55 * len(found) + 1.4), layout="constrained")
    for row, (_, record) in enumerate(found):
        if record is not None and record["estimate"] is not None:
            draw(axes, row, record)
    axes.axvline(0, color="#aab7b8", linewidth=1)
    axes.set_yticks(range(len(found)), [subject for subject, _ in found])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("time of the network: change against the revision before, with its confidence interval")
    figure.savefig(path)
    pyplot.close(figure)


def draw(axes: Any, row: int, record: Mapping[str, Any]) -> None:
    """One revision's point, interval and verdict."""
    colour = COLOURS.get(str(record["verdict"]), OTHERS)
    estimate = record["estimate"]
    if record["low"] is not None and record["high"] is not None:
        axes.plot([record["low"], record["high"]], [row, row], color=colour, linewidth=3, alpha=0.5)
    axes.plot([estimate], [row], "o", color=colour)
    axes.annotate(str(record["verdict"]), (estimate, row), textcoords="offset points", xytext=(0, 9), ha="center", color=colour)
