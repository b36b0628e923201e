-- What both arms of a confirmed regression do under a profiler.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

CREATE TABLE profiles (
    finding INTEGER NOT NULL,
    experiment INTEGER NOT NULL,
    facts JSON,
    reason TEXT NOT NULL,
    made_at FLOAT,
    PRIMARY KEY (finding),
    FOREIGN KEY(finding) REFERENCES findings (id),
    FOREIGN KEY(experiment) REFERENCES experiments (id)
)

CREATE INDEX profiles_to_read ON profiles (finding) WHERE made_at IS NULL

DROP TRIGGER tally_experiments_insert

CREATE TRIGGER tally_experiments_insert AFTER INSERT ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END

DROP TRIGGER tally_experiments_delete

CREATE TRIGGER tally_experiments_delete AFTER DELETE ON experiments  BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1; END

DROP TRIGGER tally_experiments_update

CREATE TRIGGER tally_experiments_update AFTER UPDATE ON experiments WHEN (OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE OLD.verdict END END) <> (NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE NEW.verdict END END) BEGIN INSERT INTO tallies VALUES ('experiments', OLD.device, OLD.state, CASE WHEN OLD.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = OLD.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE OLD.verdict END END, -1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows -1;INSERT INTO tallies VALUES ('experiments', NEW.device, NEW.state, CASE WHEN NEW.verdict IS NULL THEN '' ELSE CASE (SELECT run_type FROM pairs WHERE id = NEW.pair) WHEN 'compare' THEN 'compared' WHEN 'verify' THEN 'verified' WHEN 'regress' THEN 'bisected' WHEN 'anchor' THEN 'anchored' WHEN 'selfcheck' THEN 'self-checked' WHEN 'profile' THEN 'profiled' ELSE NEW.verdict END END, +1) ON CONFLICT (what, device, state, verdict) DO UPDATE SET rows = rows +1; END
