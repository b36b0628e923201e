"""What the status socket shows: bounded reads of the journal, as JSON, newest first.

Every list has a limit and, where it can go on, a cursor: ``next`` of one page is ``cursor`` of the following one.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
import sqlalchemy as sa

from aibenchd import errors, model
from aibenchd.plan import suspicion
from aibenchd.store import profiles, schema, triage

LIMIT = 1_000  # rows of one page
CELLS = 10_000  # of the coverage matrix
BLOCKS = 1_000  # of one experiment, the newest
TRIALS = 400  # of one experiment, the newest, whose samples are shown
SERIES = 5_000  # of one experiment
STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock
MAIN_SERIES = "NET"  # the type of the series that stands for the whole network
OTHER_METRICS = ("accuracy", "power")  # that a test may be decided on in place of the time that it takes
OUTPUT_SERIES = "ERROR "  # begins the type of the series that compare an output

_e, _p, _b, _r, _f = schema.experiments.c, schema.pairs.c, schema.builds.c, schema.revisions.c, schema.findings.c

OF_FINDINGS = (model.RunType.REGRESS, model.RunType.PROFILE)  # their experiments say something of a finding alone
_ENDED_AS = sa.func.coalesce(_e.verdict, _e.state)  # or how it stands
# Looked up pair by pair while walking back through experiments: joined, all those of a repository would be sorted first.
_OF_COMMITS = _p.run_type == model.RunType.BENCHMARK  # the others say nothing new of a commit, or nothing of one
_REPOSITORY = sa.select(_p.repository).where(_p.id == _e.pair).correlate(schema.experiments).scalar_subquery()

_UNDECIDED = _e.state.in_(("waiting", "open"))
_LEFT = (_e.blocks_left, _e.seconds_left, _e.out_of_reach)  # of what is undecided; null of all else
_OF_EXPERIMENT: tuple[sa.ColumnElement[Any], ...] = (
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
_SIGHTINGS = (
    sa.select(sa.func.count())
    .where(schema.sightings.c.finding == _f.id)
    .correlate(schema.findings)
    .scalar_subquery()
    .label("sightings")
)

Item: TypeAlias = dict[str, Any]


class Page(pydantic.BaseModel):
    """How much of a list, and from where on."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, pydantic.Field(ge=1, le=LIMIT)] = 100
    cursor: Annotated[int | None, pydantic.Field(ge=0, lt=2**63)] = None


class ExperimentQuery(Page):
    """Which experiments. ``benchmark`` is an identifier, or the digest of one."""

    state: Literal["waiting", "open", "decided", "skipped", "cancelled"] | None = None
    verdict: model.Verdict | None = None
    device: str | None = None
    repository: str | None = None
    benchmark: str | None = None


class RevisionQuery(Page):
    """Which revisions. Without a repository: the newest of all, in one page."""

    repository: str | None = None


class FindingQuery(Page):
    """Which findings. ``triage`` is what people made of them; ``none`` is nothing. ``benchmark`` as of experiments."""

    state: Literal["suspect", "refuted", "unconfirmed", "open", "accepted"] | None = None
    triage: Literal["none", "acknowledged", "muted"] | None = None
    device: str | None = None
    repository: str | None = None
    benchmark: str | None = None


class BuildQuery(Page):
    repository: str | None = None
    state: Literal["queued", "building", "built", "failed", "evicted"] | None = None


class HistoryQuery(Page):
    """One benchmark on one device, revision by revision."""

    benchmark: str
    device: str
    backend: str | None = None
    repository: str | None = None
    metric: str | None = None


