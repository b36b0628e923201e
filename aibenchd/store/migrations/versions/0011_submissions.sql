-- Programs that people built and sent.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

CREATE TABLE submissions (
    request INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    note TEXT NOT NULL,
    names JSON NOT NULL,
    specification TEXT NOT NULL,
    PRIMARY KEY (request),
    FOREIGN KEY(request) REFERENCES requests (id)
)

DROP TRIGGER tally_experiments_insert

CREATE TRIGGER tally_experiments_insert AFTER INSERT ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

DROP TRIGGER tally_experiments_delete

CREATE TRIGGER tally_experiments_delete AFTER DELETE ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

DROP TRIGGER tally_experiments_update

CREATE TRIGGER tally_experiments_update AFTER UPDATE ON experiments WHEN (OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE OLD.verdict END END) <> (NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE NEW.verdict END END) BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' WHEN 'submission' THEN 'submitted' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END
