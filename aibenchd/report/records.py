"""Measurements as records: the native JSON objects that sinks deliver. Pure.

One object per metric. These fields are in every record; a field that does not apply is null.

====================== ==============================================================================================
``id``                 stable: a receiver that keeps ids sees each record once, however often it is sent
``kind``               ``verdict``: one metric of a decided experiment; ``samples``: one metric of one block
``time``               when it was decided, or when the block ended; all times are ISO 8601, UTC
``experiment``         number of the experiment within the installation
``block``              number of the block, from 0; null in a verdict
``run_type``           ``benchmark``; ``verify``, that measured a suspected regression again; ``regress``, of a confirmed one,
                       or of two commits that were measured in the search for its own; ``anchor``, of two that are far apart;
                       ``submission``, of programs that a person sent, whose digests stand in place of commits
``regressed_types``    the keys that a confirmed regression is of; empty in all other records
``repository``         its name in the configuration; ``submitted`` where there is none
``commit``             the treatment; ``commit_time``
``control_commit``     the control, null where there is one arm; ``control_commit_time``
``framework``          that the builds are programs of; ``platform`` that they were built for
``device``             ``{"name", "hash", "fingerprint": {…}}``
``backend``            ``{"asked", "ran"}``: empty where the program chose, or gave no evidence of what ran
``model``              name of the network; ``group`` as its specification says
``benchmark``          identifier of the test; ``benchmark_digest`` tells two tests of one identifier apart
``benchmark_metric``   what the test measures: ``delay``, ``accuracy``, …
``key``                ``<type> <metric>``; ``type`` (``NET`` or an operator), ``metric``, ``unit``
``info_string``        what the program stated as text in place of numbers
``verdict``            of the metric that is decided on; null for the others, and in ``samples``
``estimate``           treatment / control - 1, with its interval ``low`` to ``high``; null where ``verdict`` is
``first_seen``         ``{"estimate", "low", "high"}`` of the experiment that first showed a confirmed regression; else null
``layout``             seed of the memory layout that both builds were made for, to tell a slow commit from one unlucky layout;
                       null where they are laid out as ever; the ``reason`` says where a build came out as it was before
``reason``             of the verdict, where the numbers do not say it; null where ``verdict`` is
``in_tail``            whether the verdict is of the slow iterations alone, as ``estimate`` then is; null where ``verdict`` is
``alpha``              the rule's false alarms, at most; ``min_effect``, the smallest change that matters
``summary``            how a process becomes the number that is decided on, where it is a time: ``{"name", "skip", "low",
                       "high", "guard"}``, the mean of the iterations whose rank lies between two shares of all, after ``skip``
                       leading ones; ``guard``, whether the slow ones are judged beside
``blocks``             how many were analysed; null in ``samples``
``statistics``         ``{"treatment": {"p50": …}, "control": {…}, "diff": {…}}`` over all samples; diff is treatment - control
``num_runs``           how many samples the treatment's statistics are of
``values``             ``{"treatment": […], "control": […]}``: in ``samples``, the samples as they were taken; in a
                       ``verdict``, the median of each trial in order of blocks, for the trial is the unit of analysis
``user_identifier``    ``user`` too, from the configuration
``meta``               what the build and the specification add
====================== ==============================================================================================

An *alert* is of a finding, for people: :func:`alert_record`. A *status* is of a commit, for where it is kept:
:func:`status_record`. They go to the formats that are made of them, and to no other sink.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aibenchd import model, statistics

OPERATORS = 5  # that an alert names, the largest changes first
NAMED = ("subject", "author")  # what alerts have of the commits that are named
UNCHANGED = "no change shown"  # of aibenchd.decide.attribution, which imports numpy
LARGEST = 690.0  # logarithm of the largest e-value that is told as a number: 1e300


def nanoseconds(payload: Mapping[str, Any]) -> int:
    """A record's time since 1970 UTC, for databases that tell points of one series apart by it alone.

    Below the milliseconds, which are all that its text has, stands the number of the experiment: two that ended together are two.
    """
    return _milliseconds(payload["time"]) * 1_000_000 + int(payload["experiment"]) % 1_000_000


@functools.lru_cache
def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1_000)


@dataclass(frozen=True, slots=True)
class Commit:
    """One side of a comparison; ``time`` is aware, UTC."""

    id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """What an experiment ran on.

    Attributes:
        hash: FAI-PEP's ``platform_hash``: what tells two devices of one kind apart, such as a serial number.
        fingerprint: of :meth:`aibenchd.devices.base.Session.fingerprint`.
    """

    name: str
    hash: str = ""
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a record says of the experiment that it is of.

    Attributes:
        installation: UUID of the journal, by :func:`aibenchd.store.meta.installation`.
        id: of the experiment in that journal.
        control: None where the experiment has one arm.
        decided_on: key of the series that the verdict is about, such as ``NET latency``.
        platform: that its builds were made for.
        meta: what the build says of itself (``meta.json`` beside its script).
    """

    installation: str
    id: int
    repository: str
    run_type: model.RunType
    treatment: Commit
    control: Commit | None
    design: model.Design
    decided_on: str
    platform: str
    device: Device
    user_identifier: str = ""
    user: str = ""
    meta: model.JsonObject = field(default_factory=dict)