@contextlib.contextmanager
def deadline(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """Interrupt what is asked of ``connection`` when it takes longer.

    Raises:
        QueryTooSlowError: it did.
    """
    driver: Any = connection.connection.driver_connection
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, STEPS)
    try:
        yield
    except sa.exc.OperationalError as error:
        if "interrupted" not in str(error.orig):
            raise
        raise errors.QueryTooSlowError(f"this takes the journal longer than {seconds:g} s") from error
    finally:
        driver.set_progress_handler(None, 0)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of what there are, by state.

    Attributes:
        experiments: by (device, state, verdict); the verdict is empty where there is none.
        blocks: by ``valid`` and ``invalid``.
        trials: by outcome.
        findings: by state, and by what people made of them.
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
    found = sa.select(_f.state, made, sa.func.count().label("findings")).group_by(_f.state, made)
    return Counts(
        experiments={(row.device, row.state, row.verdict): row.rows for row in rows if row.what == "experiments"},
        blocks={row.state: row.rows for row in rows if row.what == "blocks"},
        trials={row.state: row.rows for row in rows if row.what == "trials"},
        builds={row.state: row.builds for row in build_states},
        findings={(row.state, row.made): row.findings for row in connection.execute(found)},
    )


def devices(connection: sa.Connection) -> dict[str, Item]:
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


def queues(connection: sa.Connection) -> dict[str, Item]:
    """By device, what it is expected to be busy with: ``experiments blocks seconds``, of those of which that is known.

    All are 0 of one that had something once.
    """
    table = schema.queues.c
    query = sa.select(table.device, table.experiments, table.blocks, table.seconds)
    return {row.pop("device"): row for row in _items(connection, query)}


def repositories(connection: sa.Connection) -> dict[str, Item]:
    """By name: the head that was read last, when, and the commit that it is."""
    table = schema.repositories.c
    query = sa.select(table.name, table.head, table.polled_at, _r.subject, _r.author, _r.time).outerjoin(
        schema.revisions, sa.and_(_r.repository == table.name, _r.commit == table.head)
    )
    return {row["name"]: _item(row) for row in connection.execute(query.limit(LIMIT)).mappings()}


def experiments(connection: sa.Connection, query: ExperimentQuery) -> Item:
    """A page of experiments."""
    wanted = (
        (_e.state, query.state),
        (_e.verdict, query.verdict),
        (_e.device, query.device),
        (_REPOSITORY, query.repository),
    )
    select = _experiments().where(*_equal(*wanted), *of_benchmark(query.benchmark))
    return _page(connection, "experiments", select, _e.id, query)


def experiments_of(connection: sa.Connection, among: Iterable[sa.ColumnElement[bool]], limit: int | None = None) -> list[Item]:
    """Those experiments of which (and of whose pairs) so much holds, newest first, each with the ``subject`` of its treatment."""
    select = (
        _experiments(_r.subject)
        .outerjoin(schema.revisions, sa.and_(_r.repository == _p.repository, _r.commit == _p.treatment))
        .where(*among)
        .order_by(_e.id.desc())
    )
    return _items(connection, select.limit(limit))


