"""A journal as some weeks of work leave it, with all verdicts and findings in all states; and the dashboard over it."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import remotes
import sqlalchemy as sa
import statusd

from aibenchd import board, events, model, planning, settings
from aibenchd.api import server
from aibenchd.store import planning as stored
from aibenchd.store import schema, store
from aibenchd.submissions import kept

REVISIONS = 60
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6 * REVISIONS)
MODELS = {"mobilenet_v2": 9_100.0, "resnet50": 48_300.0, "squeezenet": 7_400.0, "transformer": 21_900.0}  # us
DEVICES = {"lab-host": ("cpu",), "phone-a": ("cpu", "opengl")}
PLACES = DEVICES | {"gpu-box": ("cuda",)}  # of which one has never been reached
SUBJECTS = (
    "Fuse the bias into the convolution",
    "Tidy up the allocator's statistics",
    "Read weights through a memory map",
    "A test of odd paddings",
    "Keep activations of each layer for the profiler",
    "Choose tiles by the cache's size",
    "Documentation: how operators are registered",
    "Do not zero what is written at once",
)
OPERATORS = ("conv1/7x7_s2", "res2a_branch2b", "res3d_branch2c", "pool5", "fc1000", "softmax")
PROFILED = {
    "aten::conv2d": 1_900.0,
    "void gemm_kernel<float, 4, true>(Panel const&, Panel&, unsigned long)": 310.5,
    "memset": -20.0,
}
SCHEDULED = {
    "profiler": "Perfetto scheduling",
    "per": "process",
    "unit": "us",
    "rows": [
        {"name": "migrations to another CPU", "control": 3.0, "treatment": 41.0, "change": 38.0, "within": 0.0, "unit": ""},
        {"name": "running", "control": 812000.0, "treatment": 830000.0, "change": 18000.0, "within": 0.0},
    ],
    "files": {arm: f"logs/profile/1-{arm}.perfetto-trace.gz" for arm in ("treatment", "control")},
}
SAMPLED = SCHEDULED | {
    "profiler": "Perfetto samples",
    "rows": [{"name": "copy", "control": 9.0, "treatment": 5.0, "change": -4.0, "within": 7.0, "told": False}],
    "samples": {"control": 1012, "treatment": 15},
}
HOSTILE = "<script>alert('subject')</script>&\"' x"


def commit(number: int) -> str:
    return f"{random.Random(number).getrandbits(160):040x}"


@dataclass
class Weeks:
    """Writes it. ``now`` is when the last experiment was decided."""

    tx: store.Transaction

    def write(self) -> None:
        builds = [statusd.build(self.tx, commit(number), digest=f"{number:064x}", log="") for number in range(REVISIONS)]
        self.builds = builds
        for number in range(REVISIONS):
            subject = HOSTILE if number == REVISIONS - 2 else SUBJECTS[number % len(SUBJECTS)]
            more = {"time": BEGAN + timedelta(hours=6 * number), "subject": subject, "author": "Kim <kim@example.org>"}
            statusd.revision(self.tx, commit(number), number, **more)
        row = {"name": "engine", "head": commit(REVISIONS - 1), "polled_at": datetime.now(UTC)}
        self.tx.connection.execute(schema.repositories.insert().values(row))
        self.fingerprints = {name: self._fingerprint(name) for name in DEVICES}
        self.made: dict[tuple[str, str, str, int], int] = {}
        for number in range(1, REVISIONS):
            pair = statusd.pair(self.tx, commit(number), commit(number - 1))
            for name, (device, backend) in self._cells():
                self._compared(pair, name, device, backend, number)
        self._waiting()
        self._findings()

    def _cells(self) -> list[tuple[str, tuple[str, str]]]:
        return [(name, (device, backend)) for name in MODELS for device, backends in DEVICES.items() for backend in backends]

    def _truth(self, name: str, device: str, backend: str, number: int) -> tuple[str, float]:
        """The verdict of a commit in a cell, and what it changes."""
        rng = random.Random(f"{name}{device}{backend}{number}")
        if name == "resnet50" and number == 24:
            return "regressed", 0.062
        if name == "mobilenet_v2" and device == "phone-a" and number == 52:
            return "regressed", 0.035
        if name == "squeezenet" and number == 41:
            return "improved", -0.094
        if name == "transformer" and backend == "opengl" and number >= REVISIONS - 2:
            return "broken", math.nan
        if rng.random() < 0.04:
            return "inconclusive", rng.gauss(0.006, 0.004)
        if rng.random() < 0.08:
            return "identical", 0.0
        return "unchanged", rng.gauss(0, 0.0025)

    def _level(self, name: str, device: str, backend: str, number: int) -> float:
        """What a commit takes, in us."""
        changes = (self._truth(name, device, backend, one)[1] for one in range(1, number + 1))
        return MODELS[name] * math.prod(1 + change for change in changes if not math.isnan(change) and abs(change) > 0.03)

    def _compared(self, pair: int, name: str, device: str, backend: str, number: int, **more: Any) -> int:
        verdict, change = self._truth(name, device, backend, number)
        half = 0.0 if verdict == "identical" else 0.006 if verdict != "inconclusive" else 0.024
        at, before = BEGAN + timedelta(hours=6 * number + 1), self._level(name, device, backend, number - 1)
        count = 0 if verdict == "identical" else 60 if verdict == "inconclusive" else 12
        estimate = None if math.isnan(change) else change
        facts = {
            "benchmark": digest(name),
            "identifier": name,
            "model": name,
            "device": device,
            "backend": backend,
            "control_build": self.builds[number - 1],
            "design": design(name, backend),
            "state": "decided",
            "verdict": verdict,
            "reason": "exit code 139 (SIGSEGV) in glDispatchCompute" if verdict == "broken" else "",
            "estimate": estimate,
            "low": None if estimate is None else estimate - half,
            "high": None if estimate is None else estimate + half,
            "blocks": count,
            "created_at": at - timedelta(minutes=9),
            "started_at": at - timedelta(minutes=8),
            "decided_at": at,
        }
        made = statusd.experiment(self.tx, pair, self.builds[number], **facts | more)
        self.made[name, device, backend, number] = made
        if count and (number > REVISIONS - 4 or verdict in ("regressed", "improved")):
            self._blocks(made, before, device, change, count, at, broken=verdict == "broken")
        if count:
            self._results(made, before, change, broken=verdict == "broken")
        return made

    def _blocks(self, of: int, level: float, device: str, change: float, count: int, at: datetime, *, broken: bool) -> None:
        rng = random.Random(of)
        ratios: list[float] = []
        for number in range(count):
            drift = 1 + 0.01 * math.sin(number / 5)
            control = level * drift * (1 + rng.gauss(0, 0.004))
            treatment = None if broken else level * drift * (1 + change) * (1 + rng.gauss(0, 0.004))
            ratios += [] if treatment is None else [math.log(treatment / control)]
            mean, half = statistics.fmean(ratios or [0]), 0.02 / math.sqrt(number + 1)
            begun = at - timedelta(seconds=30 * (count - number))
            row = {"experiment": of, "number": number, "order": rng.choice(("TC", "CT")), "valid": not broken}
            row |= {"treatment": treatment, "control": control, "started_at": begun, "finished_at": begun + timedelta(seconds=25)}
            row |= {"estimate": mean, "low": mean - half, "high": mean + half} if ratios else {}
            row |= {"fingerprint": self.fingerprints[device], "conditions": {}}
            self.tx.connection.execute(schema.blocks.insert().values(row))
            for arm, taken in (("treatment", treatment), ("control", control)):
                self._trial(of, number, arm, taken, begun, rng)

    def _trial(self, of: int, number: int, arm: str, level: float | None, begun: datetime, rng: random.Random) -> None:
        failed = level is None
        facts = {"experiment": of, "block": number, "arm": arm, "seconds": 11.2, "started_at": begun, "backend": "cpu"}
        facts |= {"outcome": "failed", "reason": "exit code 139", "log": "logs/1.txt"} if failed else {"outcome": "ok"}
        trial = self.tx.connection.execute(schema.trials.insert().values(facts).returning(schema.trials.c.id)).scalar_one()
        if not failed:
            values = [
                round(level * (1.004 + abs(rng.gauss(0, 0.012)) + (0.08 if rng.random() < 0.03 else 0)), 1) for _ in range(30)
            ]
            sample = {"trial": trial, "type": "NET", "metric": "latency", "unit": "us", "values": values}
            self.tx.connection.execute(schema.samples.insert().values(sample))

    def _results(self, of: int, base: float, change: float, *, broken: bool) -> None:
        after = base if broken else base * (1 + change)
        rows = [("NET", "latency", "us", after, base), ("NET", "cpu_time", "us", after * 1.9, base * 1.9)]
        rows += [
            (operator, "latency", "us", base / 9 * (1 + (4 * change if operator == "conv1/7x7_s2" else 0)), base / 9)
            for operator in OPERATORS
        ]
        rows += [
            ("PROCESS", "peak_memory", "B", 412e6 * (1 + change), 412e6),
            ("ERROR probabilities", "max_absolute", "", 2.4e-7, 2.4e-7),
        ]
        for kind, metric, unit, treatment, control in rows:
            row = {"experiment": of, "type": kind, "metric": metric, "unit": unit}
            numbers = {
                "treatment": None if broken else {"p50": treatment, "mean": treatment},
                "control": {"p50": control, "mean": control},
            }
            self.tx.connection.execute(schema.results.insert().values(row | numbers))

    def _waiting(self) -> None:
        failed = {"state": "failed", "reason": "build.sh: exit code 2: conv.cc:214: error: expected ';'", "log": "logs/build.txt"}
        statusd.build(self.tx, commit(58), platform="android", queued_at=BEGAN + timedelta(hours=6 * 58), **failed)
        statusd.build(self.tx, commit(59), platform="android", queued_at=datetime.now(UTC), state="building")
        asked = {
            "repository": "engine",
            "treatment": commit(58),
            "control": commit(40),
            "benchmarks": ["resnet50"],
            "devices": [],
        }
        asked |= {"state": "planned", "requested_by": "kim", "created_at": datetime.now(UTC) - timedelta(minutes=3)}
        request = self.tx.connection.execute(schema.requests.insert().values(asked).returning(schema.requests.c.id)).scalar_one()
        pair = statusd.pair(self.tx, commit(58), commit(40), request=request)
        for state, device in (("open", "lab-host"), ("waiting", "phone-a")):
            facts = {
                "state": state,
                "verdict": None,
                "decided_at": None,
                "estimate": 0.011,
                "low": -0.01,
                "high": 0.031,
                "blocks": 4,
            }
            facts |= (
                {"started_at": datetime.now(UTC) - timedelta(minutes=2)}
                if state == "open"
                else {"started_at": None, "estimate": None}
            )
            self._compared(pair, "resnet50", device, "cpu", 58, **facts)

    def _findings(self) -> None:
        found = self.made["resnet50", "lab-host", "cpu", 24]
        at = BEGAN + timedelta(hours=6 * 24 + 1)
        verify = {"run_type": "verify"}
        pair = statusd.pair(self.tx, commit(24), commit(23), **verify)
        explained = {
            "unit": "us",
            "network": {"change": 2994.0, "low": 2700.0, "high": 3290.0},
            "operators": [operator(*named) for named in enumerate(OPERATORS)],
            "rest": {"name": "rest", "status": "no change shown", "change": 12.0, "low": -90.0, "high": 110.0, "share": None},
            "quantities": [
                {
                    "key": "PROCESS peak_memory",
                    "unit": "B",
                    "control": 412e6,
                    "change": 25.5e6,
                    "low": 24e6,
                    "high": 27e6,
                    "share": None,
                }
            ],
        }
        culprit = {
            "within": [commit(25)],
            "commits": [commit(24)],
            "probability": 0.984,
            "effect": 0.061,
            "low": 0.055,
            "high": 0.067,
        }
        culprits = {
            "culprits": [culprit],
            "probability": 0.984,
            "commits": 1,
            "blocks": 0,
            "builds": 0,
            "by_commit": {commit(24): 0.984},
        }
        first = statusd.finding(
            self.tx,
            found,
            state="open",
            search="found",
            culprits=culprits,
            explained=explained,
            evidence=9.4,
            found_at=at,
            verified_at=at,
        )
        verify = self._compared(pair, "resnet50", "lab-host", "cpu", 24, finding=first)
        rows = [{"name": name, "control": 812.0, "treatment": 812.0 + took, "change": took} for name, took in PROFILED.items()]
        profile = {
            "profiler": "perf",
            "per": "run",
            "unit": "us",
            "rows": rows,
            "files": {"control": "logs/profile/1-control.perf.txt.gz"},
            "also": [SCHEDULED, SAMPLED],
            "unread": [],
        }
        made = {"finding": first, "experiment": verify, "facts": profile, "reason": "", "made_at": at}
        self.tx.connection.execute(schema.profiles.insert().values(made))
        self.tx.connection.execute(
            schema.sightings.insert().values(experiment=self.made["resnet50", "phone-a", "cpu", 24], finding=first)
        )
        spread = {commit(52): 0.46, commit(51): 0.27, commit(50): 0.14, commit(49): 0.08, commit(48): 0.05}
        running = {"culprits": [], "probability": 0.46, "commits": 8, "blocks": 31, "builds": 4, "by_commit": spread}
        times = {"found_at": BEGAN + timedelta(hours=6 * 52 + 2), "verified_at": BEGAN + timedelta(hours=6 * 52 + 3)}
        told = running | {"devices": {"phone-a": 31, "phone-b": 24}}
        facts = {"state": "open", "search": "running", "culprits": told, "evidence": 6.1} | times
        second = statusd.finding(self.tx, self.made["mobilenet_v2", "phone-a", "cpu", 52], **facts)
        for number in (50, 51):
            step = statusd.pair(self.tx, commit(number), commit(48), run_type="regress")
            self._compared(step, "mobilenet_v2", "phone-a", "cpu", number, finding=second, verdict="measured")
        statusd.finding(
            self.tx,
            self.made["resnet50", "phone-a", "opengl", 24],
            state="refuted",
            reason="measured again: unchanged (+0.1%)",
            found_at=at,
        )
        statusd.finding(
            self.tx, self.made["transformer", "phone-a", "opengl", 58], state="unconfirmed",
            reason="measured again: regressed (+2.9%), but not surely enough for one of 3 of its commit",
            found_at=datetime.now(UTC) - timedelta(hours=7),
        )  # fmt: skip
        statusd.finding(self.tx, self.made["mobilenet_v2", "phone-a", "opengl", 52], state="suspect", found_at=datetime.now(UTC))

    def _fingerprint(self, name: str) -> int:
        facts = {
            "hash": f"{name}-0042",
            "abi": "x86_64",
            "os": "Debian 13",
            "cpu": "AMD EPYC 7543P",
            "kernel": "6.12.9",
            "governor": "performance",
        }
        row = {"device": name, "digest": name, "facts": facts}
        found: int = self.tx.connection.execute(
            schema.fingerprints.insert().values(row).returning(schema.fingerprints.c.id)
        ).scalar_one()
        seen = {"name": name, "fingerprint": found, "seen_at": datetime.now(UTC), "experiment": 1, "block_at": datetime.now(UTC)}
        self.tx.connection.execute(schema.devices.insert().values(seen))
        return found


def operator(place: int, name: str) -> dict[str, Any]:
    """What one of them adds to the time; the first two do."""
    change, status = 2_900.0 / (place + 1), "slower" if place < 2 else "no change shown"
    return {
        "name": name,
        "status": status,
        "change": change,
        "low": 0.86 * change,
        "high": 1.14 * change,
        "share": 0.9 / 9**place,
    }


def digest(name: str) -> str:
    return sa.util.md5_hex(name) * 2


def design(name: str, backend: str) -> Any:
    benchmark = model.Benchmark({"name": name, "framework": "pytorch"}, {"identifier": name, "metric": "delay", "iter": 30})
    return stored.design_json(model.Design(benchmark, "pytorch", model.Rule(), backend=backend, seed=1))


class Controls(statusd.Controls):
    """Of a lab with these cells; a request is as good as planned."""

    def cells(self) -> Sequence[server.Cell]:
        return [
            statusd.cell(
                benchmark=name,
                benchmark_digest=digest(name),
                model=name,
                row=name,
                device=device,
                backend=backend,
                impossible=impossible,
            )
            for name in MODELS
            for device, backends in PLACES.items()
            for backend in backends
            for impossible in ("the framework cannot be asked for cuda" if backend == "cuda" and name == "transformer" else "",)
        ]

    async def compare(self, wanted: planning.Comparison) -> int:
        await super().compare(wanted)
        return 1


@dataclass
class Dashboard:
    """One that answers at ``url``."""

    url: str
    house: server.House
    controls: statusd.Controls


_WRITTEN: list[bytes] = []  # it takes seconds, and many tests read the same


async def written() -> bytes:
    """Such a journal's file."""
    if not _WRITTEN:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "journal.db"
            async with store.opened(path, events.Events()) as journal:
                await journal.write(lambda tx: Weeks(tx).write())
            _WRITTEN.append(path.read_bytes())
    return _WRITTEN[0]


