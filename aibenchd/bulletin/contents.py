"""What a report says: the journal's answers about a period, bounded, as facts for its template."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import aibenchd
from aibenchd import model, settings
from aibenchd.api import matrix, server
from aibenchd.bulletin import drawing
from aibenchd.devices import base as devices
from aibenchd.plan import coverage, suspicion
from aibenchd.store import cell_facts, finding_views, noises, paging, periods, selfchecks, series, undecided, views
from aibenchd.web import charts, culprits, experimental, tables

QUIET = (model.Verdict.UNCHANGED, model.Verdict.IDENTICAL, model.Verdict.MEASURED)
VAGUE = (model.Verdict.BROKEN, model.Verdict.INCONCLUSIVE)
UNDECIDED = ("skipped", "cancelled")  # states of what ended without a verdict
SAID = {  # of what experiments are for, beside single commits
    model.RunType.VERIFY: "to measure findings again",
    model.RunType.REGRESS: "to search for culprits",
    model.RunType.ANCHOR: "of commits that are far apart",
    model.RunType.PROFILE: "under a profiler",
    model.RunType.SELFCHECK: "of commits with themselves",
    model.RunType.COMPARE: "of two cells",
    model.RunType.SUBMISSION: "of programs that people sent",
}
OPERATORS = 8  # of an experiment, those that change most


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything is shown; None: all of it.

    Attributes:
        findings: that are told whole, of the period and of before each.
        called: experiments that regressed, improved or broke.
        inconclusive, quiet: the newest of the others.
        reasons: why something was not measured, and builds that failed.
        drifts: series that are looked at.
        levels: of series that creep, that are drawn.
        models: that are compared.
        histories: series that are drawn, those with most that was called first.
        commits: of a series that is drawn.
        size: bytes of the file.
    """

    findings: int | None = 50
    called: int | None = 500
    inconclusive: int | None = 100
    quiet: int | None = 20
    reasons: int | None = 50
    drifts: int | None = 500
    levels: int | None = 10
    models: int | None = tables.ROWS
    histories: int | None = 40
    commits: int = 60
    size: int | None = 4 << 20


