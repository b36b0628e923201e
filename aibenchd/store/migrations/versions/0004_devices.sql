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