def verdict_records(
    experiment: Experiment,
    decision: model.Decision,
    series: Mapping[model.ArmName, Sequence[model.Series]],
    *,
    backend: str,
    time: datetime,
) -> list[model.Record]:
    """One record of kind ``verdict`` per metric of a decided experiment.

    Args:
        series: of each arm, those of all its valid trials in order of blocks; a key that each trial has comes once per trial.
        backend: what really ran, by the trials' evidence; empty where there is none.
        time: of the decision; aware, UTC.

    The metric that is decided on has a record, also where there are no samples of it (identical, broken).
    """
    arms = {arm: _by_key(series.get(arm, ())) for arm in model.ArmName}
    common = _common(experiment, backend, time)
    return [
        _record(
            experiment.installation,
            "verdict",
            ("verdict", experiment.id, key),
            {
                **common,
                **_of_key(experiment, arms, key, decision.blocks),
                **(_of_decision(experiment, decision) if key == experiment.decided_on else _UNDECIDED),
            },
        )
        for key in dict.fromkeys([*_keys(arms), experiment.decided_on])
    ]


def confirmed_record(
    verified: Experiment,
    decision: model.Decision,
    first: model.Decision,
    series: Mapping[model.ArmName, Sequence[model.Series]],
    *,
    backend: str,
    time: datetime,
) -> model.Record:
    """What is known of a regression once it is confirmed: of the metric that it is of, as what verified it measured it.

    Args:
        verified: the experiment that confirmed it; its record as such is another.
        first: what it was first seen by.
        series, backend, time: as :func:`verdict_records`; ``time`` is of the confirmation.
    """
    confirmed = dataclasses.replace(verified, run_type=model.RunType.REGRESS)
    arms = {arm: _by_key(series.get(arm, ())) for arm in model.ArmName}
    fields = {
        **_common(confirmed, backend, time),
        "regressed_types": [confirmed.decided_on],
        **_of_key(confirmed, arms, confirmed.decided_on, decision.blocks),
        **_of_decision(confirmed, decision),
        "first_seen": _interval(first),
    }
    return _record(confirmed.installation, "verdict", ("regress", confirmed.id, confirmed.decided_on), fields)


