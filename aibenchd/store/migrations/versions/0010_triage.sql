-- Triage: what people make of findings, who did and why.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

ALTER TABLE findings ADD COLUMN triage TEXT DEFAULT '' NOT NULL

ALTER TABLE findings ADD COLUMN muted_until FLOAT

CREATE TABLE triages (
    id INTEGER NOT NULL,
    finding INTEGER NOT NULL,
    action TEXT NOT NULL,
    "by" TEXT NOT NULL,
    why TEXT NOT NULL,
    until FLOAT,
    state TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(finding) REFERENCES findings (id)
)

CREATE INDEX triages_of_finding ON triages (finding)
