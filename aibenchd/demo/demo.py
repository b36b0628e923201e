"""Runs the demonstration: a remote, the daemon, a receiver; shows what happens, and checks what was found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpx
from aiohttp import web

import aibenchd
from aibenchd import model
from aibenchd.demo import history, onnxruntime_engine, pytorch_engine
from aibenchd.oneshot import exits
from aibenchd.oneshot.exits import Exit

TIMEOUT = 900.0  # seconds; a machine on which it takes longer is too slow to tell anything
STOP_TIMEOUT = 60.0
DECIDED_ON = "NET latency"
FRAMEWORKS = Path(aibenchd.__file__).parents[1] / "specifications" / "frameworks"

# Five pairs are decided by the test. Three are no change, and each is called one at most with probability ALPHA; two are
# changes of more than four margins, and each is called unchanged at most with BETA: 3 * 0.001 + 2 * 0.003 < 1 %.
ALPHA, BETA, MARGIN = 0.001, 0.003, 0.1

AGAIN = (model.RunType.REGRESS, model.RunType.VERIFY)  # of what measures a regression again: that it is confirmed comes first

ENGINES = {engine.framework: engine for engine in (pytorch_engine.PYTORCH, onnxruntime_engine.ONNXRUNTIME)}


@dataclass(slots=True)
class Receiver:
    """A remote HTTP sink: keeps each record once, by its id."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrived: anyio.Event = field(default_factory=anyio.Event)

    async def take(self, request: web.Request) -> web.Response:
        """Handle one batch of a sink of kind http."""
        body = json.loads(await request.read())
        for record in body["records"]:
            self.records[record["id"]] = record
        self.arrived.set()
        return web.json_response({"count": len(body["records"])})

    def verdicts(self, run_type: model.RunType = model.RunType.BENCHMARK) -> dict[str, dict[str, Any]]:
        """By commit, the record of the metric that is decided on, of runs of this type."""
        return {
            record["commit"]: record
            for record in self.records.values()
            if record["kind"] == "verdict" and record["key"] == DECIDED_ON and record["run_type"] == run_type
        }

    async def until_all(self, commits: Sequence[str]) -> None:
        """Wait until every commit has its verdict, and what regressed has been measured again."""
        while not (self.verdicts().keys() >= set(commits) and self._verified()):
            self.arrived = anyio.Event()
            await self.arrived.wait()

    def _verified(self) -> bool:
        regressed = {commit for commit, record in self.verdicts().items() if record["verdict"] == model.Verdict.REGRESSED}
        verified = self.verdicts(model.RunType.VERIFY)
        refuted = {commit for commit, record in verified.items() if record["verdict"] != model.Verdict.REGRESSED}
        return regressed <= refuted | self.verdicts(model.RunType.REGRESS).keys()


async def run(directory: Path, framework: str) -> int:
    """Run it in a new ``directory``; its exit code, as :func:`conclude` has it."""
    began = time.monotonic()
    engine = ENGINES[framework]
    await anyio.Path(directory).mkdir(parents=True)
    commits = await anyio.to_thread.run_sync(history.write, engine.commits, directory / "remote.git", directory / "work")
    say(f"{len(commits)} revisions of a small engine on {framework} lie in {directory / 'remote.git'}")
    receiver = Receiver()
    async with listening(receiver) as url:
        configuration = write_configuration(directory, engine, commits[0], url)
        async with daemon(configuration, directory / "daemon.log"):
            say(f"the daemon watches it; its status: aibenchctl -s {directory / 'aibenchd.sock'} status")
            finished = await follow(directory / "aibenchd.sock", receiver, commits)
    if not finished:
        say(f"not finished after {TIMEOUT:.0f} s; see {directory / 'daemon.log'}")
    say(f"took {time.monotonic() - began:.0f} s")
    return conclude(directory, engine, commits, receiver)


@dataclass(frozen=True, slots=True)
class Judged:
    """One line of the end: what was found of a revision beside what had to be.

    Attributes:
        exit: what the demo ends with where this is all there is.
        told: in words, behind the revision's name.
    """

    exit: Exit
    told: str


def conclude(directory: Path, engine: history.Engine, commits: Sequence[str], receiver: Receiver) -> int:
    """Print what was found beside what had to be; the exit code: of what is wrong, else of what is undecided, else 0."""
    from aibenchd.demo import plot

    verdicts, found = receiver.verdicts(), []
    for commit, made in zip(commits, engine.commits, strict=True):
        lines = [*judged(commit, made, receiver)]
        say(f"{commit[:10]}  {made.subject[:52]:52}  {lines[0].told}")
        for line in lines[1:]:
            say(f"{'':10}  {'measured again':52}  {line.told}")
        found += [line.exit for line in lines]
    picture = directory / "ratios.svg"
    plot.ratios(picture, [(made.subject, verdicts.get(commit)) for commit, made in zip(commits, engine.commits, strict=True)])
    say(f"ratio per revision, with its interval: {picture}")
    say(summary(found))
    return exits.worst(found)


def judged(commit: str, made: history.Commit, receiver: Receiver) -> Iterator[Judged]:
    """What was found of one revision, and where it was found to have regressed, what came of measuring it again."""
    first, expected = receiver.verdicts().get(commit), made.expected or model.Verdict.MEASURED
    yield _judged(first, expected)
    if _verdict(first) == model.Verdict.REGRESSED:
        confirmed, verified = (receiver.verdicts(run_type).get(commit) for run_type in AGAIN)
        yield _judged(confirmed or verified, expected)


