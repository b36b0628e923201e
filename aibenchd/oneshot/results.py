"""What a run measured: of the journal, and of the records that its own sink kept."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from aibenchd import model
from aibenchd.model import JsonObject
from aibenchd.oneshot.exits import Exit
from aibenchd.report import base
from aibenchd.store import experiments, paging, views

ARMS = tuple(arm.value for arm in model.ArmName)
REGRESSED = (model.Verdict.REGRESSED, model.Verdict.BROKEN)

Names = Mapping[int, tuple[str, str]]
Records = Mapping[int, Sequence[Mapping[str, Any]]]  # payloads of verdict records, by experiment, in their order


class Collected(base.Sink):
    """Keeps verdict records in memory; the first of an experiment that has a verdict is of the metric that it was decided on."""

    Settings: ClassVar[type[base.SinkSettings]] = base.SinkSettings

    def __init__(self, settings: base.SinkSettings, state_directory: Path) -> None:
        super().__init__(settings, state_directory)
        self.records: dict[int, list[Mapping[str, Any]]] = {}
        self._seen: set[str] = set()

    @contextlib.asynccontextmanager
    async def outlet(self) -> AsyncIterator[base.Outlet]:
        yield _Outlet(self)

    def take(self, record: model.Record) -> None:
        """Keep one that has not come yet."""
        if record.id not in self._seen:
            self._seen.add(record.id)
            payload: Mapping[str, Any] = record.payload
            self.records.setdefault(payload["experiment"], []).append(payload)


class _Outlet(base.Outlet):
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
        for record in records:
            self._collected.take(record)
        return base.Delivery(base.Answer.DONE)


@dataclass(frozen=True, slots=True)
class Result:
    """One experiment.

    Attributes:
        backend: what ran, by the program's own evidence, else what was asked for; empty where neither is known.
        treatment, control: what a person calls the arms; the control's is empty where there is one arm.
        commits: of the arms, by name.
        verdict: empty while it has none.
        estimate, low, high: treatment / control - 1, with its interval; None for what is not known.
        key, unit: of the series that it is decided on.
        decided_on: by arm, the median over blocks of the one number of each process (the mean of its fastest eighth).
        statistics: by arm, of all samples of that series.
        outputs: by arm, how many trials' outputs were ``right``, ``wrong``, …; empty where nothing was compared.
        outcomes: by arm, how many trials ended how.
        explained: of two arms, which operators a change comes from, by :func:`aibenchd.measure.explaining.explained`.
        series: every other series: ``key``, ``unit``, ``info_string``, and ``statistics`` by arm.
        log: of the build or the trial that failed last, relative to the state directory.
    """

    experiment: int
    model: str
    benchmark: str
    metric: str
    framework: str
    device: str
    backend: str
    treatment: str
    control: str
    commits: Mapping[str, str]
    state: str
    verdict: str
    reason: str
    blocks: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    key: str = ""
    unit: str = ""
    decided_on: Mapping[str, float | None] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    explained: JsonObject | None = None
    series: Sequence[Mapping[str, Any]] = ()
    log: str = ""

    @property
    def exit(self) -> Exit:
        """What the process ends with where this is all that was run."""
        if self.state in ("waiting", "open", "cancelled"):
            return Exit.HARNESS_ERROR
        if (
            self._timed_out
            and self.verdict in ("", model.Verdict.BROKEN, model.Verdict.INCONCLUSIVE)
            and not self._of_one_arm_only
        ):
            return Exit.TIMED_OUT
        if self.state == "skipped" or (self.verdict == model.Verdict.BROKEN and not self.control):
            return Exit.USER_ERROR
        if self.verdict in REGRESSED:
            return Exit.REGRESSED
        if self.verdict == model.Verdict.INCONCLUSIVE:
            return Exit.USER_ERROR if self._never_worked else Exit.INCONCLUSIVE
        return Exit.SUCCESS

    @property
    def advice(self) -> str:
        """What to do about two arms that noise alone left undecided, by options of the command line; else empty."""
        if self.exit is not Exit.INCONCLUSIVE or any(counts.keys() - {model.Outcome.OK} for counts in self.outcomes.values()):
            return ""
        quieter = "a quieter machine (see --cpus, --cooldown, --set-freq)"
        if self.reason == model.TORN:
            return f"try again on {quieter}"
        known = "" if None not in (self.low, self.high) else "; there is no interval yet"
        after = f"after {self.blocks} block{'' if self.blocks == 1 else 's'}{known}"
        more = "allow more (--max-blocks, --seconds), look for a larger change (--min-effect)"
        return f"not decided {after}: {more}, or use {quieter}"

    @property
    def _timed_out(self) -> bool:
        return any(counts.get(model.Outcome.TIMED_OUT) for counts in self.outcomes.values())

    @property
    def _of_one_arm_only(self) -> bool:
        """Whether the treatment timed out and the control never did: that is what it does, and no limit that is too low."""
        return bool(self.control) and not self.outcomes.get("control", {}).get(model.Outcome.TIMED_OUT)

    @property
    def _never_worked(self) -> bool:
        """Whether there is an arm of which no trial ended well."""
        return any(not self.outcomes.get(arm, {}).get(model.Outcome.OK) for arm in ARMS if arm in self.outcomes)

    def json(self) -> JsonObject:
        """As ``--json`` prints it."""
        return dataclasses.asdict(self)


def of(connection: sa.Connection, numbers: Collection[int], records: Records, names: Names) -> list[Result]:
    """The results of experiments.

    Args:
        records: what was reported of those that are decided.
        names: what a person calls the treatment and the control, by the request that was made for them.
    """
    return [_of_one(connection, number, records.get(number, ()), names) for number in numbers]


def _of_one(connection: sa.Connection, number: int, reported: Sequence[Mapping[str, Any]], names: Names) -> Result:
    item = views.experiment(connection, number)
    assert item is not None  # noqa: S101  it was planned by this run
    commits = {"treatment": item["treatment"], **({"control": item["control"]} if item["control"] else {})}
    main: Mapping[str, Any] = next((one for one in reported if one["verdict"]), {})
    explained = _explained(connection, item) if item["control"] and item["blocks"] else None
    trials = [trial for block in item["blocks"] for trial in block["trials"]]
    ran = main.get("backend", {}).get("ran") or next((trial["backend"] for trial in trials if trial["backend"]), "")
    return Result(
        experiment=number,
        model=item["model"],
        benchmark=item["benchmark"],
        metric=item["design"]["benchmark"]["test"].get("metric", ""),
        framework=item["design"]["framework"],
        device=item["device"],
        backend=ran or item["backend"],
        treatment=names[item["request"]][0],
        control=names[item["request"]][1],
        commits=commits,
        state=item["state"],
        verdict=item["verdict"] or "",
        reason=_reason(item),
        blocks=item["block_count"],
        estimate=item["estimate"] if item["control"] else None,
        low=item["low"] if item["control"] else None,
        high=item["high"] if item["control"] else None,
        key=main.get("key", ""),
        unit=main.get("unit") or str((explained or {}).get("unit", "")),  # nothing is reported of what was interrupted
        decided_on={arm: _median([block[arm] for block in item["blocks"] if block["valid"]]) for arm in commits},
        statistics=_statistics(main),
        outputs=_counted(trials, "agreement"),
        outcomes=_counted(trials, "outcome"),
        explained=explained,
        series=[_series(one) for one in reported if one is not main],
        log=_log(item, trials),
    )


def _reason(item: paging.Item) -> str:
    """With the end of its log where a build failed: that is what a person has to mend."""
    failed = [build for build in item["builds"].values() if build and build["state"] == "failed"]
    return f"{item['reason']}: {failed[0]['reason']}" if failed else item["reason"]


def _log(item: paging.Item, trials: Sequence[Mapping[str, Any]]) -> str:
    failed = [build["log"] for build in item["builds"].values() if build and build["state"] == "failed"]
    return next((log for log in (*failed, *(t["log"] for t in reversed(trials) if t["outcome"] != model.Outcome.OK)) if log), "")


def _series(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    named = {name: payload[name] for name in ("key", "unit", "info_string")}
    return {**named, "statistics": _statistics(payload)}


def _statistics(payload: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    return {arm: own for arm in ARMS if (own := payload.get("statistics", {}).get(arm))}


def _counted(trials: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Mapping[str, int]]:
    found = {arm: Counter(trial[what] for trial in trials if trial["arm"] == arm and trial[what]) for arm in ARMS}
    return {arm: dict(counts) for arm, counts in found.items() if counts}


def _median(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    return statistics.median(known) if known else None


def _explained(connection: sa.Connection, item: paging.Item) -> JsonObject:
    from aibenchd.measure import explaining  # it imports numpy

    own = model.Summary(**item["design"].get("summary", {}))
    measured = (explaining.Measured(*one) for one in experiments.samples_by_block(connection, item["id"]))
    return explaining.explained(measured, own.tail if item["in_tail"] else own)
