"""The journal's tables. ``migrations/`` brings a file of any older version to this one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

VERSION = "0012"  # the newest migration: what this code reads and writes
MAIN_SERIES = "NET"  # the type of the series that stands for the whole network
OTHER_METRICS = ("accuracy", "power")  # that a test may be decided on in place of the time that it takes
OUTPUT_SERIES = "ERROR "  # begins the type of the series that compare an output


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware datetime, kept as seconds since 1970 UTC: sortable, and the same in every database."""

    impl = sa.Float(53)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> float | None:  # noqa: ARG002
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return None if value is None else datetime.fromtimestamp(value, UTC)


metadata = sa.MetaData()

# What the journal as a whole is: installation (a random UUID, made once, that record ids are derived from).
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("head", sa.Text, nullable=False, default=""),  # last commit of the branch that was read
    sa.Column("polled_at", Instant),
    sa.Column("planned_at", Instant),  # when a revision of it was last planned, for min_run_interval
    sa.Column("first", sa.Integer, nullable=False, default=0),  # position that watching began at; steps are counted from it
)

# state: history (older than where watching began) | new | planned | coalesced | filtered | stepped | gone (rewritten away)
#     | asked (a person named it; it is on no line that is watched) | side (a merge brought it in that was looked into)
revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("parents", sa.JSON, nullable=False),
    sa.Column("time", Instant, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("relevant", sa.Boolean, nullable=False),
    sa.Column("on_branch", sa.Boolean, nullable=False, default=True),  # on the watched line as it is now
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False, default=""),
    sa.Column("seen_at", Instant, nullable=False),
    sa.UniqueConstraint("repository", "commit"),
    sa.Index("revisions_by_position", "repository", "position"),
    sa.Index("revisions_by_state", "state", "repository", "position"),
)

# Merges that were looked into, for a search: the lines of relevant commits that each brought in, newest last, each from its
# merge base on; none where there was nothing to search.
merges = sa.Table(
    "merges",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("onto", sa.Text, primary_key=True),  # what it brought them into
    sa.Column("sides", sa.JSON, nullable=False),
    sqlite_with_rowid=False,
)
# A partial index serves a question only where both say the same, letter by letter: so such a question is asked by this name.
MADE = sa.text("builds.finished_at IS NOT NULL AND builds.state IN ('built', 'evicted')")


def _bare(condition: sa.TextClause) -> sa.TextClause:
    """A condition as an index has it: without the name of the table."""
    return sa.text(re.sub(r"\b(builds|experiments)\.", "", condition.text))


# state: queued | building | built | failed | evicted (built once, its programs are gone; queued again when needed)
builds = sa.Table(
    "builds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("framework", sa.Text, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("copy", sa.Integer, nullable=False, server_default="0"),  # 0, 1 where made anew, else the seed of its layout
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),  # larger first
    sa.Column("digest", sa.Text, nullable=False, default=""),
    sa.Column("directory", sa.Text, nullable=False, default=""),
    sa.Column("program", sa.Text, nullable=False, default=""),  # path of the main program, relative to directory
    sa.Column("size", sa.Integer, nullable=False, default=0),  # bytes
    sa.Column("log", sa.Text, nullable=False, default=""),  # path, relative to the state directory
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("meta", sa.JSON, nullable=False, default=dict),  # meta.json beside the build script
    sa.Column("queued_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("used_at", Instant),
    sa.UniqueConstraint("repository", "commit", "framework", "platform", "copy"),
    sa.Index("builds_by_state", "state", "priority"),
    sa.Index("builds_made", "repository", "framework", "platform", sqlite_where=_bare(MADE), postgresql_where=_bare(MADE)),
)

# What a person asked for. state: new | planned | refused
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("treatment", sa.Text, nullable=False),
    sa.Column("control", sa.Text, nullable=False, default=""),  # empty: by the repository's baseline rule
    sa.Column("benchmarks", sa.JSON, nullable=False),  # identifiers or globs; empty: all
    sa.Column("devices", sa.JSON, nullable=False),  # names; empty: all
    sa.Column("priority", sa.Integer, nullable=False, default=0),  # larger first
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("requested_by", sa.Text, nullable=False, default=""),
    sa.Column("created_at", Instant, nullable=False),
)

