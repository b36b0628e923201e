-- The first schema. A migration is frozen: what it makes never changes again, whatever the code's own schema becomes.
-- Statements are set apart by empty lines.

CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY ("key")
)

CREATE TABLE repositories (
    name TEXT NOT NULL,
    head TEXT NOT NULL,
    polled_at FLOAT,
    planned_at FLOAT,
    first INTEGER NOT NULL,
    PRIMARY KEY (name)
)

CREATE TABLE revisions (
    id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    parents JSON NOT NULL,
    time FLOAT NOT NULL,
    author TEXT NOT NULL,
    subject TEXT NOT NULL,
    position INTEGER NOT NULL,
    relevant BOOLEAN NOT NULL,
    on_branch BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    note TEXT NOT NULL,
    seen_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (repository, "commit")
)

CREATE INDEX revisions_by_state ON revisions (state, repository, position)

CREATE INDEX revisions_by_position ON revisions (repository, position)

CREATE TABLE builds (
    id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    framework TEXT NOT NULL,
    platform TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    digest TEXT NOT NULL,
    directory TEXT NOT NULL,
    program TEXT NOT NULL,
    size INTEGER NOT NULL,
    log TEXT NOT NULL,
    reason TEXT NOT NULL,
    meta JSON NOT NULL,
    queued_at FLOAT NOT NULL,
    started_at FLOAT,
    finished_at FLOAT,
    used_at FLOAT,
    PRIMARY KEY (id),
    UNIQUE (repository, "commit", framework, platform)
)

CREATE INDEX builds_by_state ON builds (state, priority)

CREATE TABLE requests (
    id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    treatment TEXT NOT NULL,
    control TEXT NOT NULL,
    benchmarks JSON NOT NULL,
    devices JSON NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (id)
)

CREATE TABLE outbox (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    record TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    UNIQUE (sink, record)
)

CREATE INDEX outbox_samples ON outbox (id) WHERE kind = 'samples'

CREATE INDEX outbox_next ON outbox (sink, state, id)

CREATE TABLE outbox_depths (
    sink TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (sink, kind, state)
)
 WITHOUT ROWID

CREATE TABLE outbox_batches (
    sink TEXT NOT NULL,
    upto INTEGER NOT NULL,
    PRIMARY KEY (sink)
)

CREATE TABLE undo (
    id INTEGER NOT NULL,
    device TEXT NOT NULL,
    action JSON NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (id)
)

CREATE TABLE tallies (
    what TEXT NOT NULL,
    device TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (what, device, state, verdict)
)
 WITHOUT ROWID

CREATE TABLE pairs (
    id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    treatment TEXT NOT NULL,
    control TEXT,
    run_type TEXT NOT NULL,
    priority INTEGER NOT NULL,
    request INTEGER,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(request) REFERENCES requests (id)
)

CREATE INDEX pairs_planned ON pairs (repository, request, id)

CREATE INDEX pairs_by_treatment ON pairs (repository, treatment)

CREATE INDEX pairs_by_request ON pairs (request) WHERE request IS NOT NULL

CREATE TABLE experiments (
    id INTEGER NOT NULL,
    pair INTEGER NOT NULL,
    benchmark TEXT NOT NULL,
    identifier TEXT NOT NULL,
    model TEXT NOT NULL,
    device TEXT NOT NULL,
    backend TEXT NOT NULL,
    treatment_build INTEGER NOT NULL,
    control_build INTEGER,
    digests TEXT NOT NULL,
    design JSON NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    priority INTEGER NOT NULL,
    round INTEGER NOT NULL,
    turn FLOAT NOT NULL,
    blocks INTEGER NOT NULL,
    verdict TEXT,
    estimate FLOAT,
    low FLOAT,
    high FLOAT,
    created_at FLOAT NOT NULL,
    started_at FLOAT,
    decided_at FLOAT,
    PRIMARY KEY (id),
    UNIQUE (pair, benchmark, device, backend),
    FOREIGN KEY(pair) REFERENCES pairs (id),
    FOREIGN KEY(treatment_build) REFERENCES builds (id),
    FOREIGN KEY(control_build) REFERENCES builds (id)
)

CREATE INDEX experiments_by_control_build ON experiments (control_build)

CREATE INDEX experiments_by_build ON experiments (treatment_build)

