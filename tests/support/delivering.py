"""A process that journals blocks with their records and delivers them, as the daemon does: ``delivering.py JOURNAL URL BLOCKS``.

Run again after a crash, it goes on at the block after the last that was journalled; it ends when all is delivered.
"""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio

from aibenchd import board, events, model
from aibenchd.report import http, outbox, records
from aibenchd.store import meta, schema, store
from aibenchd.store import outbox as stored

EXPERIMENT = 7
TIME = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = outbox.Policy(linger=0.005, retry=(0.001, 0.01), probe=(0.001, 0.01))


def measured(installation: str, number: int) -> list[model.Record]:
    """The records of one block: two metrics."""
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "net"})
    experiment = records.Experiment(
        installation=installation,
        id=EXPERIMENT,
        repository="engine",
        run_type=model.RunType.BENCHMARK,
        treatment=records.Commit("a" * 40, TIME),
        control=None,
        design=model.Design(benchmark, "generic", model.Rule()),
        decided_on="NET latency",
        platform="host",
        device=records.Device("lab"),
    )
    series = tuple(model.Series(type_, "latency", "us", (float(number),)) for type_ in ("NET", "ID_0_Conv"))
    trial = model.Trial(model.ArmName.TREATMENT, model.Outcome.OK, TIME, series=series)
    return records.samples_records(experiment, model.Block(number, (trial,)), time=TIME)


def journal_block(tx: store.Transaction, blocks: int) -> bool:
    """Journal the next block; whether there is one more to come."""
    table = schema.meta
    done = int(tx.connection.scalar(table.select().with_only_columns(table.c.value).where(table.c.key == "blocks")) or 0)
    if done >= blocks:
        return False
    stored.put(tx, [("sink", "all")], measured(meta.installation(tx), done))
    tx.connection.execute(table.delete().where(table.c.key == "blocks"))
    tx.connection.execute(table.insert().values(key="blocks", value=str(done + 1)))
    return True


async def main(path: Path, url: str, blocks: int) -> None:
    told = events.Events()
    settings = http.Http.Settings.model_validate({"name": "sink", "kind": "http", "url": url, "batch_records": 5})
    async with store.opened(path, told) as journal, anyio.create_task_group() as tasks:
        deliverer = outbox.Deliverer(http.Http(settings, path.parent), journal, board.Board(told), random.Random(1), QUICK)
        tasks.start_soon(deliverer.run)
        while await journal.write(lambda tx: journal_block(tx, blocks)):
            pass
        while await journal.read(stored.depths):
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