def experiment(connection: sa.Connection, number: int) -> Item | None:
    """One experiment, whole; None where there is none.

    With its design, builds, newest blocks with their trials, and results; what its device was in them (``fingerprints`` by
    number), and the trials that do not count (``excluded``, by cause and arm). ``decided_on`` says which number of a process is,
    and what becomes of its slow iterations; empty where that is no time.
    """
    row = connection.execute(_experiments(_e.design, _e.round, _e.finding).where(_e.id == number)).mappings().one_or_none()
    if row is None:
        return None
    return _item(row) | {
        "decided_on": _decided_on(connection, number, row["design"]),
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
    said = f"{summary.name} of a process's iterations" + (f", without the first {summary.skip}" if summary.skip else "")
    if not summary.guarded or design.get("arms") == 1:
        return said
    table = schema.blocks.c
    counts = (sa.func.count(), sa.func.count(table.treatment_tail), sa.func.count(table.control_tail))
    blocks, *tails = connection.execute(sa.select(*counts).where(table.experiment == number, table.valid)).one()
    if blocks > min(tails):
        return f"{said}; the slow ones are not judged: a process needs {model.TAILED} for it"
    return f"{said}; the slowest quarter is judged beside it"


def samples(connection: sa.Connection, number: int) -> dict[str, list[float]]:
    """By arm, what was sampled of the network in the newest trials of an experiment; what is older than its retention is gone."""
    trials, sampled = schema.trials.c, schema.samples.c
    of_network = (sampled.type == MAIN_SERIES, sampled.metric == "latency")
    newest = (
        sa.select(trials.id, trials.arm).where(trials.experiment == number).order_by(trials.block.desc()).limit(TRIALS).subquery()
    )
    query = sa.select(newest.c.arm, sampled["values"]).join_from(newest, schema.samples, sampled.trial == newest.c.id)
    found: dict[str, list[float]] = defaultdict(list)
    for arm, values in connection.execute(query.where(*of_network)):
        found[arm] += values
    return dict(found)


def verdicts(connection: sa.Connection, limit: int) -> list[Item]:
    """The experiments that were decided last; none of a search's, which has many, nor a profile."""
    select = (
        _experiments().where(_e.verdict.is_not(None), _p.run_type.not_in(OF_FINDINGS)).order_by(_e.decided_at.desc()).limit(limit)
    )
    return _items(connection, select)


def findings(connection: sa.Connection, query: FindingQuery) -> Item:
    """What regressed or broke, newest first: each with the experiment that showed it, what measured it again, and its culprits.

    ``estimate``, ``low`` and ``high`` are of what measured it again, once that has blocks: what showed it first is biased, and
    is ``first_seen``. ``layout`` is the seed of the memory layout that the builds were made with to measure it again, if any.
    ``mended`` is the experiment that shows it to be gone; null where none does. ``commits``: by commit, what is known of those
    that its search has named.
    """
    made = None if query.triage is None else triage.NONE if query.triage == "none" else query.triage
    wanted = (
        (_f.state, query.state),
        (triage.of(datetime.now(UTC)), made),
        (_e.device, query.device),
        (_p.repository, query.repository),
    )
    select = _findings().where(*_equal(*wanted), *of_benchmark(query.benchmark))
    found = _page(connection, "findings", select, _f.id, query)
    _add_measured_again(connection, found["findings"])
    _add_triages(connection, found["findings"])
    _add_commits(connection, found["findings"])
    return found


def to_triage(connection: sa.Connection) -> int:
    """How many confirmed regressions are not mended, and nobody has made anything of."""
    untouched = (_f.state == suspicion.OPEN, _f.mended.is_(None), triage.of(datetime.now(UTC)) == triage.NONE)
    return connection.execute(sa.select(sa.func.count()).where(*untouched)).scalar_one()


def finding_states(connection: sa.Connection) -> dict[str, int]:
    """How many findings there are, by state."""
    rows = connection.execute(sa.select(_f.state, sa.func.count().label("findings")).group_by(_f.state))
    return {row.state: row.findings for row in rows}


def finding(connection: sa.Connection, number: int) -> Item | None:
    """One finding, whole; None where there is none.

    With what it is made of (``explained``, ``profile``), what people made of it (``triages``), its sightings, the experiments of
    its search, and by commit what is known of those that are named (``commits``).
    """
    row = connection.execute(_findings(_f.explained).where(_f.id == number)).mappings().one_or_none()
    if row is None:
        return None
    item = _item(row)
    _add_measured_again(connection, [item])
    _add_triages(connection, [item])
    sighted = sa.select(schema.sightings.c.experiment).where(schema.sightings.c.finding == number)
    return item | {
        "profile": profiles.of_finding(connection, number),
        "seen_again": _items(connection, _experiments().where(_e.id.in_(sighted)).order_by(_e.id.desc()).limit(LIMIT)),
        "experiments": _items(connection, _experiments().where(_e.finding == number).order_by(_e.id).limit(LIMIT)),
        "commits": commits(connection, item["repository"], _named(item["culprits"] or {})),
    }


def _add_commits(connection: sa.Connection, items: Sequence[Item]) -> None:
    for repository in {item["repository"] for item in items}:
        named = {item["id"]: _named(item["culprits"] or {}) for item in items if item["repository"] == repository}
        known = commits(connection, repository, set().union(*named.values()))
        for item in items:
            if item["repository"] == repository:
                item["commits"] = {commit: known[commit] for commit in named[item["id"]] & known.keys()}


def _named(culprits: Mapping[str, Any]) -> set[str]:
    """The commits that a search names, and the merges that it looked into."""
    groups = culprits.get("culprits", ())
    own = {commit for group in groups for commit in (*group["commits"], *group.get("within", ()))}
    return own | {merge["commit"] for merge in culprits.get("merges", ())}


def commits(connection: sa.Connection, repository: str, commits: Collection[str]) -> dict[str, Item]:
    """``subject author time`` of commits, of those that are known."""
    query = sa.select(_r.commit, _r.subject, _r.author, _r.time)
    rows = connection.execute(query.where(_r.repository == repository, _r.commit.in_(commits))).mappings()
    return {item.pop("commit"): item for item in map(_item, rows)}


def _findings(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    of_experiment = (column for column in _OF_EXPERIMENT if column.key not in ("id", "state", "reason"))
    own = (_f.id, _f.suspect, _f.state, _f.reason, _f.evidence, _f.search, _f.culprits, _f.mended, _f.found_at, _f.verified_at)
    made = (triage.of(datetime.now(UTC)).label("triage"), _f.muted_until, _SIGHTINGS)
    return (
        sa.select(*own, *made, *of_experiment, *more)
        .select_from(schema.findings)
        .join(schema.experiments, _e.id == _f.suspect)
        .join(schema.pairs, _p.id == _e.pair)
    )


def _add_measured_again(connection: sa.Connection, items: Sequence[Item]) -> None:
    again = _measured_again(connection, [item["id"] for item in items])
    for item in items:
        first = {name: item[name] for name in ("estimate", "low", "high")}
        own = {"confirmed": item["state"] == suspicion.OPEN, "first_seen": first, "verify": None, "layout": None}
        item |= own | again.get(item["id"], {})


def _add_triages(connection: sa.Connection, items: Sequence[Item]) -> None:
    """What was made of each, the newest first; one that was accepted is confirmed where it was before."""
    made = triage.history(connection, [item["id"] for item in items])
    for item in items:
        item["triages"] = [_item(one) for one in made[item["id"]]]
        if item["state"] == suspicion.ACCEPTED:
            accepted = next(one for one in item["triages"] if one["action"] == triage.ACCEPT)
            item["confirmed"] = accepted["state"] == suspicion.OPEN


def _measured_again(connection: sa.Connection, findings: Sequence[int]) -> dict[int, Item]:
    """By finding, the experiment that measures it again, and what that says so far."""
    rows = connection.execute(
        sa.select(_e.finding, _e.id, _e.estimate, _e.low, _e.high, _e.design["layout"].as_integer().label("layout"))
        .join(schema.pairs, _p.id == _e.pair)
        .where(_e.finding.in_(findings), _p.run_type == model.RunType.VERIFY)
        .order_by(_e.id)
    )
    return {
        row.finding: {"verify": row.id, "layout": row.layout or None}
        | ({} if row.estimate is None else {"estimate": row.estimate, "low": row.low, "high": row.high})
        for row in rows
    }


def subjects(connection: sa.Connection, repository: str, commits: Collection[str]) -> dict[str, str]:
    """The first lines of commits' messages, of those that are known."""
    known = sa.select(_r.commit, _r.subject).where(_r.repository == repository, _r.commit.in_(commits))
    return {row.commit: row.subject for row in connection.execute(known.limit(LIMIT))}


def revisions(connection: sa.Connection, query: RevisionQuery) -> Item:
    """A page of the revisions on watched lines, with what became of their experiments; ``cursor`` is a position on the line."""
    if query.repository is not None:
        select = sa.select(schema.revisions).where(_r.repository == query.repository, _r.on_branch)
        page = _page(connection, "revisions", select, _r.position, query)
    else:
        names = connection.scalars(sa.select(schema.repositories.c.name).limit(LIMIT)).all()
        newest = [item for name in names for item in _newest_revisions(connection, name, query.limit)]
        newest.sort(key=lambda item: str(item["time"]), reverse=True)
        page = {"revisions": newest[: query.limit], "next": None}
    _add_outcomes(connection, page["revisions"])
    return page


@dataclass(frozen=True, slots=True)
class Stand:
    """How an experiment ended or stands; fields as in :mod:`aibenchd.store.schema`."""

    id: int
    state: str
    verdict: str | None
    reason: str
    commit: str
    started: bool
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What the journal knows of a cell that was planned.

    Attributes:
        newest: its newest experiment that no one asked for.
        decided: the newest of those whose verdict took blocks; None where there is none yet.
        numbers: of that one, the one number of each process of the treatment that did not fail, in order; the newest.
        series: of that one, what was measured of the network, of its accuracy and power, and of outputs:
            ``type metric unit treatment``.
    """

    newest: Stand
    decided: Stand | None
    numbers: Sequence[float] = ()
    series: Sequence[Item] = ()


CellKey: TypeAlias = tuple[str, str, str, str]  # repository, digest of the benchmark, device, backend


def coverage(connection: sa.Connection, rows: Collection[tuple[str, str]]) -> dict[CellKey, CellFacts]:
    """What is known of each cell of these rows, (repository, digest of the benchmark); of those that were planned last."""
    table = schema.cells
    asked = (table.c.repository.in_({row[0] for row in rows}), table.c.benchmark.in_({row[1] for row in rows}))
    return cell_facts(connection, sa.select(table).where(*asked).order_by(table.c.newest.desc()).limit(CELLS))


def cell_facts(connection: sa.Connection, cells: sa.Select[Any]) -> dict[CellKey, CellFacts]:
    """What is known of cells; ``cells`` has the columns of :data:`aibenchd.store.schema.cells`."""
    shown = cells.cte("shown")
    numbers: dict[int, list[float]] = defaultdict(list)
    blocks = schema.blocks.c
    measured = sa.select(blocks.experiment, blocks.treatment).join(shown, shown.c.decided == blocks.experiment)
    for experiment, number in connection.execute(measured.where(blocks.treatment.is_not(None)).order_by(blocks.number)):
        numbers[experiment].append(number)
    series: dict[int, list[Item]] = defaultdict(list)
    results = schema.results.c
    columns = (results.experiment, results.type, results.metric, results.unit, results.treatment)
    of_network = sa.or_(
        results.type == MAIN_SERIES, results.metric.in_(OTHER_METRICS), results.type.startswith(OUTPUT_SERIES, autoescape=True)
    )
    for item in _items(connection, sa.select(*columns).join(shown, shown.c.decided == results.experiment).where(of_network)):
        series[item.pop("experiment")].append(item)
    newest, decided = (_stands(connection, shown, column) for column in (shown.c.newest, shown.c.decided))
    return {
        (row.repository, row.benchmark, row.device, row.backend): CellFacts(
            newest[row.newest], decided.get(row.decided), numbers[row.decided][-BLOCKS:], series[row.decided]
        )
        for row in connection.execute(sa.select(shown))
    }


def history(connection: sa.Connection, query: HistoryQuery) -> Item:
    """Decided experiments of one benchmark on one device, each with what was measured of the network as a whole."""
    wanted = (
        (_e.state, "decided"),
        (_e.device, query.device),
        (_e.backend, query.backend),
        (_REPOSITORY, query.repository),
    )
    select = (
        _experiments(_r.time.label("treatment_time"), _r.position, _r.subject)
        .outerjoin(schema.revisions, sa.and_(_r.repository == _p.repository, _r.commit == _p.treatment))
        .where(*_equal(*wanted), *of_benchmark(query.benchmark), _OF_COMMITS)
    )
    page = _page(connection, "history", select, _e.id, query)
    _add_results(connection, page["history"], query.metric)
    return page


def builds(connection: sa.Connection, query: BuildQuery) -> Item:
    """A page of builds."""
    select = sa.select(schema.builds).where(*_equal((_b.repository, query.repository), (_b.state, query.state)))
    return _page(connection, "builds", select, _b.id, query)


def build_log(connection: sa.Connection, number: int) -> str | None:
    """Where the log of a build is, relative to the state directory; empty where none is kept, None without such a build."""
    return connection.scalar(sa.select(_b.log).where(_b.id == number))


def trial_log(connection: sa.Connection, number: int) -> str | None:
    """As :func:`build_log`, of a trial."""
    return connection.scalar(sa.select(schema.trials.c.log).where(schema.trials.c.id == number))


def requests(connection: sa.Connection, page: Page) -> Item:
    """A page of what people asked for; of each how its experiments ended or stand (``outcomes``)."""
    answer = _page(connection, "requests", _requests(), schema.requests.c.id, page)
    outcomes = _outcomes(connection, [item["id"] for item in answer["requests"]])
    for item in answer["requests"]:
        item["outcomes"] = outcomes.get(item["id"], {})
    return answer


def request(connection: sa.Connection, number: int) -> Item | None:
    """One request with its first experiments, and how all of them ended or stand; None where there is none.

    Of each experiment the ``results`` of the whole network, once it has ended; of what was submitted the ``names`` of the
    programs, by arm, and the ``note``, which are null of all else.
    """
    found = connection.execute(_requests().where(schema.requests.c.id == number)).mappings().one_or_none()
    if found is None:
        return None
    planned = _experiments().where(_p.request == number)
    return _item(found) | {
        "outcomes": _outcomes(connection, [number]).get(number, {}),
        "experiments": _with_results(connection, _items(connection, planned.order_by(_e.id).limit(LIMIT))),
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


def _with_results(connection: sa.Connection, items: list[Item]) -> list[Item]:
    results = schema.results.c
    of_network = (results.experiment.in_([item["id"] for item in items]), results.type == MAIN_SERIES)
    found: dict[int, list[Item]] = defaultdict(list)
    for row in _items(connection, sa.select(schema.results).where(*of_network).order_by(results.metric)):
        found[row.pop("experiment")].append(row)
    return [item | {"results": found[item["id"]]} for item in items]


def _experiments(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return sa.select(*_OF_EXPERIMENT, *more).select_from(schema.experiments).join(schema.pairs, _p.id == _e.pair)


def _stands(connection: sa.Connection, shown: sa.CTE, column: sa.ColumnElement[Any]) -> dict[int, Stand]:
    """The experiments that one column of the cells names."""
    rows = connection.execute(
        sa.select(_e.id, _e.state, _e.verdict, _e.reason, _p.treatment, _e.started_at, _e.decided_at)
        .select_from(shown)
        .join(schema.experiments, _e.id == column)
        .join(schema.pairs, _p.id == _e.pair)
    )
    return {
        row.id: Stand(row.id, row.state, row.verdict, row.reason, row.treatment, row.started_at is not None, row.decided_at)
        for row in rows
    }


def _builds_of(connection: sa.Connection, number: int) -> Item:
    arms = {"treatment": _e.treatment_build, "control": _e.control_build}
    selects = {
        arm: sa.select(schema.builds).join(schema.experiments, _b.id == build).where(_e.id == number)
        for arm, build in arms.items()
    }
    rows = {arm: connection.execute(select).mappings().one_or_none() for arm, select in selects.items()}
    return {arm: None if row is None else _item(row) for arm, row in rows.items()}


def _blocks_of(connection: sa.Connection, number: int) -> list[Item]:
    blocks, trials = schema.blocks.c, schema.trials.c
    newest = sa.select(schema.blocks).where(blocks.experiment == number).order_by(blocks.number.desc()).limit(BLOCKS)
    items = _items(connection, newest)[::-1]
    first = items[0]["number"] if items else 0
    ran: dict[int, list[Item]] = {item["number"]: [] for item in items}
    select = sa.select(schema.trials).where(trials.experiment == number, trials.block >= first).order_by(trials.id)
    for trial in _items(connection, select.limit(2 * BLOCKS)):
        ran[trial["block"]].append(trial)
    return [item | {"trials": ran[item["number"]]} for item in items]


def _results_of(connection: sa.Connection, number: int) -> list[Item]:
    results = schema.results.c
    return _items(connection, sa.select(schema.results).where(results.experiment == number).limit(SERIES))


def _fingerprints_of(connection: sa.Connection, number: int) -> dict[str, Item]:
    table = schema.fingerprints.c
    used = sa.select(schema.blocks.c.fingerprint).where(schema.blocks.c.experiment == number).distinct()
    rows = connection.execute(sa.select(table.id, table.facts).where(table.id.in_(used)).order_by(table.id).limit(LIMIT))
    return {str(row.id): row.facts for row in rows}


def _excluded(connection: sa.Connection, number: int) -> list[Item]:
    """How many trials of each arm do not count, by cause; with the reason of the last."""
    table = schema.exclusions.c
    count = sa.func.count().label("trials")
    query = sa.select(table.cause, table.arm, count, sa.func.max(table.id), table.reason).where(table.experiment == number)
    rows = connection.execute(query.group_by(table.cause, table.arm).order_by(table.cause, table.arm))
    return [{"cause": row.cause, "arm": row.arm, "trials": row.trials, "reason": row.reason} for row in rows]


def _add_results(connection: sa.Connection, items: Sequence[Item], metric: str | None) -> None:
    results = schema.results.c
    found: dict[int, list[Item]] = {item["id"]: [] for item in items}
    select = sa.select(schema.results).where(results.experiment.in_(found), results.type == MAIN_SERIES)
    for item in _items(connection, select.where(*_equal((results.metric, metric))).limit(SERIES)):
        found[item["experiment"]].append(item)
    for item in items:
        item["results"] = found[item["id"]]


def _newest_revisions(connection: sa.Connection, repository: str, limit: int) -> list[Item]:
    return _items(
        connection,
        sa.select(schema.revisions).where(_r.repository == repository, _r.on_branch).order_by(_r.position.desc()).limit(limit),
    )


def _add_outcomes(connection: sa.Connection, items: Sequence[Item]) -> None:
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


def _equal(*wanted: tuple[sa.ColumnElement[Any], object]) -> list[sa.ColumnElement[bool]]:
    return [column == value for column, value in wanted if value is not None]


def _page(connection: sa.Connection, name: str, select: sa.Select[Any], order: sa.Column[Any], page: Page) -> Item:
    return _cut(name, _items(connection, _before(select, order, page)), order.name, page)


def _before(select: sa.Select[Any], order: sa.Column[Any], page: Page) -> sa.Select[Any]:
    """The rows of a page, and one more that tells whether it is the last."""
    if page.cursor is not None:
        select = select.where(order < page.cursor)
    return select.order_by(order.desc()).limit(page.limit + 1)


def _cut(name: str, items: list[Item], order: str, page: Page) -> Item:
    shown = items[: page.limit]
    return {name: shown, "next": shown[-1][order] if len(items) > page.limit else None}


def _items(connection: sa.Connection, select: sa.Select[Any]) -> list[Item]:
    return [_item(row) for row in connection.execute(select).mappings()]


def _item(row: Mapping[Any, Any]) -> Item:
    return {str(name): value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
