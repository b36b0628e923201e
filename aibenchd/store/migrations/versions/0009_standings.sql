-- How each commit stands, and when that may have changed; the experiment that shows a finding to be gone.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

ALTER TABLE findings ADD COLUMN mended INTEGER

CREATE TABLE standings (
    repository TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    told TEXT NOT NULL,
    number INTEGER NOT NULL,
    stale BOOLEAN NOT NULL,
    PRIMARY KEY (repository, "commit")
)
 WITHOUT ROWID

CREATE INDEX standings_stale ON standings (repository) WHERE stale

CREATE TRIGGER standings_planned AFTER INSERT ON pairs WHEN NEW.run_type = 'benchmark' AND NEW.request IS NULL BEGIN INSERT INTO standings VALUES (NEW.repository, NEW.treatment, '', 0, 1) ON CONFLICT DO UPDATE SET stale = 1; END

CREATE TRIGGER standings_ended AFTER UPDATE OF state ON experiments WHEN NEW.state <> OLD.state AND NEW.state IN ('decided', 'skipped', 'cancelled') BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = (SELECT repository, treatment FROM pairs WHERE run_type = 'benchmark' AND request IS NULL AND id = (SELECT pair FROM experiments WHERE id = NEW.id)); END

CREATE TRIGGER standings_found AFTER INSERT ON findings BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = (SELECT repository, treatment FROM pairs WHERE run_type = 'benchmark' AND request IS NULL AND id = (SELECT pair FROM experiments WHERE id = NEW.suspect)); END

CREATE TRIGGER standings_settled AFTER UPDATE OF state ON findings WHEN NEW.state <> OLD.state BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = (SELECT repository, treatment FROM pairs WHERE run_type = 'benchmark' AND request IS NULL AND id = (SELECT pair FROM experiments WHERE id = NEW.suspect)); END

CREATE TRIGGER standings_sighted AFTER INSERT ON sightings BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = (SELECT repository, treatment FROM pairs WHERE run_type = 'benchmark' AND request IS NULL AND id = (SELECT pair FROM experiments WHERE id = NEW.experiment)); END

CREATE TRIGGER standings_unsighted AFTER DELETE ON sightings BEGIN UPDATE standings SET stale = 1 WHERE (repository, "commit") = (SELECT repository, treatment FROM pairs WHERE run_type = 'benchmark' AND request IS NULL AND id = (SELECT pair FROM experiments WHERE id = OLD.experiment)); END
