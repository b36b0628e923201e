"""A status socket over a real journal, with a daemon behind it that only notes what it is told."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from aibenchd import board, errors, events, model, planning, settings
from aibenchd.api import server
from aibenchd.store import schema, store
from aibenchd.submissions import kept, submitting

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
DIGEST = "d" * 64
CONFIGURATION = {
    "repositories": [
        {"name": "engine", "url": "https://me:hunter2hunter2@example.org/engine.git", "framework": "pytorch"},
        {"name": "other", "url": "https://example.org/other.git", "framework": "pytorch"},
    ],
    "devices": [{"name": "lab-host", "kind": "local"}, {"name": "phone", "kind": "local"}],
    "sinks": [{"name": "lab", "kind": "http", "url": "http://localhost:1/"}],
    "status": {"operators": ["no-such-group"]},
}


@dataclass
class Controls:
    """Notes what is asked; answers by ``reloading``, ``comparing`` and ``submitting``."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    comparing: int | errors.CommandError = 1
    submitted: list[submitting.Wanted] = field(default_factory=list)
    submitting: submitting.Planned | submitting.Lacking | errors.CommandError = field(
        default_factory=lambda: submitting.Planned(1)
    )
    reloading: server.ReloadResult = field(default_factory=lambda: server.ReloadResult(True, ("device phone: added",)))

    def status(self) -> model.JsonObject:
        return {"version": "1.2.3", "started_at": NOW.isoformat(), "config": "/etc/aibenchd/aibenchd.yaml", "paused": False}

    def cells(self) -> Sequence[server.Cell]:
        return [cell(device=device) for device in ("lab-host", "phone")]

    async def calibrate(self, wanted: planning.Calibration) -> int:
        self.asked.append(("calibrate", wanted.device, *wanted.benchmarks, wanted.blocks, wanted.requested_by))
        if isinstance(self.comparing, errors.CommandError):
            raise self.comparing
        return self.comparing

    async def compare(self, wanted: planning.Comparison) -> int:
        self.asked.append(("compare", wanted.model, wanted.treatment, wanted.control, wanted.requested_by))
        if isinstance(self.comparing, errors.CommandError):
            raise self.comparing
        return self.comparing

    async def submit(self, wanted: submitting.Wanted) -> submitting.Planned | submitting.Lacking:
        self.submitted.append(wanted)
        if isinstance(self.submitting, errors.CommandError):
            raise self.submitting
        return self.submitting

    async def cancel(self, request: int, by: str) -> int:
        self.asked.append(("cancel", str(request), by))
        return 1

    async def reload(self) -> server.ReloadResult:
        return self.reloading

    async def pause(self, by: str) -> None:
        self.asked.append(("pause", by))

    async def resume(self, by: str) -> None:
        self.asked.append(("resume", by))

    async def drain(self, device: str, by: str) -> None:
        self.asked.append(("drain", device, by))

    async def undrain(self, device: str, by: str) -> None:
        self.asked.append(("undrain", device, by))

    async def release(self, device: str, by: str) -> bool:
        self.asked.append(("release", device, by))
        return False


def cell(**more: str) -> server.Cell:
    """A configured cell."""
    names = {"repository": "engine", "framework": "pytorch", "benchmark": "squeeze", "benchmark_digest": DIGEST, "model": "net"}
    return server.Cell(**names | {"metric": "delay", "row": "net", "device": "lab-host", "backend": "", "impossible": ""} | more)


@dataclass
class Daemon:
    """The socket at ``path``, and what is behind it; :meth:`configure` is a reload."""

    path: Path
    house: server.House
    controls: Controls
    configuration: settings.Settings

    def configure(self, **changes: Any) -> None:
        self.configuration = self.configuration.model_copy(update=changes)

    async def get(self, target: str) -> tuple[int, Any]:
        return await self._ask("GET", target)

    async def post(self, target: str, body: Any = None) -> tuple[int, Any]:
        return await self._ask("POST", target, data=None if body is None else json.dumps(body))

    async def _ask(self, method: str, target: str, **more: Any) -> tuple[int, Any]:
        async with self.client() as client, client.request(method, f"http://aibenchd{target}", **more) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if reply.content_type == "application/json" else text

    def client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(os.fspath(self.path)))


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Daemon]:
    """A daemon whose state directory is ``directory``."""
    told = events.Events()
    async with store.opened(directory / "journal.db", told) as journal:
        controls = Controls()
        house = server.House(
            journal,
            board.Board(told),
            told,
            lambda: made.configuration,
            controls,
            directory,
            kept.Kept(directory / "submissions"),
        )
        made = Daemon(directory / "aibenchd.sock", house, controls, settings.Settings.model_validate(CONFIGURATION))
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve, house, made.path)
            yield made
            tasks.cancel_scope.cancel()


def build(tx: store.Transaction, commit: str, **more: Any) -> int:
    row = {"repository": "engine", "framework": "pytorch", "platform": "host", "state": "built", "queued_at": NOW}
    return _insert(tx, schema.builds, row | {"commit": commit} | more)


def pair(tx: store.Transaction, treatment: str, control: str | None = None, **more: Any) -> int:
    row = {"repository": "engine", "run_type": "benchmark", "created_at": NOW}
    return _insert(tx, schema.pairs, row | {"treatment": treatment, "control": control} | more)


def experiment(tx: store.Transaction, of_pair: int, of_build: int, **more: Any) -> int:
    row = {
        "benchmark": DIGEST,
        "identifier": "squeeze",
        "model": "net",
        "device": "lab-host",
        "backend": "",
        "design": {"seed": 1, "rule": {}},
        "state": "open",
        "created_at": NOW,
    }
    return _insert(tx, schema.experiments, row | {"pair": of_pair, "treatment_build": of_build} | more)


def decided(verdict: str, minutes: float = 0.0) -> dict[str, Any]:
    """The columns of an experiment that ended so, so many minutes after :data:`NOW`."""
    at = NOW + timedelta(minutes=minutes)
    return {"state": "decided", "verdict": verdict, "estimate": 0.05, "low": 0.03, "high": 0.07, "decided_at": at}


def finding(tx: store.Transaction, suspect: int, **more: Any) -> int:
    return _insert(tx, schema.findings, {"suspect": suspect, "state": "suspect", "search": "", "found_at": NOW} | more)


def block(tx: store.Transaction, of: int, number: int, *, log: str = "") -> int:
    """One block with a trial per arm, of which the treatment's failed where it has a ``log``; the treatment's trial."""
    tx.connection.execute(
        schema.blocks.insert().values(
            experiment=of, number=number, order="CT", valid=not log, treatment=1.1, control=1.0, started_at=NOW, finished_at=NOW
        )
    )
    row = {"experiment": of, "block": number, "seconds": 1.0, "started_at": NOW, "outcome": "ok"}
    _insert(tx, schema.trials, row | {"arm": "control"})
    return _insert(tx, schema.trials, row | {"arm": "treatment", "outcome": "failed" if log else "ok", "log": log})


def revision(tx: store.Transaction, commit: str, position: int, **more: Any) -> int:
    row = {"repository": "engine", "parents": [], "author": "someone", "relevant": True, "state": "planned", "seen_at": NOW}
    own = {"commit": commit, "position": position, "time": NOW + timedelta(minutes=position), "subject": f"change {position}"}
    return _insert(tx, schema.revisions, row | own | more)


def _insert(tx: store.Transaction, table: Any, row: dict[str, Any]) -> int:
    number: int = tx.connection.execute(table.insert().values(row).returning(table.c.id)).scalar_one()
    return number