CREATE INDEX experiments_of_identifier ON experiments (identifier, device)

CREATE INDEX experiments_by_decision ON experiments (decided_at) WHERE verdict IS NOT NULL

CREATE INDEX experiments_by_verdict ON experiments (verdict) WHERE verdict IS NOT NULL

CREATE INDEX experiments_of_cell ON experiments (benchmark, device, backend)

CREATE INDEX experiments_next ON experiments (device, state, priority DESC, pair DESC, round, turn)

CREATE INDEX experiments_by_state ON experiments (state)

CREATE INDEX experiments_of_device ON experiments (device)

CREATE TABLE blocks (
    experiment INTEGER NOT NULL,
    number INTEGER NOT NULL,
    "order" TEXT NOT NULL,
    valid BOOLEAN NOT NULL,
    treatment FLOAT,
    control FLOAT,
    started_at FLOAT NOT NULL,
    finished_at FLOAT NOT NULL,
    estimate FLOAT,
    low FLOAT,
    high FLOAT,
    PRIMARY KEY (experiment, number),
    FOREIGN KEY(experiment) REFERENCES experiments (id)
)
 WITHOUT ROWID

CREATE TABLE results (
    experiment INTEGER NOT NULL,
    type TEXT NOT NULL,
    metric TEXT NOT NULL,
    unit TEXT NOT NULL,
    treatment JSON NOT NULL,
    control JSON,
    text TEXT NOT NULL,
    PRIMARY KEY (experiment, type, metric),
    FOREIGN KEY(experiment) REFERENCES experiments (id)
)
 WITHOUT ROWID

CREATE TABLE trials (
    id INTEGER NOT NULL,
    experiment INTEGER NOT NULL,
    block INTEGER NOT NULL,
    arm TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    backend TEXT NOT NULL,
    seconds FLOAT NOT NULL,
    log TEXT NOT NULL,
    started_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (experiment, block, arm),
    FOREIGN KEY(experiment, block) REFERENCES blocks (experiment, number)
)

CREATE INDEX trials_by_start ON trials (started_at)

CREATE TABLE samples (
    trial INTEGER NOT NULL,
    type TEXT NOT NULL,
    metric TEXT NOT NULL,
    unit TEXT NOT NULL,
    "values" JSON NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (trial, type, metric),
    FOREIGN KEY(trial) REFERENCES trials (id)
)
 WITHOUT ROWID

CREATE TRIGGER tally_experiments_insert AFTER INSERT ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, coalesce(NEW.verdict, ''), +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_experiments_delete AFTER DELETE ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, coalesce(OLD.verdict, ''), -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

CREATE TRIGGER tally_experiments_update AFTER UPDATE ON experiments WHEN (OLD.device, OLD.state, coalesce(OLD.verdict, '')) <> (NEW.device, NEW.state, coalesce(NEW.verdict, '')) BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, coalesce(OLD.verdict, ''), -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, coalesce(NEW.verdict, ''), +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_blocks_insert AFTER INSERT ON blocks  BEGIN INSERT INTO tallies VALUES ('blocks', '', iif(NEW.valid, 'valid', 'invalid'), '', +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_blocks_delete AFTER DELETE ON blocks  BEGIN INSERT INTO tallies VALUES ('blocks', '', iif(OLD.valid, 'valid', 'invalid'), '', -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

CREATE TRIGGER tally_blocks_update AFTER UPDATE ON blocks WHEN ('', iif(OLD.valid, 'valid', 'invalid'), '') <> ('', iif(NEW.valid, 'valid', 'invalid'), '') BEGIN INSERT INTO tallies VALUES ('blocks', '', iif(OLD.valid, 'valid', 'invalid'), '', -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('blocks', '', iif(NEW.valid, 'valid', 'invalid'), '', +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_trials_insert AFTER INSERT ON trials  BEGIN INSERT INTO tallies VALUES ('trials', '', NEW.outcome, '', +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_trials_delete AFTER DELETE ON trials  BEGIN INSERT INTO tallies VALUES ('trials', '', OLD.outcome, '', -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

CREATE TRIGGER tally_trials_update AFTER UPDATE ON trials WHEN ('', OLD.outcome, '') <> ('', NEW.outcome, '') BEGIN INSERT INTO tallies VALUES ('trials', '', OLD.outcome, '', -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('trials', '', NEW.outcome, '', +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END
