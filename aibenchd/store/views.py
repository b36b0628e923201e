"""What the status socket shows: of devices, of revisions, of builds, of experiments and of what people asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import paging, schema, second_looks, triage, undecided

TRIALS = 400  # of one experiment, the newest, whose samples are shown
SERIES = 5_000  # of one experiment

_e, _p, _b, _r = schema.experiments.c, schema.pairs.c, schema.builds.c, schema.revisions.c

OF_FINDINGS = (model.RunType.REGRESS, model.RunType.PROFILE)  # their experiments say something of a finding alone
_ENDED_AS = sa.func.coalesce(_e.verdict, _e.state)  # or how it stands
# Looked up pair by pair while walking back through experiments: joined, all those of a repository would be sorted first.
_OF_COMMITS = _p.run_type == model.RunType.BENCHMARK  # the others say nothing new of a commit, or nothing of one
_REPOSITORY = sa.select(_p.repository).where(_p.id == _e.pair).correlate(schema.experiments).scalar_subquery()

_UNDECIDED = _e.state.in_(schema.UNDECIDED_STATES)
_LEFT = (_e.blocks_left, _e.seconds_left, _e.out_of_reach)  # of what is undecided; null of all else
OF_EXPERIMENT: tuple[sa.ColumnElement[Any], ...] = (
    _e.id,
    _p.repository,
    _p.treatment,
    sa.case((_e.control_build.is_not(None), _p.control)).label("control"),  # what is measured alone has none, whatever its pair
    _p.run_type,
    _p.request,
    _e.identifier.label("benchmark"),
    _e.benchmark.label("benchmark_digest"),
    _e.model,
    _e.device,
    _e.backend,
    _e.state,
    _e.verdict,
    _e.reason,
    _e.estimate,
    _e.low,
    _e.high,
    _e.in_tail,
    _e.blocks.label("block_count"),
    *(sa.case((_UNDECIDED, column)).label(column.name) for column in _LEFT),
    _e.priority,
    _e.created_at,
    _e.started_at,
    _e.decided_at,
)


class ExperimentQuery(paging.Page):
    """Which experiments. ``benchmark`` is an identifier, or the digest of one."""

    state: Literal["waiting", "open", "decided", "skipped", "cancelled"] | None = None
    verdict: model.Verdict | None = None
    device: str | None = None
    repository: str | None = None
    benchmark: str | None = None


class RevisionQuery(paging.Page):
    """Which revisions. Without a repository: the newest of all, in one page."""

    repository: str | None = None


class BuildQuery(paging.Page):
    """Which builds; states as :data:`aibenchd.store.schema.builds` lists them."""

    repository: str | None = None
    state: Literal["queued", "building", "built", "failed", "evicted"] | None = None


class HistoryQuery(paging.Page):
    """One benchmark on one device, revision by revision."""

    benchmark: str
    device: str
    backend: str | None = None
    repository: str | None = None
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of what there are, by state.

    Attributes:
        experiments: by (device, state, verdict); the verdict is empty where there is none.
        blocks: by ``valid`` and ``invalid``.
        trials: by outcome.
        findings: by state, the mended ones of those that are open apart, and by what people made of them.
    """

    experiments: Mapping[tuple[str, str, str], int]
    blocks: Mapping[str, int]
    trials: Mapping[str, int]
    builds: Mapping[str, int]
    findings: Mapping[tuple[str, str], int]

    def by_state(self, device: str | None = None) -> dict[str, int]:
        """Experiments, of one device or of all."""
        return _total((state, count) for (where, state, _), count in self.experiments.items() if device in (None, where))

    def by_verdict(self) -> dict[str, int]:
        """Experiments that have one, of all devices."""
        return _total((verdict, count) for (_, _, verdict), count in self.experiments.items() if verdict)


def counts(connection: sa.Connection) -> Counts:
    """All of them, in about a millisecond: of what is many the journal keeps a tally."""
    rows = connection.execute(sa.select(schema.tallies).where(schema.tallies.c.rows > 0)).all()
    build_states = connection.execute(sa.select(_b.state, sa.func.count().label("builds")).group_by(_b.state))
    made = triage.of(datetime.now(UTC)).label("made")
    state = triage.shown_state().label("state")
    found = sa.select(state, made, sa.func.count().label("findings")).group_by(state, made)
    return Counts(
        experiments={(row.device, row.state, row.verdict): row.rows for row in rows if row.what == "experiments"},
        blocks={row.state: row.rows for row in rows if row.what == "blocks"},
        trials={row.state: row.rows for row in rows if row.what == "trials"},
        builds={row.state: row.builds for row in build_states},
        findings={(row.state, row.made): row.findings for row in connection.execute(found)},
    )


