-- What devices were when they were last reached, the fingerprint and stratum of each block, and trials that do not count.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

CREATE TABLE fingerprints (
    id INTEGER NOT NULL,
    device TEXT NOT NULL,
    digest TEXT NOT NULL,
    facts JSON NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (device, digest)
)

CREATE TABLE devices (
    name TEXT NOT NULL,
    fingerprint INTEGER NOT NULL,
    seen_at FLOAT NOT NULL,
    experiment INTEGER,
    block_at FLOAT,
    PRIMARY KEY (name),
    FOREIGN KEY(fingerprint) REFERENCES fingerprints (id)
)
 WITHOUT ROWID

CREATE TABLE exclusions (
    id INTEGER NOT NULL,
    experiment INTEGER NOT NULL,
    block INTEGER NOT NULL,
    arm TEXT NOT NULL,
    cause TEXT NOT NULL,
    reason TEXT NOT NULL,
    excluded_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(experiment) REFERENCES experiments (id)
)

CREATE INDEX exclusions_of_experiment ON exclusions (experiment)

ALTER TABLE blocks ADD COLUMN stratum INTEGER DEFAULT '0' NOT NULL

ALTER TABLE blocks ADD COLUMN fingerprint INTEGER REFERENCES fingerprints (id)

ALTER TABLE blocks ADD COLUMN conditions JSON

DROP TRIGGER tally_experiments_insert

DROP TRIGGER tally_experiments_delete

DROP TRIGGER tally_experiments_update

CREATE TRIGGER tally_experiments_update AFTER UPDATE ON experiments WHEN (OLD.device, OLD.state, iif(OLD.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = OLD.pair) = 'compare', 'compared', coalesce(OLD.verdict, ''))) <> (NEW.device, NEW.state, iif(NEW.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = NEW.pair) = 'compare', 'compared', coalesce(NEW.verdict, ''))) BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, iif(OLD.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = OLD.pair) = 'compare', 'compared', coalesce(OLD.verdict, '')), -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, iif(NEW.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = NEW.pair) = 'compare', 'compared', coalesce(NEW.verdict, '')), +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_experiments_insert AFTER INSERT ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, iif(NEW.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = NEW.pair) = 'compare', 'compared', coalesce(NEW.verdict, '')), +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

CREATE TRIGGER tally_experiments_delete AFTER DELETE ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, iif(OLD.verdict IS NOT NULL AND (SELECT run_type FROM pairs WHERE id = OLD.pair) = 'compare', 'compared', coalesce(OLD.verdict, '')), -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END
