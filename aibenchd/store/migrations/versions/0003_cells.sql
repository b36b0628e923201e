-- The cells of the coverage matrix, each with its newest experiments. Frozen, as 0001 is.
-- Statements are set apart by empty lines.

CREATE TABLE cells (
    repository TEXT NOT NULL,
    benchmark TEXT NOT NULL,
    device TEXT NOT NULL,
    backend TEXT NOT NULL,
    newest INTEGER NOT NULL,
    decided INTEGER,
    PRIMARY KEY (repository, benchmark, device, backend),
    FOREIGN KEY(newest) REFERENCES experiments (id),
    FOREIGN KEY(decided) REFERENCES experiments (id)
)
 WITHOUT ROWID

INSERT INTO cells
SELECT p.repository, e.benchmark, e.device, e.backend, max(e.id), max(iif(e.verdict <> 'identical', e.id, NULL))
FROM experiments e JOIN pairs p ON p.id = e.pair WHERE p.request IS NULL
GROUP BY p.repository, e.benchmark, e.device, e.backend

CREATE TRIGGER cells_planned AFTER INSERT ON experiments BEGIN INSERT INTO cells SELECT repository, NEW.benchmark, NEW.device, NEW.backend, NEW.id, iif(NEW.verdict <> 'identical', NEW.id, NULL) FROM pairs WHERE id = NEW.pair AND (request IS NULL OR run_type = 'benchmark' AND treatment = (SELECT treatment FROM pairs newest WHERE newest.repository = pairs.repository AND newest.request IS NULL ORDER BY newest.id DESC LIMIT 1)) ON CONFLICT (repository, benchmark, device, backend) DO UPDATE SET newest = excluded.newest, decided = coalesce(excluded.decided, decided); END

CREATE TRIGGER cells_decided AFTER UPDATE OF verdict ON experiments WHEN NEW.verdict <> 'identical' BEGIN UPDATE cells SET decided = max(coalesce(decided, 0), NEW.id) WHERE repository = (SELECT repository FROM pairs WHERE id = NEW.pair AND (request IS NULL OR run_type = 'benchmark' AND treatment = (SELECT treatment FROM pairs newest WHERE newest.repository = pairs.repository AND newest.request IS NULL ORDER BY newest.id DESC LIMIT 1))) AND benchmark = NEW.benchmark AND device = NEW.device AND backend = NEW.backend; END