@contextlib.asynccontextmanager
async def serving(directory: Path, token_file: Path | None = None) -> AsyncIterator[Dashboard]:
    """The status socket and the dashboard over such a journal."""
    (directory / "journal.db").write_bytes(await written())
    async with over(directory, lambda _: None, Controls(), token_file) as dashboard:
        yield dashboard


@contextlib.asynccontextmanager
async def over(
    directory: Path, fill: Callable[[store.Transaction], None], controls: statusd.Controls, token_file: Path | None = None
) -> AsyncIterator[Dashboard]:
    """Both over the journal that lies in a directory, with what ``fill`` adds to it."""
    told = events.Events()
    port = remotes.free_port()
    at = {"listen": f"127.0.0.1:{port}", "token_file": token_file}
    devices = [{"name": name, "kind": "local", "backends": list(backends)} for name, backends in PLACES.items()]
    chosen = settings.Settings.model_validate(statusd.CONFIGURATION | {"dashboard": at, "devices": devices})
    async with store.opened(directory / "journal.db", told) as journal:
        await journal.write(fill)
        house = server.House(
            journal, noticed(told), told, lambda: chosen, controls, directory, kept.Kept(directory / "submissions")
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve, house, directory / "aibenchd.sock")
            yield Dashboard(f"http://127.0.0.1:{port}", house, controls)
            tasks.cancel_scope.cancel()


def noticed(told: events.Events) -> board.Board:
    made = board.Board(told)
    made.put("device/lab-host", "busy", "resnet50, block 5 of experiment 713")
    made.put("device/phone-a", "idle", "")
    made.put("repository/engine", "watching", "")
    made.put("repository/other", "unreachable", "Could not resolve host: example.org; tried again in 4m", fault=True)
    made.put("sink/lab", "paused", "401 Unauthorized: look at its token_file; its records are kept", fault=True)
    return made
