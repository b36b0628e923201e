-- Summaries: how processes become numbers by what a cell's history says, and what their slow iterations show.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

ALTER TABLE experiments ADD COLUMN in_tail BOOLEAN DEFAULT '0' NOT NULL

ALTER TABLE noises ADD COLUMN summary JSON

ALTER TABLE noises ADD COLUMN chosen_at INTEGER

ALTER TABLE blocks ADD COLUMN treatment_tail FLOAT

ALTER TABLE blocks ADD COLUMN control_tail FLOAT
