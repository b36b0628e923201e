-- Findings: what regressed, what verifies it and what bisects it. Builds may have copies.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

CREATE TABLE builds_of_copies (
    id INTEGER NOT NULL,
    repository TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    framework TEXT NOT NULL,
    platform TEXT NOT NULL,
    copy INTEGER DEFAULT '0' NOT NULL,
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
    UNIQUE (repository, "commit", framework, platform, copy)
)

INSERT INTO builds_of_copies SELECT "id", "repository", "commit", "framework", "platform", 0, "state", "priority", "digest", "directory", "program", "size", "log", "reason", "meta", "queued_at", "started_at", "finished_at", "used_at" FROM builds

DROP TABLE builds

ALTER TABLE builds_of_copies RENAME TO builds

CREATE INDEX builds_by_state ON builds (state, priority)

DROP INDEX pairs_planned

CREATE INDEX pairs_planned ON pairs (repository, request, run_type, id)

ALTER TABLE experiments ADD COLUMN finding INTEGER

ALTER TABLE experiments ADD COLUMN quota INTEGER

CREATE INDEX experiments_of_finding ON experiments (finding) WHERE finding IS NOT NULL

CREATE INDEX pairs_of_selfchecks ON pairs (id) WHERE run_type = 'selfcheck'

CREATE TABLE findings (
    id INTEGER NOT NULL,
    suspect INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence FLOAT,
    search TEXT NOT NULL,
    culprits JSON,
    explained JSON,
    found_at FLOAT NOT NULL,
    verified_at FLOAT,
    PRIMARY KEY (id),
    UNIQUE (suspect),
    FOREIGN KEY(suspect) REFERENCES experiments (id)
)

CREATE INDEX findings_by_state ON findings (state, search)

CREATE TABLE sightings (
    experiment INTEGER NOT NULL,
    finding INTEGER NOT NULL,
    PRIMARY KEY (experiment),
    FOREIGN KEY(experiment) REFERENCES experiments (id),
    FOREIGN KEY(finding) REFERENCES findings (id)
)

CREATE INDEX sightings_of_finding ON sightings (finding)

CREATE TABLE noises (
    repository TEXT NOT NULL,
    device TEXT NOT NULL,
    benchmark TEXT NOT NULL,
    backend TEXT NOT NULL,
    identifier TEXT NOT NULL,
    blocks INTEGER NOT NULL,
    scale FLOAT,
    slot FLOAT,
    slot_low FLOAT,
    slot_high FLOAT,
    smallest FLOAT,
    measured_at FLOAT NOT NULL,
    PRIMARY KEY (repository, device, benchmark, backend)
)
 WITHOUT ROWID

INSERT INTO findings (suspect, state, reason, search, found_at)
SELECT e.id, 'unconfirmed', 'decided before regressions were measured again', '', coalesce(e.decided_at, e.created_at)
FROM experiments e JOIN pairs p ON p.id = e.pair
WHERE e.verdict IN ('regressed', 'broken') AND p.run_type = 'benchmark' ORDER BY e.id

DROP TRIGGER tally_experiments_insert

CREATE TRIGGER tally_experiments_insert AFTER INSERT ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

DROP TRIGGER tally_experiments_delete

CREATE TRIGGER tally_experiments_delete AFTER DELETE ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

DROP TRIGGER tally_experiments_update

CREATE TRIGGER tally_experiments_update AFTER UPDATE ON experiments WHEN (OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE OLD.verdict END END) <> (NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE NEW.verdict END END) BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

DROP TRIGGER cells_planned

CREATE TRIGGER cells_planned AFTER INSERT ON experiments BEGIN INSERT INTO cells SELECT repository, NEW.benchmark, NEW.device, NEW.backend, NEW.id, iif(NEW.verdict <> 'identical', NEW.id, NULL) FROM pairs WHERE id = NEW.pair AND run_type = 'benchmark' AND (request IS NULL OR treatment = (SELECT treatment FROM pairs newest WHERE newest.repository = pairs.repository AND newest.request IS NULL AND newest.run_type = 'benchmark' ORDER BY newest.id DESC LIMIT 1)) ON CONFLICT (repository, benchmark, device, backend) DO UPDATE SET newest = excluded.newest, decided = coalesce(excluded.decided, decided); END

DROP TRIGGER cells_decided

CREATE TRIGGER cells_decided AFTER UPDATE OF verdict ON experiments WHEN NEW.verdict <> 'identical' BEGIN UPDATE cells SET decided = max(coalesce(decided, 0), NEW.id) WHERE repository = (SELECT repository FROM pairs WHERE id = NEW.pair AND run_type = 'benchmark' AND (request IS NULL OR treatment = (SELECT treatment FROM pairs newest WHERE newest.repository = pairs.repository AND newest.request IS NULL AND newest.run_type = 'benchmark' ORDER BY newest.id DESC LIMIT 1))) AND benchmark = NEW.benchmark AND device = NEW.device AND backend = NEW.backend; END