def devices(connection: sa.Connection) -> dict[str, paging.Item]:
    """By name: the ``fingerprint`` that it had when it was ``seen_at``, and its ``last_block``, null before the first."""
    table, facts = schema.devices.c, schema.fingerprints.c.facts
    query = sa.select(table.name, table.seen_at, table.experiment, table.block_at, facts).join(schema.fingerprints)
    return {
        row.name: {
            "fingerprint": row.facts,
            "seen_at": row.seen_at.isoformat(),
            "last_block": row.block_at and {"experiment": row.experiment, "finished_at": row.block_at.isoformat()},
        }
        for row in connection.execute(query)
    }


def queues(connection: sa.Connection) -> dict[str, paging.Item]:
    """By device, what it is expected to be busy with: ``experiments blocks seconds``, of those of which that is known.

    All are 0 of one that had something once.
    """
    table = schema.queues.c
    query = sa.select(table.device, table.experiments, table.blocks, table.seconds)
    return {row.pop("device"): row for row in paging.items_of(connection, query)}


def repositories(connection: sa.Connection) -> dict[str, paging.Item]:
    """By name: the head that was read last, when, and the commit that it is."""
    table = schema.repositories.c
    query = sa.select(table.name, table.head, table.polled_at, _r.subject, _r.author, _r.time).outerjoin(
        schema.revisions, sa.and_(_r.repository == table.name, _r.commit == table.head)
    )
    return {row["name"]: paging.item_of(row) for row in connection.execute(query.limit(paging.LIMIT)).mappings()}


def experiments(connection: sa.Connection, query: ExperimentQuery) -> paging.Item:
    """A page of experiments."""
    wanted = (
        (_e.state, query.state),
        (_e.verdict, query.verdict),
        (_e.device, query.device),
        (_REPOSITORY, query.repository),
    )
    select = experiment_rows().where(*paging.equal(*wanted), *of_benchmark(query.benchmark))
    page = paging.page_of(connection, "experiments", select, _e.id, query)
    second_looks.add(connection, page["experiments"])
    return page


def experiments_of(
    connection: sa.Connection, among: Iterable[sa.ColumnElement[bool]], limit: int | None = None
) -> list[paging.Item]:
    """Those experiments of which (and of whose pairs) so much holds, newest first.

    Each with the ``subject`` of its treatment, and the ``finding`` that it looks into, null of most.
    """
    select = (
        experiment_rows(_r.subject, _e.finding)
        .outerjoin(schema.revisions, sa.and_(_r.repository == _p.repository, _r.commit == _p.treatment))
        .where(*among)
        .order_by(_e.id.desc())
    )
    return experiments_by(connection, select.limit(limit))


def experiments_by(connection: sa.Connection, select: sa.Select[Any]) -> list[paging.Item]:
    """The rows of a selection of :func:`experiment_rows`, which has a limit of its own, each with its ``second_look``."""
    items = paging.items_of(connection, select)
    second_looks.add(connection, items)
    return items