ALL = Limits(None, None, None, None, None, None, None, None, None, 1_000, None)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one state of the journal. Blocking."""

    connection: sa.Connection
    period: periods.Period
    chosen: settings.Settings
    limits: Limits

    def experiments(self) -> list[paging.Item]:
        """Those that are listed, what calls for a person first, newest first in each group."""
        groups = (
            (periods.CALLED, self.limits.called),
            ((model.Verdict.INCONCLUSIVE,), self.limits.inconclusive),
            (QUIET, self.limits.quiet),
        )
        return [one for verdicts, limit in groups for one in periods.experiments(self.connection, self.period, verdicts, limit)]

    def experiment(self, number: int) -> paging.Item:
        """One of them, whole, with its pictures."""
        item = views.experiment(self.connection, number)
        assert item is not None  # noqa: S101  it is of the state of the journal that is read
        samples = views.samples(self.connection, number)
        shown = experimental.shown(item, samples)
        shown["left_out"] += len(shown["operators"]) - len(shown["operators"][:OPERATORS])
        course = charts.course(item["blocks"], item["design"].get("rule", {}).get("min_effect"))
        pictures = [drawn(chart) for chart in (course, shown["charts"]["tails"], shown["charts"]["distribution"]) if chart]
        failed = [trial for block in item["blocks"] for trial in block["trials"] if trial["outcome"] != "ok"]
        commits = {commit for commit in (item["treatment"], item["control"]) if commit}
        return {
            **item,
            **shown,
            "operators": shown["operators"][:OPERATORS],
            "facts": item,
            "pictures": pictures,
            "failed": failed,
            "trials": sum(len(block["trials"]) for block in item["blocks"]),
            "subjects": views.subjects(self.connection, item["repository"], commits),
        }

    def summary(self, listed: Sequence[paging.Item], now: datetime) -> paging.Item:
        """All but the single experiments; ``listed`` are those that the report names."""
        measured = periods.cells(self.connection, self.period)
        found = periods.findings(self.connection, self.period)
        counts = periods.counts(self.connection, self.period)
        unsure = periods.unsure(self.connection, self.period, self.limits.inconclusive)
        return {
            "version": aibenchd.__version__,
            "now": now.isoformat(),
            "period": self.period,
            "since": _end(self.period.since),
            "until": _end(self.period.until),
            "counts": counts,
            "verdicts": _by_verdict(counts),
            "vague": self._vague([*(one for one in listed if one["verdict"] in VAGUE), *unsure]),
            "unsure_left_out": _ended_as(counts, model.RunType.VERIFY, model.Verdict.INCONCLUSIVE) - len(unsure),
            "others": _others(counts),
            "devices": self._devices(counts),
            "selfcheck": selfchecks.rate(selfchecks.counts(self.connection, self.period.experiments())),
            "ever": selfchecks.rate(selfchecks.counts(self.connection, self.period.named())),
            "findings": self._findings(found),
            "states": periods.finding_states(self.connection, self.period),
            "standing": self._findings(periods.standing(self.connection, self.period)),
            "drifts": self._drifts(measured),
            "looked_at": len(measured[: self.limits.drifts]),
            "cells": len(measured),
            "not_run": periods.not_run(self.connection, self.period, self.limits.reasons),
            "failed_builds": _dated(periods.failed_builds(self.connection, self.period, self.limits.reasons)),
            "comparison": self._comparison(measured),
            "histories": [self._history(cell) for cell in measured[: self.limits.histories]],
            "listed": listed,
            "limits": self.limits,
        }

    def _vague(self, items: Iterable[Mapping[str, Any]]) -> list[paging.Item]:
        """What came to no verdict that says something, those together that ended alike; with what would help the newest."""
        return [{"of": None, **item, "would_help": undecided.would_help(self.connection, item["id"])} for item in _alike(items)]

    def _findings(self, numbers: Sequence[int]) -> paging.Item:
        """The first of these, whole; how many are left out."""
        whole = (finding_views.finding(self.connection, number) for number in numbers[: self.limits.findings])
        told = [self._finding(item) for item in whole if item is not None]
        return {"told": told, "left_out": len(numbers) - len(told)}

    def _finding(self, item: paging.Item) -> paging.Item:
        likely = culprits.likely(item["culprits"] or {})
        named = {item["treatment"], *(commit for one in likely for commit in (one["commit"], *one["within"]))}
        commits = views.commits(self.connection, item["repository"], named)
        return item | {"likely": likely, "commits": commits, "command": experimental.command(item)}

    def _devices(self, counts: Sequence[paging.Item]) -> list[paging.Item]:
        """Each that is configured, or has measured something: what it did, and how it fared."""
        worked = periods.worked(self.connection, self.period)
        known, smallest = views.devices(self.connection), noises.smallest_by_device(self.connection)
        changed = periods.left_changed(self.connection)
        configured = [one.name for one in self.chosen.devices]
        names = dict.fromkeys([*configured, *sorted({row["device"] for row in counts})])
        return [
            {
                "name": name,
                "model": devices.model_of(known[name]["fingerprint"]) if name in known else "",
                "last_block": known.get(name, {}).get("last_block"),
                "verdicts": _by_verdict([row for row in counts if row["device"] == name]),
                "worked": worked.get(name),
                "smallest": smallest.get(name),
                "left_changed": changed.get(name, 0),
            }
            for name in names
            if self.period.device in (None, name)
        ]

    def _drifts(self, measured: Sequence[Mapping[str, Any]]) -> list[paging.Item]:
        """The series that creep as they stand now, the first of them with their levels."""
        if not self.chosen.creep.enabled:
            return []
        from aibenchd import creeping  # it imports numpy

        found: list[paging.Item] = []
        for cell in measured[: self.limits.drifts]:
            known = series.of_cell(self.connection, suspicion.Cell(*_key(cell), cell["identifier"]))
            creep: Any = creeping.detected(known, self.chosen.creep)
            if creep and creep["creeps"]:
                is_drawn = self.limits.levels is None or len(found) < self.limits.levels
                levels: Any = creeping.levels(known, self.chosen.creep)["levels"] if is_drawn else []
                found.append({**cell, **self._drift(cell, creep, levels)})
        return found

    def _drift(self, cell: Mapping[str, Any], creep: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> paging.Item:
        commits = views.commits(self.connection, cell["repository"], creep["since"] or ())
        picture = drawn(charts.levels(levels, {})) if levels else None
        return {"creep": creep, "picture": picture, "commits": commits}

    def _history(self, cell: Mapping[str, Any]) -> paging.Item:
        """A series over commits."""
        items = periods.history(self.connection, self.period, _key(cell), self.limits.commits)
        chart = charts.changes(items, self.chosen.experiment.min_effect)
        verdicts = _tally(items)
        picture = drawn(chart) if chart["x"] else None
        return {**cell, "picture": picture, "verdicts": verdicts, "left_out": cell["experiments"] - len(items)}

    def _comparison(self, measured: Sequence[Mapping[str, Any]]) -> paging.Item:
        """How fast models are on devices, side by side."""
        cells = matrix.answer(_cells(measured), periods.figures(self.connection, self.period))
        first = tables.matrix(cells, tables.Asked())
        pages = -(-(self.limits.models or first["found"]) // tables.ROWS)
        more = (tables.matrix(cells, tables.Asked(page=page))["rows"] for page in range(2, pages + 1))
        rows = list(itertools.chain(first["rows"], *more))
        return first | {"rows": rows, "left_out": first["found"] - len(rows)}


def drawn(chart: charts.Chart) -> paging.Item:
    """A chart with where its parts lie."""
    return {**chart, **drawing.drawn(chart)}


def _key(cell: Mapping[str, Any]) -> cell_facts.Key:
    return cell["repository"], cell["benchmark"], cell["device"], cell["backend"]


def _end(end: periods.End) -> paging.Item:
    """As the template says it."""
    if isinstance(end, datetime):
        return {"time": end.isoformat(), "commit": None}
    return {"time": None, **dataclasses.asdict(end)}


def _by_verdict(counts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many experiments of commits ended how."""
    found = dict.fromkeys((*map(str, model.Verdict), *UNDECIDED), 0)
    for row in counts:
        if row["run_type"] == model.RunType.BENCHMARK:
            found[row["ended"]] += row["experiments"]
    return {ended: experiments for ended, experiments in found.items() if experiments}