def _judged(record: dict[str, Any] | None, expected: model.Verdict) -> Judged:
    found = _verdict(record)
    if found == expected:
        mark, code = "as it should be", Exit.SUCCESS
    elif found in ("", model.Verdict.INCONCLUSIVE):  # no answer is no wrong one
        mark, code = f"NOT DECIDED: expected {expected}", Exit.INCONCLUSIVE
    else:
        mark, code = f"WRONG: expected {expected}", Exit.USER_ERROR
    return Judged(code, f"{called(found or 'nothing'):24} {interval(record):28} {mark}")


def _verdict(record: dict[str, Any] | None) -> str:
    """Empty where there is none."""
    return "" if record is None else str(record["verdict"])


def summary(found: Collection[Exit]) -> str:
    """The last line: whether all is as it should be, and what to do where it is not."""
    wrong, open_ones = (sum(one is code for one in found) for code in (Exit.USER_ERROR, Exit.INCONCLUSIVE))
    if wrong:
        return f"{wrong} WRONG: aibenchd called what is not so; please report it, with the demo's directory"
    if open_ones:
        return (
            f"{open_ones} not decided, none wrong: this machine is too busy or too noisy for a change of {MARGIN:.0%}; "
            "run the demo again when it is idle"
        )
    return "exactly the right revisions were called"


def called(verdict: str) -> str:
    """A verdict for a person: *unchanged* is meant of changes that matter here."""
    return f"{verdict}, by under {MARGIN:.0%}" if verdict == model.Verdict.UNCHANGED else verdict


def interval(record: dict[str, Any] | None) -> str:
    """A record's estimate and interval, for a person; a side that has no bound yet is open, and none is shown without any."""
    if record is None or record["estimate"] is None:
        return ""
    if record["low"] is None and record["high"] is None:
        return f"{record['estimate']:+7.1%}"
    low, high = (f"{side:+.1%}" if side is not None else "?" for side in (record["low"], record["high"]))
    return f"{record['estimate']:+7.1%} ({low} to {high})"


def specification(engine: history.Engine) -> model.JsonObject:
    """The model file."""
    return {
        "model": {"name": "squeezenet", "format": engine.framework, "framework": engine.framework, "category": "CNN"},
        "tests": [
            {
                "identifier": "squeezenet",
                "metric": "delay",
                "iter": engine.iterations,
                "warmup": 2,
                "commands": [engine.command],
            }
        ],
    }


def write_configuration(directory: Path, engine: history.Engine, start_at: str, url: str) -> Path:
    """The YAML file and the specification that the daemon is given; JSON is YAML."""
    written = directory / "squeezenet.json"
    written.write_text(json.dumps(specification(engine), indent=2))
    cpus = sorted(os.sched_getaffinity(0))
    path = directory / "aibenchd.yaml"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "state_directory": "state",
                "repositories": [
                    {
                        "name": "engine",
                        "url": str(directory / "remote.git"),
                        "framework": engine.framework,
                        "start_at": start_at,
                        "poll_interval": "5s",
                        "backlog": len(engine.commits),
                    }
                ],
                "builds": {"frameworks_directory": str(FRAMEWORKS)},
                "devices": [{"name": "this-host", "kind": "local", "cpus": cpus[-1:]}],
                "benchmarks": [{"specification": written.name}],
                "experiment": {"alpha": ALPHA, "beta": BETA, "min_effect": MARGIN, "max_blocks": 60},
                "creep": {"enabled": False},  # eight commits have none
                "selfcheck": {"share": 0},
                "sinks": [{"name": "receiver", "kind": "http", "url": url}],
                "status": {"socket": "aibenchd.sock"},
            },
            indent=2,
        )
    )
    return path


@contextlib.asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    """Serve the receiver on a free port of loopback; its URL."""
    application = web.Application(client_max_size=64 << 20)
    application.router.add_post("/records", receiver.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/records"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


@contextlib.asynccontextmanager
async def daemon(configuration: Path, log: Path) -> AsyncIterator[anyio.abc.Process]:
    """The real daemon, as a process of its own; told to stop at the end."""
    with log.open("wb") as output:
        process = await anyio.open_process(
            [sys.executable, "-m", "aibenchd", "serve", str(configuration)], stdin=None, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
                with anyio.move_on_after(STOP_TIMEOUT):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def follow(socket: Path, receiver: Receiver, commits: Sequence[str]) -> bool:
    """Show what the daemon tells until all verdicts have arrived; whether they did in time."""
    with anyio.move_on_after(TIMEOUT) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(show_events, socket)
            await receiver.until_all(commits)
            tasks.cancel_scope.cancel()
    return not scope.cancelled_caught


async def show_events(socket: Path) -> None:
    """Print the daemon's events as they come."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket), retries=10)  # half a minute in all, for the daemon to begin
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://aibenchd", timeout=None) as client,  # noqa: S113
        client.stream("GET", "/v1/events") as response,
    ):
        topic = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                topic = line.removeprefix("event: ")
            elif line.startswith("data: "):
                for text in told(topic, json.loads(line.removeprefix("data: "))):
                    say(text)


def told(topic: str, event: dict[str, Any]) -> Iterator[str]:
    """An event in words; nothing where it would only be noise."""
    facts = event.get("facts", event)
    match topic:
        case "build.finished" | "build.failed":
            yield f"{facts['commit'][:10]}  {topic.replace('.', ' ')}"
        case "block.done":
            yield f"experiment {facts['experiment']}, block {facts['block']}: {interval(facts)}"
        case "experiment.decided":
            yield f"experiment {facts['id']}: {called(str(facts['verdict']))} {interval(facts)}"


def say(text: str) -> None:
    """One line for who watches."""
    print(text, flush=True)  # noqa: T201
