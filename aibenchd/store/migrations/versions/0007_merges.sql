-- Merges that were looked into, for the search of a commit at fault.
-- Frozen, as 0001 is. Statements are set apart by empty lines.

CREATE TABLE merges (
    repository TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    onto TEXT NOT NULL,
    sides JSON NOT NULL,
    PRIMARY KEY (repository, "commit", onto)
)
 WITHOUT ROWID