def experiment_rows(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Experiments with their pairs, to be narrowed down: :data:`OF_EXPERIMENT` of each, and ``more`` columns."""
    return sa.select(*OF_EXPERIMENT, *more).select_from(schema.experiments).join(schema.pairs, _p.id == _e.pair)


def experiment(connection: sa.Connection, number: int) -> paging.Item | None:
    """One experiment, whole; None where there is none.

    With its design, builds, newest blocks with their trials, and results; what its device was in them (``fingerprints`` by
    number), and the trials that do not count (``excluded``, by cause and arm). ``decided_on`` says which number of a process is,
    and what becomes of its slow iterations; empty where that is no time. ``would_help``: of what ended inconclusive.
    """
    row = connection.execute(experiment_rows(_e.design, _e.round, _e.finding).where(_e.id == number)).mappings().one_or_none()
    if row is None:
        return None
    item = paging.item_of(row)
    second_looks.add(connection, [item])
    return item | {
        "decided_on": _decided_on(connection, number, row["design"]),
        "would_help": undecided.would_help(connection, number),
        "builds": _builds_of(connection, number),
        "blocks": _blocks_of(connection, number),
        "results": _results_of(connection, number),
        "fingerprints": _fingerprints_of(connection, number),
        "excluded": _excluded(connection, number),
    }


def _decided_on(connection: sa.Connection, number: int, design: Mapping[str, Any]) -> str:
    if design.get("benchmark", {}).get("test", {}).get("metric") in model.OTHER_MEASURES:
        return ""
    summary = model.Summary(**design.get("summary", {}))
    said = _number(summary)
    if not summary.guarded or design.get("arms") == 1:
        return said
    table = schema.blocks.c
    counts = (sa.func.count(), sa.func.count(table.treatment_tail), sa.func.count(table.control_tail))
    blocks, *tails = connection.execute(sa.select(*counts).where(table.experiment == number, table.valid)).one()
    if blocks > min(tails):
        return f"{said}; the slow ones are not judged: a process needs {model.TAILED} for it"
    return f"{said}; the slowest quarter is judged beside it"


def _number(summary: model.Summary) -> str:
    return f"{summary.name} of a process's iterations" + (f", without the first {summary.skip}" if summary.skip else "")


def _add_changed(items: Sequence[paging.Item]) -> None:
    """Say of each experiment of a history, newest first, how what it measures differs from what was measured before."""
    before: dict[tuple[str, str], tuple[str, model.Summary]] = {}
    for item in reversed(items):
        series, summary = (item["repository"], item["backend"]), model.Summary(**(item.pop("summary") or {}))
        benchmark, number = before.get(series, (item["benchmark_digest"], summary))
        other = "" if number.same_number(summary) else "number"
        item |= {"number": _number(summary), "changed": "specification" if benchmark != item["benchmark_digest"] else other}
        before[series] = item["benchmark_digest"], summary


def samples(connection: sa.Connection, number: int) -> dict[str, list[float]]:
    """By arm, what was sampled of the network in the newest trials of an experiment; what is older than its retention is gone."""
    trials, sampled = schema.trials.c, schema.samples.c
    of_network = (sampled.type == schema.MAIN_SERIES, sampled.metric == "latency")
    newest = (
        sa.select(trials.id, trials.arm).where(trials.experiment == number).order_by(trials.block.desc()).limit(TRIALS).subquery()
    )
    query = sa.select(newest.c.arm, sampled["values"]).join_from(newest, schema.samples, sampled.trial == newest.c.id)
    found: dict[str, list[float]] = defaultdict(list)
    for arm, values in connection.execute(query.where(*of_network)):
        found[arm] += values
    return dict(found)


def verdicts(connection: sa.Connection, limit: int) -> list[paging.Item]:
    """The experiments that were decided last; none of a search's, which has many, nor a profile."""
    select = (
        experiment_rows()
        .where(_e.verdict.is_not(None), _p.run_type.not_in(OF_FINDINGS))
        .order_by(_e.decided_at.desc())
        .limit(limit)
    )
    return experiments_by(connection, select)


def commits(connection: sa.Connection, repository: str, commits: Collection[str]) -> dict[str, paging.Item]:
    """``subject author time`` of commits, of those that are known."""
    query = sa.select(_r.commit, _r.subject, _r.author, _r.time)
    rows = connection.execute(query.where(_r.repository == repository, _r.commit.in_(commits))).mappings()
    return {item.pop("commit"): item for item in map(paging.item_of, rows)}


def subjects(connection: sa.Connection, repository: str, commits: Collection[str]) -> dict[str, str]:
    """The first lines of commits' messages, of those that are known."""
    known = sa.select(_r.commit, _r.subject).where(_r.repository == repository, _r.commit.in_(commits))
    return {row.commit: row.subject for row in connection.execute(known.limit(paging.LIMIT))}


def revisions(connection: sa.Connection, query: RevisionQuery) -> paging.Item:
    """A page of the revisions on watched lines, with what became of their experiments; ``cursor`` is a position on the line."""
    if query.repository is not None:
        select = sa.select(schema.revisions).where(_r.repository == query.repository, _r.on_branch)
        page = paging.page_of(connection, "revisions", select, _r.position, query)
    else:
        names = connection.scalars(sa.select(schema.repositories.c.name).limit(paging.LIMIT)).all()
        newest = [item for name in names for item in _newest_revisions(connection, name, query.limit)]
        newest.sort(key=lambda item: str(item["time"]), reverse=True)
        page = {"revisions": newest[: query.limit], "next": None}
    _add_outcomes(connection, page["revisions"])
    return page


def history(connection: sa.Connection, query: HistoryQuery) -> paging.Item:
    """Decided experiments of one benchmark on one device, each with what was measured of the network as a whole.

    ``number`` says which number of a process it is decided on. ``changed`` is ``specification`` or ``number`` where the
    experiment before it, of the same repository and backend, had another one; empty where both are the same.
    """
    wanted = (
        (_e.state, "decided"),
        (_e.device, query.device),
        (_e.backend, query.backend),
        (_REPOSITORY, query.repository),
    )
    select = (
        experiment_rows(_r.time.label("treatment_time"), _r.position, _r.subject, _e.design["summary"].label("summary"))
        .outerjoin(schema.revisions, sa.and_(_r.repository == _p.repository, _r.commit == _p.treatment))
        .where(*paging.equal(*wanted), *of_benchmark(query.benchmark), _OF_COMMITS)
    )
    page = paging.page_of(connection, "history", select, _e.id, query)
    second_looks.add(connection, page["history"])
    _add_changed(page["history"])
    _add_results(connection, page["history"], query.metric)
    return page


def builds(connection: sa.Connection, query: BuildQuery) -> paging.Item:
    """A page of builds."""
    select = sa.select(schema.builds).where(*paging.equal((_b.repository, query.repository), (_b.state, query.state)))
    return paging.page_of(connection, "builds", select, _b.id, query)


def build_log(connection: sa.Connection, number: int) -> str | None:
    """Where the log of a build is, relative to the state directory; empty where none is kept, None without such a build."""
    return connection.scalar(sa.select(_b.log).where(_b.id == number))


def trial_log(connection: sa.Connection, number: int) -> str | None:
    """As :func:`build_log`, of a trial."""
    return connection.scalar(sa.select(schema.trials.c.log).where(schema.trials.c.id == number))


def requests(connection: sa.Connection, page: paging.Page) -> paging.Item:
    """A page of what people asked for; of each how its experiments ended or stand (``outcomes``)."""
    answer = paging.page_of(connection, "requests", _requests(), schema.requests.c.id, page)
    outcomes = _outcomes(connection, [item["id"] for item in answer["requests"]])
    for item in answer["requests"]:
        item["outcomes"] = outcomes.get(item["id"], {})
    return answer


def request(connection: sa.Connection, number: int) -> paging.Item | None:
    """One request with its first experiments, and how all of them ended or stand; None where there is none.

    Of each experiment the ``results`` of the whole network, once it has ended; of what was submitted the ``names`` of the
    programs, by arm, and the ``note``, which are null of all else.
    """
    found = connection.execute(_requests().where(schema.requests.c.id == number)).mappings().one_or_none()
    if found is None:
        return None
    planned = experiment_rows().where(_p.request == number)
    return paging.item_of(found) | {
        "outcomes": _outcomes(connection, [number]).get(number, {}),
        "experiments": _with_results(connection, experiments_by(connection, planned.order_by(_e.id).limit(paging.LIMIT))),
    }


def of_benchmark(name: str | None) -> list[sa.ColumnElement[bool]]:
    """What holds of experiments of a benchmark: of an identifier, or of the digest of one; nothing where none is named."""
    if name is None:
        return []
    is_digest = len(name) == 64 and not name.strip("0123456789abcdef")
    return [(_e.benchmark if is_digest else _e.identifier) == name]


def _outcomes(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, dict[str, int]]:
    """How the experiments of requests ended or stand: by request, how many so."""
    counted = (
        sa.select(_p.request, _ENDED_AS, sa.func.count())
        .join_from(schema.experiments, schema.pairs, _p.id == _e.pair)
        .where(_p.request.in_(numbers))
        .group_by(_p.request, _ENDED_AS)
    )
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for number, ended, experiments in connection.execute(counted):
        found[number][ended] = experiments
    return found


def _requests() -> sa.Select[Any]:
    submissions = schema.submissions.c
    sent = sa.select(schema.requests, submissions.note, submissions.names).select_from(schema.requests)
    return sent.outerjoin(schema.submissions, submissions.request == schema.requests.c.id)


def _with_results(connection: sa.Connection, items: list[paging.Item]) -> list[paging.Item]:
    results = schema.results.c
    of_network = (results.experiment.in_([item["id"] for item in items]), results.type == schema.MAIN_SERIES)
    found: dict[int, list[paging.Item]] = defaultdict(list)
    for row in paging.items_of(connection, sa.select(schema.results).where(*of_network).order_by(results.metric)):
        found[row.pop("experiment")].append(row)
    return [item | {"results": found[item["id"]]} for item in items]


def _builds_of(connection: sa.Connection, number: int) -> paging.Item:
    arms = {"treatment": _e.treatment_build, "control": _e.control_build}
    selects = {
        arm: sa.select(schema.builds).join(schema.experiments, _b.id == build).where(_e.id == number)
        for arm, build in arms.items()
    }
    rows = {arm: connection.execute(select).mappings().one_or_none() for arm, select in selects.items()}
    return {arm: None if row is None else paging.item_of(row) for arm, row in rows.items()}


def _blocks_of(connection: sa.Connection, number: int) -> list[paging.Item]:
    blocks, trials = schema.blocks.c, schema.trials.c
    newest = sa.select(schema.blocks).where(blocks.experiment == number).order_by(blocks.number.desc()).limit(paging.BLOCKS)
    items = paging.items_of(connection, newest)[::-1]
    first = items[0]["number"] if items else 0
    ran: dict[int, list[paging.Item]] = {item["number"]: [] for item in items}
    select = sa.select(schema.trials).where(trials.experiment == number, trials.block >= first).order_by(trials.id)
    for trial in paging.items_of(connection, select.limit(2 * paging.BLOCKS)):
        ran[trial["block"]].append(trial)
    return [item | {"trials": ran[item["number"]]} for item in items]


def _results_of(connection: sa.Connection, number: int) -> list[paging.Item]:
    results = schema.results.c
    return paging.items_of(connection, sa.select(schema.results).where(results.experiment == number).limit(SERIES))


def _fingerprints_of(connection: sa.Connection, number: int) -> dict[str, paging.Item]:
    table = schema.fingerprints.c
    used = sa.select(schema.blocks.c.fingerprint).where(schema.blocks.c.experiment == number).distinct()
    rows = connection.execute(sa.select(table.id, table.facts).where(table.id.in_(used)).order_by(table.id).limit(paging.LIMIT))
    return {str(row.id): row.facts for row in rows}


def _excluded(connection: sa.Connection, number: int) -> list[paging.Item]:
    """How many trials of each arm do not count, by cause; with the reason of the last."""
    table = schema.exclusions.c
    count = sa.func.count().label("trials")
    query = sa.select(table.cause, table.arm, count, sa.func.max(table.id), table.reason).where(table.experiment == number)
    rows = connection.execute(query.group_by(table.cause, table.arm).order_by(table.cause, table.arm))
    return [{"cause": row.cause, "arm": row.arm, "trials": row.trials, "reason": row.reason} for row in rows]


def _add_results(connection: sa.Connection, items: Sequence[paging.Item], metric: str | None) -> None:
    results = schema.results.c
    found: dict[int, list[paging.Item]] = {item["id"]: [] for item in items}
    select = sa.select(schema.results).where(results.experiment.in_(found), results.type == schema.MAIN_SERIES)
    for item in paging.items_of(connection, select.where(*paging.equal((results.metric, metric))).limit(SERIES)):
        found[item["experiment"]].append(item)
    for item in items:
        item["results"] = found[item["id"]]


def _newest_revisions(connection: sa.Connection, repository: str, limit: int) -> list[paging.Item]:
    return paging.items_of(
        connection,
        sa.select(schema.revisions).where(_r.repository == repository, _r.on_branch).order_by(_r.position.desc()).limit(limit),
    )


def _add_outcomes(connection: sa.Connection, items: Sequence[paging.Item]) -> None:
    """Give each revision ``experiments``: how many it was the treatment of, by verdict, or by state where there is none yet."""
    for item in items:
        item["experiments"] = {}
    by_revision = {(item["repository"], item["commit"]): item["experiments"] for item in items}
    query = (
        sa.select(_p.repository, _p.treatment, _ENDED_AS, sa.func.count())
        .join(schema.experiments, _e.pair == _p.id)
        .where(_p.repository.in_({name for name, _ in by_revision}), _p.treatment.in_({commit for _, commit in by_revision}))
        .where(_OF_COMMITS)
        .group_by(_p.repository, _p.treatment, _ENDED_AS)
    )
    for repository, commit, ended, count in connection.execute(query):
        if (repository, commit) in by_revision:
            by_revision[repository, commit][ended] = count


def _total(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in counted:
        total[name] += count
    return dict(total)