def _ended_as(counts: Iterable[Mapping[str, Any]], run_type: model.RunType, ended: str) -> int:
    """How many experiments of a type ended so."""
    return sum(row["experiments"] for row in counts if (row["run_type"], row["ended"]) == (run_type, ended))


def _others(counts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many other experiments ended, by what they were for."""
    found: dict[str, int] = {}
    for row in counts:
        if row["run_type"] != model.RunType.BENCHMARK:
            said = SAID.get(row["run_type"], row["run_type"])
            found[said] = found.get(said, 0) + row["experiments"]
    return found


def _tally(items: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in items:
        found[item["verdict"]] = found.get(item["verdict"], 0) + 1
    return found


def _alike(items: Iterable[Mapping[str, Any]]) -> list[paging.Item]:
    """The newest of those that ended alike, for one reason in one cell, each with how many ``alike`` there are."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for item in items:
        found.setdefault((item["verdict"], *_cell_of(item), item["reason"], item["finding"]), []).append(item)
    return [{**alike[0], "alike": len(alike)} for alike in found.values()]


def _cell_of(item: Mapping[str, Any]) -> cell_facts.Key:
    return item["repository"], item["benchmark_digest"], item["device"], item["backend"]


def _dated(builds: Iterable[Mapping[str, Any]]) -> list[paging.Item]:
    return [{**one, "finished_at": one["finished_at"].isoformat()} for one in builds]


def _cells(measured: Iterable[Mapping[str, Any]]) -> list[server.Cell]:
    """As the dashboard has them, in rows of what can be laid side by side."""
    homes = {_key(cell): _home(cell) for cell in measured}
    names = coverage.rows(homes.values())
    return [
        server.Cell(
            repository=key[0],
            framework=home.framework,
            benchmark=home.cell.selected.benchmark.identifier,
            benchmark_digest=key[1],
            model=home.cell.selected.benchmark.name,
            metric=home.cell.selected.benchmark.metric,
            row=names[home.framework, home.cell.selected.digest],
            device=key[2],
            backend=key[3],
            impossible="",
        )
        for key, home in homes.items()
    ]


def _home(cell: Mapping[str, Any]) -> coverage.Home:
    """A cell as the journal has it: the configuration may have it no longer."""
    benchmark = model.Benchmark(**cell["specified"]) if cell["specified"] else _named(cell["identifier"])
    selected = coverage.Selected(benchmark, settings.BenchmarkSelection(specification=Path(benchmark.source)))
    device = devices.DeviceSettings(name=cell["device"], kind="")
    return coverage.Home(cell["repository"], cell["framework"], coverage.Cell(selected, device, cell["backend"]))


def _named(identifier: str) -> model.Benchmark:
    """One of which a journal says no more."""
    return model.Benchmark({"name": identifier}, {"identifier": identifier, "metric": "delay"})
