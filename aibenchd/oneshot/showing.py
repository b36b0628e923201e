"""What a run shows a person: bars while it works, where standard output is a terminal, and a table in the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import rich.box
import rich.console
import rich.progress
import rich.table
import rich.text

from aibenchd import board, events
from aibenchd.api import screen
from aibenchd.oneshot import running
from aibenchd.oneshot.results import Result

REDRAW_SECONDS = 0.5  # between two pictures at least: a bar that moves must not take the time of what is measured
WIDE = 1_000  # columns where standard output is no terminal: a row is a line, whatever its length
OPERATORS = 10  # that are shown of a change with no one asking; all where somebody did
SHORT = 10  # digits of a commit
STYLES = {
    "regressed": "red",
    "broken": "magenta",
    "skipped": "red",
    "improved": "green",
    "inconclusive": "yellow",
    "not finished": "yellow",
}
AT_ONCE = ("build.", "experiment.")  # how the topics begin that are drawn as they come: they are few
FETCHED = ("model/", "repository/")  # how the units of the board begin that are shown while they are there


def console(stream: TextIO) -> rich.console.Console:
    """Colours as the terminal has them; none where NO_COLOR is set, or there is no terminal."""
    if stream.isatty():
        return rich.console.Console(file=stream, highlight=False)
    return rich.console.Console(file=stream, highlight=False, width=WIDE, no_color=True)


class Bars(running.Watcher):
    """A bar for all experiments together, and one for each build, file and experiment under way. Enter it.

    It is drawn on standard error, and only when something has happened: no thread draws while something is measured.
    """

    def __init__(self) -> None:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.fields[said]}"),
            rich.progress.TimeElapsedColumn(),
        )
        self._progress = rich.progress.Progress(*columns, console=console(sys.stderr), auto_refresh=False, transient=True)
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._planned: Mapping[int, tuple[str, int]] = {}
        self._decided = 0
        self._drawn = 0.0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, planned: Mapping[int, tuple[str, int]]) -> None:
        self._planned = planned
        self._count()

    def told(self, event: events.Event, notices: board.Board) -> None:
        facts: Mapping[str, Any] = event.facts
        match event.topic:
            case "build.started":
                self._set(f"build {facts['id']}", f"build {facts['repository']} {str(facts['commit'])[:SHORT]}")
            case "build.finished" | "build.failed" | "build.postponed":
                self._end(f"build {facts['id']}")
            case "block.done":
                self._block(facts)
            case "experiment.decided" | "experiment.skipped":
                self._end(f"experiment {facts['id']}")
                self._decided += facts["id"] in self._planned
                self._count()
            case "model.progress":
                self._set(f"model/{facts['file']}", f"fetch {facts['file']}", facts["total"], facts["bytes"])
            case "board.changed":
                self._notice(facts)
        self._end_fetched(notices)
        self._draw(event.topic)

    def _count(self) -> None:
        """How much of all is decided."""
        total = len(self._planned)
        self._set("all", "experiments", total, self._decided, f"{self._decided} of {total} decided")

    def _block(self, facts: Mapping[str, Any]) -> None:
        number, done = facts["experiment"], facts["block"] + 1
        if number in self._planned:
            name, most = self._planned[number]
            said = f"block {done} of at most {most}  {screen.interval(dict(facts))}".rstrip()
            self._set(f"experiment {number}", name, most, done, said)

    def _notice(self, facts: Mapping[str, Any]) -> None:
        unit, state = str(facts["unit"]), str(facts["state"])
        if unit.startswith(FETCHED):
            self._set(unit, f"{'make' if state == 'generating' else 'fetch'} {unit.partition('/')[2]}")
        elif facts["fault"]:
            self._progress.console.print(
                rich.text.Text(screen.printable(f"{unit} is {state}: {facts['reason']}"), style="yellow")
            )

    def _end_fetched(self, notices: board.Board) -> None:
        there = {notice.unit for notice in notices.notices()}
        for unit in [unit for unit in self._tasks if unit.startswith(FETCHED) and unit not in there]:
            self._end(unit)

    def _set(self, key: str, name: str, total: float | None = None, done: float = 0, said: str = "") -> None:
        """``total`` is None where nobody knows how long it will take."""
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(screen.printable(name), total=total, said=said)
        self._progress.update(self._tasks[key], total=total, completed=done, said=said)

    def _end(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._progress.remove_task(task)

    def _draw(self, topic: str) -> None:
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS or topic.startswith(AT_ONCE):
            self._drawn = now
            self._progress.refresh()


def table(results: Sequence[Result], *, operators: bool) -> None:
    """All results on standard output; what there is to say of each below."""
    out = console(sys.stdout)
    compared = [one for one in results if one.control]
    alone = [one for one in results if not one.control]
    if compared:
        out.print(_compared(compared))
    if alone:
        out.print(_alone(alone))
    for one in results:
        _say_more(out, one, operators=operators)


def _compared(results: Sequence[Result]) -> rich.table.Table:
    head = ("benchmark", "device", "backend", "control", "treatment", "change", "outputs", "blocks", "verdict")
    first, rows = results[0], []
    for one in results:
        cells = (_name(one), one.device, _ran(one), _number(one, "control"), _number(one, "treatment"))
        interval = screen.interval({"estimate": one.estimate, "low": one.low, "high": one.high})
        rows.append((*map(_plain, (*cells, interval, _outputs(one), str(one.blocks))), _verdict(one)))
    if all((one.control, one.treatment) == (first.control, first.treatment) for one in results):
        return _table(head, rows, f"{_arm(first, 'treatment')} (treatment) against {_arm(first, 'control')} (control)")
    return _table(head, rows)


def _alone(results: Sequence[Result]) -> rich.table.Table:
    head, rows = ("benchmark", "device", "backend", "program", "median", "p10 … p90", "outputs", "runs", ""), []
    for one in results:
        own = one.statistics.get("treatment", {})
        spread = " … ".join(screen.quantity(own[name], one.unit) for name in ("p10", "p90") if name in own)
        cells = (_name(one), one.device, _ran(one), _arm(one, "treatment"), _median(one, "treatment"), spread)
        rows.append((*map(_plain, (*cells, _outputs(one), str(one.blocks))), _verdict(one)))
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[rich.text.Text]], title: str = "") -> rich.table.Table:
    """Without the columns that no row has anything in, and close together: a terminal may have 80 characters."""
    made = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        title=_plain(title) if title else None,
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    for place in kept:
        made.add_column(head[place], overflow="fold")
    for row in rows:
        made.add_row(*(row[place] for place in kept))
    return made


def _say_more(out: rich.console.Console, one: Result, *, operators: bool) -> None:
    for row in f"{one.benchmark}: {one.reason}".splitlines() if one.reason else ():  # of a compiler, which points below its rows
        out.print(_plain(row.expandtabs()), soft_wrap=True)
    if one.control and one.explained and (operators or one.verdict in ("regressed", "improved")):
        _explain(out, one, None if operators else OPERATORS)
    elif operators and not one.control:
        _list_operators(out, one)


def _explain(out: rich.console.Console, one: Result, most: int | None) -> None:
    """What operators add to the change."""
    assert one.explained is not None  # noqa: S101  the caller looked
    unit, found = str(one.explained["unit"]), _objects(one.explained["operators"])
    shown = found if most is None else [operator for operator in found if operator["status"] != "no change shown"][:most]
    if not shown:
        return
    rows = []
    for operator in (*shown, *_objects([one.explained["rest"]])):
        share = "" if operator["share"] is None else f"{operator['share']:.0%}"
        rows.append([*map(_plain, (operator["name"], operator["status"], _span(operator, unit), share))])
    out.print(_table(("operator", "", "change", "share"), rows, f"{one.benchmark}: where the change is"))


def _list_operators(out: rich.console.Console, one: Result) -> None:
    """Operators, the slowest first."""
    rows = [
        (series["key"].removesuffix(" latency"), series["statistics"]["treatment"]["p50"], series["unit"])
        for series in one.series
        if series["key"].endswith(" latency") and "p50" in series["statistics"].get("treatment", {})
    ]
    slowest = sorted(rows, key=lambda row: -row[1])
    if rows:
        shown = [(_plain(name), _plain(screen.quantity(median, unit))) for name, median, unit in slowest]
        out.print(_table(("operator", "median"), shown, one.benchmark))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value or () if isinstance(one, Mapping)]


def _span(operator: Mapping[str, Any], unit: str) -> str:
    ends = (operator["low"], operator["high"])
    sides = "" if None in ends else f" ({' … '.join(screen.quantity(end, unit) for end in ends)})"
    return f"{screen.quantity(operator['change'], unit)}{sides}"


def _name(one: Result) -> str:
    return one.benchmark if one.model in ("", one.benchmark) else f"{one.model} {one.benchmark}"


def _ran(one: Result) -> str:
    return f"{one.framework}/{one.backend}" if one.backend else one.framework


def _arm(one: Result, arm: str) -> str:
    """What a person calls it, and for a commit its id where that is another word."""
    name, commit = getattr(one, arm), one.commits[arm]
    same = commit.startswith(name) or os.sep in name or len(commit) != 40 or name == "runner"
    return name[:SHORT] if commit.startswith(name) else name if same else f"{name} {commit[:SHORT]}"


def _number(one: Result, arm: str) -> str:
    """The number that is decided on; of an accuracy that is a reciprocal, which says nothing to anybody."""
    number = one.decided_on.get(arm)
    if one.metric == "accuracy" or number is None:
        return _median(one, arm)
    return screen.quantity(number, one.unit)


def _median(one: Result, arm: str) -> str:
    median = one.statistics.get(arm, {}).get("p50")
    return "" if median is None else screen.quantity(median, one.unit)


def _outputs(one: Result) -> str:
    """How the outputs of both arms were."""
    found = {
        agreement: sum(own.get(agreement, 0) for own in one.outputs.values()) for agreement in _ordered(one.outputs.values())
    }
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{count} {agreement}" for agreement, count in found.items())


def _ordered(counted: Iterable[Mapping[str, int]]) -> list[str]:
    return sorted({agreement for own in counted for agreement in own})


def _verdict(one: Result) -> rich.text.Text:
    said = one.verdict or (one.state if one.state == "skipped" else "not finished")
    return rich.text.Text(said, style=STYLES.get(said, ""))


def _plain(text: str) -> rich.text.Text:
    """Without what a terminal, or rich, would obey."""
    return rich.text.Text(screen.printable(text))