# Of those requests whose programs were sent: who sent what.
submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("request", sa.Integer, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("uid", sa.Integer, nullable=False),  # of who sent it, on this host
    sa.Column("note", sa.Text, nullable=False, default=""),  # why, in their words
    sa.Column("names", sa.JSON, nullable=False),  # what they call each program, by arm
    sa.Column("specification", sa.Text, nullable=False, default=""),  # directory that it was laid out in; empty: none was sent
)

_REQUESTED = sa.text("request IS NOT NULL")
_SELFCHECKS = sa.text("run_type = 'selfcheck'")

# The revision pairs whose experiments are run in rounds.
pairs = sa.Table(
    "pairs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("treatment", sa.Text, nullable=False),
    sa.Column("control", sa.Text),  # NULL: one arm
    sa.Column("run_type", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("request", sa.Integer, sa.ForeignKey("requests.id")),
    sa.Column("created_at", Instant, nullable=False),
    sa.Index("pairs_by_treatment", "repository", "treatment"),
    sa.Index("pairs_planned", "repository", "request", "run_type", "id"),
    sa.Index("pairs_by_request", "request", sqlite_where=_REQUESTED, postgresql_where=_REQUESTED),
    sa.Index("pairs_of_selfchecks", "id", sqlite_where=_SELFCHECKS, postgresql_where=_SELFCHECKS),
)

_DECIDED = sa.text("verdict IS NOT NULL")
_SERVES = sa.text("finding IS NOT NULL")
UNDECIDED_STATES = ("waiting", "open")
UNDECIDED = sa.text("experiments.state IN ('waiting', 'open')")
BAD = sa.text("experiments.verdict IN ('regressed', 'broken')")
CONTROL_DOES_NOT_BUILD = "the control does not build"
ORPHANED = sa.text(f"experiments.reason = '{CONTROL_DOES_NOT_BUILD}'")

# state: waiting (for builds) | open | decided | skipped (does not build) | cancelled
experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pair", sa.Integer, sa.ForeignKey("pairs.id"), nullable=False),
    sa.Column("benchmark", sa.Text, nullable=False),  # digest of the benchmark
    sa.Column("identifier", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("backend", sa.Text, nullable=False),
    sa.Column("treatment_build", sa.Integer, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("control_build", sa.Integer, sa.ForeignKey("builds.id")),
    sa.Column("digests", sa.Text, nullable=False, default=""),  # of its builds, since its blocks began
    sa.Column("design", sa.JSON, nullable=False),  # what is frozen before the first block: model.Design
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("round", sa.Integer, nullable=False, default=0),
    sa.Column("turn", sa.Float, nullable=False, default=0.0),  # its place within the round, drawn from the seed
    sa.Column("blocks", sa.Integer, nullable=False, default=0),  # journalled blocks, valid or not
    sa.Column("verdict", sa.Text),
    sa.Column("estimate", sa.Float),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    sa.Column("decided_at", Instant),
    sa.Column("finding", sa.Integer),  # that it verifies or bisects
    sa.Column("quota", sa.Integer),  # blocks that it may have until it is given more; NULL: those of its rule
    # What it is expected to take still; NULL where that is not known.
    sa.Column("blocks_left", sa.Integer),
    sa.Column("seconds_left", sa.Integer),
    sa.Column("wave", sa.Integer, nullable=False, server_default="0"),  # aibenchd.plan.order.wave of these seconds
    sa.Column("out_of_reach", sa.Boolean, nullable=False, server_default="0"),  # whether its budget will hardly decide it
    sa.Column("in_tail", sa.Boolean, nullable=False, server_default="0"),  # whether its verdict is of the slow iterations alone
    sa.UniqueConstraint("pair", "benchmark", "device", "backend"),
    # The next block of a device is the first row of this index: highest priority, not in vain, newest pair, soonest done, least
    # measured, by lot.
    sa.Index(
        "experiments_next",
        *("device", "state", sa.text("priority DESC"), "out_of_reach", sa.text("pair DESC"), "wave", "round", "turn"),
    ),
    sa.Index("experiments_by_state", "state"),
    # What people ask for, newest first: each of these is followed by the row's id.
    sa.Index("experiments_of_device", "device"),
    sa.Index("experiments_of_identifier", "identifier", "device"),
    sa.Index("experiments_by_verdict", "verdict", sqlite_where=_DECIDED, postgresql_where=_DECIDED),
    sa.Index("experiments_by_decision", "decided_at", sqlite_where=_DECIDED, postgresql_where=_DECIDED),
    sa.Index("experiments_of_cell", "benchmark", "device", "backend"),
    sa.Index("experiments_by_build", "treatment_build"),
    sa.Index("experiments_by_control_build", "control_build"),
    sa.Index("experiments_of_finding", "finding", sqlite_where=_SERVES, postgresql_where=_SERVES),
    # What the planner asks of each of thousands of pairs, and few experiments are.
    sa.Index("experiments_undecided", "pair", "device", sqlite_where=_bare(UNDECIDED), postgresql_where=_bare(UNDECIDED)),
    sa.Index("experiments_bad", "pair", sqlite_where=_bare(BAD), postgresql_where=_bare(BAD)),
    sa.Index("experiments_orphaned", "pair", sqlite_where=_bare(ORPHANED), postgresql_where=_bare(ORPHANED)),
)

# What regressed or broke, from suspicion on. state: suspect | refuted | unconfirmed | open (confirmed) | accepted
# search: '' | running | found | no culprit | many small ones | inconclusive | impossible
#     | deferred (another of its revisions is searched first) | stopped (it was accepted meanwhile)
# triage, of what stands: '' | acknowledged | muted
findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("suspect", sa.Integer, sa.ForeignKey("experiments.id"), nullable=False, unique=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("evidence", sa.Float),  # natural logarithm of the e-value against no regression, of what verified it
    sa.Column("search", sa.Text, nullable=False, default=""),
    sa.Column("culprits", sa.JSON),  # what the search has found so far
    sa.Column("explained", sa.JSON),  # which operators it comes from, and what else changed
    sa.Column("found_at", Instant, nullable=False),
    sa.Column("verified_at", Instant),
    sa.Column("mended", sa.Integer),  # experiment that shows it to be gone
    sa.Column("triage", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("muted_until", Instant),
    sa.Index("findings_by_state", "state", "search"),
)

# What people made of findings. action: acknowledge | accept | mute | reopen | lapse (a mute has ended, by nobody)
triages = sa.Table(
    "triages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("finding", sa.Integer, sa.ForeignKey("findings.id"), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("until", Instant),
    sa.Column("state", sa.Text, nullable=False),  # of the finding before
    sa.Column("at", Instant, nullable=False),
    sa.Index("triages_of_finding", "finding"),
)

# Later experiments that show what a finding has shown already, because their controls are older than it.
sightings = sa.Table(
    "sightings",
    metadata,
    sa.Column("experiment", sa.Integer, sa.ForeignKey("experiments.id"), primary_key=True),
    sa.Column("finding", sa.Integer, sa.ForeignKey("findings.id"), nullable=False),
    sa.Index("sightings_of_finding", "finding"),
)

# Of confirmed regressions, what both arms do under a profiler.
profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("finding", sa.Integer, sa.ForeignKey("findings.id"), primary_key=True),
    sa.Column("experiment", sa.Integer, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("facts", sa.JSON),  # where the arms differ; NULL until it has been measured, and where that failed
    sa.Column("reason", sa.Text, nullable=False, default=""),  # why there is none
    sa.Column("made_at", Instant),
    sa.Index("profiles_to_read", "finding", sqlite_where=sa.text("made_at IS NULL"), postgresql_where=sa.text("made_at IS NULL")),
)

# What was last told of each commit that was planned with no one asking, and whether that may have changed since: kept by the
# triggers below.
standings = sa.Table(
    "standings",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("told", sa.Text, nullable=False, default=""),  # of aibenchd.report.standing, as JSON; empty before the first
    sa.Column("number", sa.Integer, nullable=False, default=0),  # how often something was told
    sa.Column("stale", sa.Boolean, nullable=False),
    sa.Index("standings_stale", "repository", sqlite_where=sa.text("stale"), postgresql_where=sa.text("stale")),
    sqlite_with_rowid=False,
)

# How noisy a benchmark is on a device with one repository's programs, by its newest experiments.
noises = sa.Table(
    "noises",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("benchmark", sa.Text, primary_key=True),  # digest of the benchmark
    sa.Column("backend", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, nullable=False),
    sa.Column("blocks", sa.Integer, nullable=False),  # that it rests on
    sa.Column("scale", sa.Float),  # of a block's log ratio
    sa.Column("slot", sa.Float),  # what running second adds, as a ratio minus 1, with its interval
    sa.Column("slot_low", sa.Float),
    sa.Column("slot_high", sa.Float),
    sa.Column("smallest", sa.Float),  # effect that the budget finds, as a ratio minus 1; NULL where it finds none
    sa.Column("measured_at", Instant, nullable=False),
    sa.Column("degrees", sa.Float),  # of freedom, of a Student law with such tails
    sa.Column("expected", sa.Float),  # blocks to a verdict where nothing changed
    sa.Column("seconds", sa.Float),  # that a block takes
    sa.Column("summary", sa.JSON),  # model.Summary of the cell's next experiments; NULL: as ever
    sa.Column("chosen_at", sa.Integer),  # its newest experiment when that was last chosen
    sqlite_with_rowid=False,
)

# What devices were found to be: each fingerprint that one ever had.
fingerprints = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.UniqueConstraint("device", "digest"),
)

# Each device as it was when it was last looked at, and its last block.
devices = sa.Table(
    "devices",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Integer, sa.ForeignKey("fingerprints.id"), nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
    sa.Column("experiment", sa.Integer),
    sa.Column("block_at", Instant),
    sqlite_with_rowid=False,
)

blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("experiment", sa.Integer, sa.ForeignKey("experiments.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # from 0
    sa.Column("order", sa.Text, nullable=False),  # "TC", "CT" or "T"
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("treatment", sa.Float),  # the one number of each process that is decided on
    sa.Column("control", sa.Float),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant, nullable=False),
    sa.Column("estimate", sa.Float),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("stratum", sa.Integer, nullable=False, server_default="0"),  # one more at each change of the fingerprint
    sa.Column("fingerprint", sa.Integer, sa.ForeignKey("fingerprints.id")),
    sa.Column("conditions", sa.JSON),  # the device's state before it and after it
    sa.Column("treatment_tail", sa.Float),  # the number of each process's slow iterations, where they are judged beside
    sa.Column("control_tail", sa.Float),
    sqlite_with_rowid=False,
)

# Trials that do not count, because the block that they are of was broken off or voided, and run again.
exclusions = sa.Table(
    "exclusions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("experiment", sa.Integer, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),  # "device lost", "harness at fault" or "device changed"
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("excluded_at", Instant, nullable=False),
    sa.Index("exclusions_of_experiment", "experiment"),
)

trials = sa.Table(
    "trials",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("experiment", sa.Integer, nullable=False),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("backend", sa.Text, nullable=False, default=""),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("log", sa.Text, nullable=False, default=""),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("agreement", sa.Text, nullable=False, default="", server_default=""),  # of its outputs: model.Agreement
    sa.UniqueConstraint("experiment", "block", "arm"),
    sa.ForeignKeyConstraint(["experiment", "block"], ["blocks.experiment", "blocks.number"]),
    sa.Index("trials_by_start", "started_at"),
)

# Raw samples of a trial; deleted when older than their retention.
samples = sa.Table(
    "samples",
    metadata,
    sa.Column("trial", sa.Integer, sa.ForeignKey("trials.id"), primary_key=True),
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("values", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sqlite_with_rowid=False,
)

# What stays of each series of a decided experiment.
results = sa.Table(
    "results",
    metadata,
    sa.Column("experiment", sa.Integer, sa.ForeignKey("experiments.id"), primary_key=True),
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("treatment", sa.JSON, nullable=False),  # statistics by name: mean, p50, …
    sa.Column("control", sa.JSON),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sqlite_with_rowid=False,
)

# Records on their way. state: pending | dead
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # the order of delivery
    sa.Column("sink", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),  # model.Record.id
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # model.Record.text
    sa.Column("size", sa.Integer, nullable=False),  # bytes of the payload
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("created_at", Instant, nullable=False),
    sa.Index("outbox_next", "sink", "state", "id"),
    sa.Index("outbox_samples", "id", sqlite_where=sa.text("kind = 'samples'"), postgresql_where=sa.text("kind = 'samples'")),
    sa.UniqueConstraint("sink", "record"),
    sqlite_autoincrement=True,
)

# How much lies in the outbox; kept with it in the same transactions, so that nobody has to count.
outbox_depths = sa.Table(
    "outbox_depths",
    metadata,
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

# The batch that a sink is being sent: its pending records up to this id. Written before the batch is sent, so
# that it is the same batch, under the same key, when it must be sent again after a crash.
outbox_batches = sa.Table(
    "outbox_batches",
    metadata,
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("upto", sa.Integer, nullable=False),
)

# How to undo what was changed on a device; written before the change.
undo = sa.Table(
    "undo",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("action", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
)

CELL = ("benchmark", "device", "backend")  # columns that tell a repository's cells apart

# The cells that were ever planned, each with its newest experiments; kept by the triggers below.
cells = sa.Table(
    "cells",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("benchmark", sa.Text, primary_key=True),  # digest of the benchmark
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("backend", sa.Text, primary_key=True),
    sa.Column("newest", sa.Integer, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("decided", sa.Integer, sa.ForeignKey("experiments.id")),  # the newest whose verdict took blocks
    sqlite_with_rowid=False,
)

# How many rows there are of each state, so that nobody has to count a million of them; kept by the triggers below, in
# the transaction that changes what is counted.
tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("what", sa.Text, primary_key=True),  # the table that is counted
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),  # of a trial: its outcome; of a block: whether it is valid
    sa.Column("verdict", sa.Text, primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

# What each device is expected to be busy with, of the experiments of which that is known; kept by the triggers below.
queues = sa.Table(
    "queues",
    metadata,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("experiments", sa.Integer, nullable=False),
    sa.Column("blocks", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)


def _keep_tally(what: str, device: str, state: str, verdict: str) -> None:
    """Count the rows of ``what`` by three expressions of SQL, in which ``{0}`` stands for the row."""

    def keys(row: str) -> str:
        return ", ".join(expression.format(row) for expression in (device, state, verdict))

    def count(row: str, by: str) -> str:
        return (
            f"INSERT INTO tallies VALUES ('{what}', {keys(row)}, {by}) "
            f"ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows {by};"
        )

    for when, condition, body in (
        ("INSERT", "", count("NEW", "+1")),
        ("DELETE", "", count("OLD", "-1")),
        ("UPDATE", f"WHEN ({keys('OLD')}) <> ({keys('NEW')})", count("OLD", "-1") + count("NEW", "+1")),
    ):
        _trigger(f"tally_{what}_{when.lower()} AFTER {when} ON {what} {condition} BEGIN {body} END")


def _trigger(text: str) -> None:
    made: sa.DDL = sa.DDL(f"CREATE TRIGGER {text}")  # type: ignore[no-untyped-call]
    sa.event.listen(metadata, "after_create", made.execute_if(dialect="sqlite"))


# Only a benchmark's verdict says that one more commit regressed or improved.
_VERDICT = (
    "CASE WHEN {0}.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = {0}.pair) "
    "WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' "
    "WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' "
    "ELSE {0}.verdict END END"
)
_keep_tally("experiments", "{0}.device", "{0}.state", _VERDICT)
_keep_tally("blocks", "''", "iif({0}.valid, 'valid', 'invalid')", "''")
_keep_tally("trials", "''", "{0}.outcome", "''")

_QUEUED = "{0}.state IN ('waiting', 'open') AND {0}.seconds_left IS NOT NULL"
_QUEUE = (
    "INSERT INTO queues SELECT NEW.device, 1, NEW.blocks_left, NEW.seconds_left WHERE " + _QUEUED.format("NEW") + " "
    "ON CONFLICT (device) DO UPDATE SET experiments = experiments + 1, blocks = blocks + excluded.blocks, "
    "seconds = seconds + excluded.seconds;"
)
_UNQUEUE = (
    "UPDATE queues SET experiments = experiments - 1, blocks = blocks - OLD.blocks_left, seconds = seconds - OLD.seconds_left "
    "WHERE device = OLD.device AND " + _QUEUED.format("OLD") + ";"
)
_trigger(f"queue_insert AFTER INSERT ON experiments BEGIN {_QUEUE} END")
_trigger(f"queue_delete AFTER DELETE ON experiments BEGIN {_UNQUEUE} END")
_trigger(f"queue_update AFTER UPDATE OF device, state, blocks_left, seconds_left ON experiments BEGIN {_UNQUEUE} {_QUEUE} END")

# Planned with no one asking, or asked for by a person who measures the newest revision that was.
_COUNTS = (
    "run_type = 'benchmark' AND (request IS NULL OR treatment = (SELECT treatment FROM pairs newest "
    "WHERE newest.repository = pairs.repository AND newest.request IS NULL AND newest.run_type = 'benchmark' "
    "ORDER BY newest.id DESC LIMIT 1))"
)
_trigger(
    "cells_planned AFTER INSERT ON experiments BEGIN INSERT INTO cells "
    "SELECT repository, NEW.benchmark, NEW.device, NEW.backend, NEW.id, iif(NEW.verdict <> 'identical', NEW.id, NULL) "
    "FROM pairs WHERE id = NEW.pair AND " + _COUNTS + " ON CONFLICT (repository, benchmark, device, backend) "
    "DO UPDATE SET newest = excluded.newest, decided = coalesce(excluded.decided, decided); END"
)
_trigger(
    "cells_decided AFTER UPDATE OF verdict ON experiments WHEN NEW.verdict <> 'identical' BEGIN "
    "UPDATE cells SET decided = max(coalesce(decided, 0), NEW.id) "
    "WHERE repository = (SELECT repository FROM pairs WHERE id = NEW.pair AND " + _COUNTS + ") "
    "AND benchmark = NEW.benchmark AND device = NEW.device AND backend = NEW.backend; END"
)

# How a commit stands may change with what was planned of it, with the end of an experiment, and with what becomes of a finding.
_OF_COMMIT = "run_type = 'benchmark' AND request IS NULL"
_trigger(
    "standings_planned AFTER INSERT ON pairs WHEN NEW.run_type = 'benchmark' AND NEW.request IS NULL BEGIN "
    "INSERT INTO standings VALUES (NEW.repository, NEW.treatment, '', 0, 1) ON CONFLICT DO UPDATE SET stale = 1; END"
)


def _touch_standing(name: str, when: str, experiment: str) -> None:
    """That of the commit which an experiment is of, by an expression of SQL for its number."""
    pair = f"(SELECT pair FROM experiments WHERE id = {experiment})"
    commit = f"SELECT repository, treatment FROM pairs WHERE {_OF_COMMIT} AND id = {pair}"
    _trigger(f'{name} AFTER {when} BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = ({commit}); END')


_touch_standing(
    "standings_ended",
    "UPDATE OF state ON experiments WHEN NEW.state <> OLD.state AND NEW.state IN ('decided', 'skipped', 'cancelled')",
    "NEW.id",
)
_touch_standing("standings_found", "INSERT ON findings", "NEW.suspect")
_touch_standing("standings_settled", "UPDATE OF state ON findings WHEN NEW.state <> OLD.state", "NEW.suspect")
_touch_standing("standings_sighted", "INSERT ON sightings", "NEW.experiment")
_touch_standing("standings_unsighted", "DELETE ON sightings", "OLD.experiment")
