-- Device time: what an experiment is expected to take still, and what that makes of a device's queue. Indexes for what the planner asks.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

ALTER TABLE noises ADD COLUMN degrees FLOAT

ALTER TABLE noises ADD COLUMN expected FLOAT

ALTER TABLE noises ADD COLUMN seconds FLOAT

ALTER TABLE experiments ADD COLUMN blocks_left INTEGER

ALTER TABLE experiments ADD COLUMN seconds_left INTEGER

ALTER TABLE experiments ADD COLUMN wave INTEGER DEFAULT '0' NOT NULL

ALTER TABLE experiments ADD COLUMN out_of_reach BOOLEAN DEFAULT '0' NOT NULL

DROP INDEX experiments_next

CREATE INDEX experiments_next ON experiments (device, state, priority DESC, out_of_reach, pair DESC, wave, round, turn)

CREATE INDEX experiments_undecided ON experiments (pair, device) WHERE state IN ('waiting', 'open')

CREATE INDEX experiments_bad ON experiments (pair) WHERE verdict IN ('regressed', 'broken')

CREATE INDEX experiments_orphaned ON experiments (pair) WHERE reason = 'the control does not build'

CREATE INDEX builds_made ON builds (repository, framework, platform) WHERE finished_at IS NOT NULL AND state IN ('built', 'evicted')

CREATE TABLE queues (
    device TEXT NOT NULL,
    experiments INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    PRIMARY KEY (device)
)
 WITHOUT ROWID

CREATE TRIGGER queue_insert AFTER INSERT ON experiments BEGIN INSERT INTO queues SELECT NEW.device, 1, NEW.blocks_left, NEW.seconds_left WHERE NEW.state IN ('waiting', 'open') AND NEW.seconds_left IS NOT NULL ON CONFLICT (device) DO UPDATE SET experiments = experiments + 1, blocks = blocks + excluded.blocks, seconds = seconds + excluded.seconds; END

CREATE TRIGGER queue_delete AFTER DELETE ON experiments BEGIN UPDATE queues SET experiments = experiments - 1, blocks = blocks - OLD.blocks_left, seconds = seconds - OLD.seconds_left WHERE device = OLD.device AND OLD.state IN ('waiting', 'open') AND OLD.seconds_left IS NOT NULL; END

CREATE TRIGGER queue_update AFTER UPDATE OF device, state, blocks_left, seconds_left ON experiments BEGIN UPDATE queues SET experiments = experiments - 1, blocks = blocks - OLD.blocks_left, seconds = seconds - OLD.seconds_left WHERE device = OLD.device AND OLD.state IN ('waiting', 'open') AND OLD.seconds_left IS NOT NULL; INSERT INTO queues SELECT NEW.device, 1, NEW.blocks_left, NEW.seconds_left WHERE NEW.state IN ('waiting', 'open') AND NEW.seconds_left IS NOT NULL ON CONFLICT (device) DO UPDATE SET experiments = experiments + 1, blocks = blocks + excluded.blocks, seconds = seconds + excluded.seconds; END