def samples_records(experiment: Experiment, block: model.Block, *, time: datetime) -> list[model.Record]:
    """One record of kind ``samples`` per metric of a block, with what both arms measured; ``time`` is when the block ended.

    What a trial measured before it failed is in them too; a block whose trials measured nothing has no record.
    """
    series = {trial.arm: trial.series for trial in block.trials}
    arms = {arm: _by_key(series.get(arm, ())) for arm in model.ArmName}
    backend = next((trial.backend for trial in block.trials if trial.backend), "")
    common = _common(experiment, backend, time)
    return [
        _record(
            experiment.installation,
            "samples",
            ("samples", experiment.id, block.number, key),
            {
                **common,
                **_of_series(experiment, arms, key),
                **_UNDECIDED,
                "block": block.number,
                "blocks": None,
                "values": {arm.value: _numbers(_pooled(arms[arm].get(key, ()))) for arm in arms},
            },
        )
        for key in _keys(arms)
    ]


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person is told of a finding, beside what its experiment measured.

    Attributes:
        event: ``confirmed``; ``culprit``, when its search has named commits; ``mended``; ``accepted``, by a person.
        author, subject: of the treatment.
        between: how many commits came after the control, up to the treatment; None where they are not on one line.
        named: what is known of the commits that its search has named, by commit: their ``author`` and ``subject``.
        evidence: natural logarithm of the e-value against no regression.
        promise: how seldom what is confirmed is none, in words.
        explained: of :func:`aibenchd.measure.explaining.explained`.
        culprits: what its search found; empty where it has not ended.
        mended: the commit that shows it to be gone; empty where none does.
        number: what tells it from others of its event, of which there may be several.
        by, why: who accepted it as the new baseline, and why; empty elsewhere.
    """

    event: str
    finding: int
    author: str
    subject: str
    evidence: float | None
    promise: str
    explained: Mapping[str, Any]
    between: int | None = None
    culprits: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mended: str = ""
    number: int = 0
    by: str = ""
    why: str = ""


def alert_record(verified: Experiment, alert: Alert, decision: model.Decision, *, backend: str, time: datetime) -> model.Record:
    """One thing that a person is told of a finding, with what it is of, what it measured, and what explains it.

    Args:
        verified: the experiment that confirmed it; ``decision`` is what it ended with.
        backend, time: as :func:`verdict_records`.
    """
    common = _common(verified, backend, time)
    operators = alert.explained.get("operators") or ()
    shown = [one for one in operators if one["status"] != UNCHANGED and one["change"] is not None]
    fields = {
        **{name: common[name] for name in ("time", "experiment", "repository", "commit", "control_commit", "model", "benchmark")},
        **_of_decision(verified, decision),
        "event": alert.event,
        "finding": alert.finding,
        "author": alert.author,
        "subject": alert.subject,
        "device": verified.device.name,
        "backend": backend or verified.design.backend,
        "metric": verified.decided_on,
        "operators": [{name: one[name] for name in ("name", "change", "share")} for one in shown[:OPERATORS]],
        "unit": str(alert.explained.get("unit") or ""),
        "e_value": None if alert.evidence is None else math.exp(min(alert.evidence, LARGEST)),
        "promise": alert.promise,
        "between": alert.between,
        "culprits": [dict(one) for one in alert.culprits.get("culprits") or ()],
        "named": [{"commit": commit, **{name: one[name] for name in NAMED}} for commit, one in alert.named.items()],
        "searched": alert.culprits.get("commits"),
        "mended": alert.mended,
        "by": alert.by,
        "why": alert.why,
    }
    again = (alert.number,) if alert.number else ()
    return _record(verified.installation, "alert", ("alert", alert.finding, alert.event, *again), fields)


def status_record(
    installation: str, repository: str, commit: str, number: int, standing: model.JsonObject, *, time: datetime
) -> model.Record:
    """How a commit stands: ``repository``, ``commit`` and the fields of :meth:`aibenchd.report.standing.Standing.json`.

    Args:
        number: how many were told of this commit before.
    """
    fields = {"time": _instant(time), "repository": repository, "commit": commit, **standing}
    return _record(installation, "status", ("status", repository, commit, number), fields)


_Arms = Mapping[model.ArmName, Mapping[str, Sequence[model.Series]]]  # arm -> key -> one series per trial

_UNDECIDED: model.JsonObject = dict.fromkeys(("verdict", "reason", "estimate", "low", "high", "in_tail"))


def _record(installation: str, kind: str, name: Sequence[str | int], fields: model.JsonObject) -> model.Record:
    """``name`` is what makes the record this one: its id is the same whenever it is made again."""
    id_ = str(uuid.uuid5(uuid.UUID(installation), model.canonical_json(name)))
    text = model.canonical_json({**fields, "id": id_, "kind": kind})
    return model.Record(id_, kind, text.encode(errors="replace").decode())  # a program may print half a surrogate pair


def _common(experiment: Experiment, backend: str, time: datetime) -> dict[str, model.Json]:
    design, control = experiment.design, experiment.control
    return {
        "time": _instant(time),
        "experiment": experiment.id,
        "run_type": experiment.run_type.value,
        "regressed_types": [],
        "first_seen": None,
        "layout": experiment.design.layout or None,
        "repository": experiment.repository,
        "commit": experiment.treatment.id,
        "commit_time": _instant(experiment.treatment.time),
        "control_commit": control.id if control else None,
        "control_commit_time": _instant(control.time) if control else None,
        "framework": design.framework,
        "platform": experiment.platform,
        "device": {
            "name": experiment.device.name,
            "hash": experiment.device.hash,
            "fingerprint": dict(experiment.device.fingerprint),
        },
        "backend": {"asked": design.backend, "ran": backend},
        **_of_benchmark(design.benchmark),
        "alpha": design.rule.alpha,
        "min_effect": design.rule.min_effect,
        "summary": {"name": design.summary.name, **dataclasses.asdict(design.summary)},
        "user_identifier": experiment.user_identifier,
        "user": experiment.user,
        "meta": _finite(experiment.meta),
    }


def _of_benchmark(benchmark: model.Benchmark) -> dict[str, model.Json]:
    return {
        "model": benchmark.name,
        "group": str(benchmark.model.get("group", "")),
        "benchmark": benchmark.identifier,
        "benchmark_digest": benchmark.digest,
        "benchmark_metric": benchmark.metric,
    }


def _of_key(experiment: Experiment, arms: _Arms, key: str, blocks: int) -> dict[str, model.Json]:
    """One metric of a whole experiment."""
    values = {arm.value: _medians(arms[arm].get(key, ())) for arm in arms}
    return {**_of_series(experiment, arms, key), "block": None, "blocks": blocks, "values": values}


def _of_decision(experiment: Experiment, decision: model.Decision) -> dict[str, model.Json]:
    verdict = decision.verdict.value if decision.verdict else None
    in_tail = decision.in_tail or experiment.design.summary.of_tail
    return {"verdict": verdict, "reason": decision.reason, **_interval(decision), "in_tail": in_tail}


def _interval(decision: model.Decision) -> dict[str, model.Json]:
    estimate, low, high = _numbers((decision.estimate, decision.low, decision.high))
    return {"estimate": estimate, "low": low, "high": high}


def _of_series(experiment: Experiment, arms: _Arms, key: str) -> dict[str, model.Json]:
    """What a series is, and the statistics of all samples of each arm."""
    names = _statistics(experiment.design.benchmark)
    samples = {arm: [value for value in _pooled(arms[arm].get(key, ())) if math.isfinite(value)] for arm in arms}
    treatment, control = (statistics.summary(samples[arm], names) for arm in (model.ArmName.TREATMENT, model.ArmName.CONTROL))
    shown = next((one for arm in arms.values() for one in arm.get(key, ())), _unmeasured(key))
    return {
        "key": key,
        "type": shown.type,
        "metric": shown.metric,
        "unit": shown.unit,
        "info_string": shown.text,
        "num_runs": len(samples[model.ArmName.TREATMENT]),
        "statistics": {
            "treatment": treatment,
            "control": control,
            "diff": _differences(treatment, control),
        },
    }


def _differences(treatment: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    """Treatment minus control of the statistics that both have; one that is larger than a float holds is left out."""
    found = {name: treatment[name] - control[name] for name in treatment if name in control}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _finite(value: model.Json) -> model.Json:
    """JSON has no NaN and no infinity, which others' files may hold all the same: null in their place."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _statistics(benchmark: model.Benchmark) -> Sequence[str]:
    """The names of the test's statistics; a name that is none was refused when the specification was read."""
    names = benchmark.test.get("statistics")
    if not isinstance(names, Sequence) or isinstance(names, str):
        return statistics.DEFAULT
    return [name for name in map(str, names) if statistics.known(name)]


def _unmeasured(key: str) -> model.Series:
    type_, _, metric = key.rpartition(" ")
    return model.Series(type_, metric)


def _by_key(series: Sequence[model.Series]) -> dict[str, list[model.Series]]:
    found: dict[str, list[model.Series]] = {}
    for one in series:
        found.setdefault(one.key, []).append(one)
    return found


def _keys(arms: _Arms) -> list[str]:
    """The keys of both arms, in the order in which they first appear."""
    return list(dict.fromkeys(key for arm in arms.values() for key in arm))


def _pooled(trials: Sequence[model.Series]) -> list[float]:
    return [value for series in trials for value in series.values]


def _medians(trials: Sequence[model.Series]) -> list[model.Json]:
    """The median of each trial, null where it has none."""
    finite = ([value for value in series.values if math.isfinite(value)] for series in trials)
    return [statistics.summary(values, ("p50",)).get("p50") for values in finite]


def _numbers(values: Sequence[float]) -> list[model.Json]:
    """JSON has no NaN and no infinity: null in their place."""
    return [value if math.isfinite(value) else None for value in values]


def _instant(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
