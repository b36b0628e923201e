"""What operators ask of the daemon through the status socket."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeAlias

import anyio.to_thread
import pydantic
import structlog
from aiohttp import web

from aibenchd import errors, model, planning
from aibenchd.api import answers, peers, reads, server
from aibenchd.store import builds, outbox, requests, store, triage, views

log = structlog.get_logger()

MUTE_LONGEST = timedelta(days=366)
SETTLE_SECONDS = 2.0  # that the planner has to refuse what is asked, before who asked is told that it is queued

PEER = web.RequestKey("peer", peers.Peer)
HELD_UP = ("paused", "retrying")  # states of a sink, as its deliverer puts them
READING = ("GET", "HEAD")
SUBMITTING = ("/v1/contents/{digest}", "/v1/submissions")  # paths, for who may send programs
CANCELLING = "/v1/requests/{id}/cancel"  # for who may do all, and for who asked: its handler looks at that


def _revision(text: str) -> str:
    if not re.fullmatch(r"[^\s-]\S*", text):  # it must not be an option of git or hg
        raise ValueError("expected a commit, branch or tag: one word that does not begin with '-'")
    return text


Revision: TypeAlias = Annotated[str, pydantic.Field(max_length=200), pydantic.AfterValidator(_revision)]
Names: TypeAlias = Annotated[list[Annotated[str, pydantic.Field(min_length=1, max_length=200)]], pydantic.Field(max_length=1_000)]

Place: TypeAlias = Annotated[str, pydantic.Field(min_length=1, max_length=200)]
Priority: TypeAlias = Annotated[int, pydantic.Field(ge=-(2**31), lt=2**31)]


class Ask(pydantic.BaseModel):
    """A body; without keys of its own it must be empty."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Comparison(Ask):
    """An A/B of two revisions; without a control, the repository's baseline rule names it."""

    treatment: Revision
    control: Revision | None = None
    repository: str | None = None
    benchmarks: Names = []
    devices: Names = []
    priority: Priority = 0


class CellComparison(Ask):
    """A model, and two of its cells, each as ``[framework@]device[/backend]``."""

    model: Place
    treatment: Place
    control: Place
    priority: Priority = 0


class Calibration(Ask):
    """Benchmarks that a device's noise is measured of, all without any; and in how many blocks."""

    repository: str | None = None
    benchmarks: Names = []
    blocks: Annotated[int, pydantic.Field(ge=6, le=1_000)] = 20


Why: TypeAlias = Annotated[str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000)]


class Remark(Ask):
    """Why, or what they will do, if they say."""

    why: Annotated[str, pydantic.StringConstraints(strip_whitespace=True, max_length=1_000)] = ""


class Acceptance(Ask):
    """A regression that is worth what it bought, or that the benchmark is wrong about: the new level is the baseline."""

    why: Why


class Mute(Ask):
    """Nothing more is to be heard of a finding until a day (its beginning, UTC) or a time."""

    why: Why
    until: datetime

    @pydantic.field_validator("until")
    @classmethod
    def _to_come(cls, until: datetime) -> datetime:
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        told, ahead = until.isoformat(" ", "minutes"), until - datetime.now(UTC)
        if ahead <= timedelta():
            raise ValueError(f"{told} is past; name a day or time to come")
        if ahead > MUTE_LONGEST:
            raise ValueError(
                f"{told} is more than {MUTE_LONGEST.days} days ahead; name an earlier day, or accept what is to last"
            )
        return until


class Backup(Ask):
    """The file to make, which must not be there yet; an absolute path, for the daemon writes it."""

    file: Path

    @pydantic.field_validator("file")
    @classmethod
    def _absolute(cls, file: Path) -> Path:
        if not file.is_absolute() or "\0" in str(file):
            raise ValueError("expected an absolute path: the daemon writes it, from its own directory")
        return file


@web.middleware
async def who_may(request: web.Request, handler: answers.Handler) -> web.StreamResponse:
    """Let only operators change things, and who may send programs send them."""
    if request.method in READING:
        return await handler(request)
    transport = request.transport
    if transport is None:  # who asked is gone already
        raise ConnectionResetError
    peer = peers.of(transport.get_extra_info("socket"))
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    settings = request.app[reads.HOUSE].settings()
    if path in SUBMITTING:
        await _judge(peer, "send programs", settings.submissions.groups, "submissions.groups")
    elif path != CANCELLING:
        await _judge(peer, "change anything", settings.status.operators, "status.operators")
    request[PEER] = peer
    log.info("asked", by=peer.name, pid=peer.pid, method=request.method, path=request.path)
    return await handler(request)


async def _judge(peer: peers.Peer, what: str, groups: Sequence[str], key: str) -> None:
    if not await anyio.to_thread.run_sync(peers.may_operate, peer, groups):
        raise answers.Refusal(403, f"{peer.name} may not {what} here", peers.way_in(groups, key))


async def reload(request: web.Request) -> web.Response:
    """What is different now; 422 with all faults where the configuration is bad, of which nothing is applied then."""
    await answers.body(request, Ask)
    result = await request.app[reads.HOUSE].controls.reload()
    if not result.applied:
        raise answers.Refusal(
            422,
            f"the configuration has {len(result.faults)} fault(s), and is not applied",
            "mend them, try 'aibenchd check', and reload again",
            faults=list(result.faults),
        )
    return done({"changes": list(result.changes)})


async def pause(request: web.Request) -> web.Response:
    """Have no block and no build begin from now on; what runs is finished."""
    await answers.body(request, Ask)
    await request.app[reads.HOUSE].controls.pause(request[PEER].name)
    return done({"paused": True})


async def resume(request: web.Request) -> web.Response:
    """Go on where a person had it pause; whatever else holds it back still does."""
    await answers.body(request, Ask)
    await request.app[reads.HOUSE].controls.resume(request[PEER].name)
    return done({"paused": False})


async def drain(request: web.Request) -> web.Response:
    """Have a device take no block after the one that runs, and undo what was changed on it; how it stands."""
    device = await _device(request)
    await request.app[reads.HOUSE].controls.drain(device, request[PEER].name)
    return done({"device": device, **_stands(request, f"device/{device}")})


async def undrain(request: web.Request) -> web.Response:
    """Have a device take blocks again; how it stands."""
    device = await _device(request)
    await request.app[reads.HOUSE].controls.undrain(device, request[PEER].name)
    return done({"device": device, **_stands(request, f"device/{device}")})


async def release(request: web.Request) -> web.Response:
    """``released`` is false where there was nothing to release it from; ``was`` and ``state`` say how it was and is."""
    device = await _device(request)
    was = _stands(request, f"device/{device}")["state"]
    released = await request.app[reads.HOUSE].controls.release(device, request[PEER].name)
    return done({"device": device, "released": released, "was": was, **_stands(request, f"device/{device}")})


async def compare(request: web.Request) -> web.Response:
    """Queue a comparison; 202 with its number, by which ``GET /v1/requests/{id}`` tells how it goes.

    409 where the planner refuses it at once, as it does what the clone knows no revision of.
    """
    house = request.app[reads.HOUSE]
    wanted = await answers.body(request, Comparison)
    repository = _repository(house, wanted.repository)
    for device in wanted.devices:
        answers.known("device", device, [device.name for device in house.settings().devices])
    if wanted.benchmarks:
        await _benchmarks(house, wanted.benchmarks)

    def add(tx: store.Transaction) -> int:
        return requests.add(
            tx,
            repository=repository,
            treatment=wanted.treatment,
            control=wanted.control or "",
            benchmarks=wanted.benchmarks,
            devices=wanted.devices,
            priority=wanted.priority,
            requested_by=request[PEER].name,
        )

    with house.events.bell("request.planned", "request.refused") as bell:
        number = await house.store.write(add)
        with anyio.move_on_after(SETTLE_SECONDS):
            while not await _settled(house, number):
                await bell.wait()
    return done({"request": number, "repository": repository, "see": f"/v1/requests/{number}"}, status=202)


async def compare_cells(request: web.Request) -> web.Response:
    """Plan a comparison of two cells; 202 with its number, as :func:`compare`."""
    body = await answers.body(request, CellComparison)
    number = await compared(request.app[reads.HOUSE], body, request[PEER].name)
    return done({"request": number, "see": f"/v1/requests/{number}"}, status=202)


async def compared(house: server.House, body: CellComparison, by: str) -> int:
    """Plan a comparison of two cells; the number of the request.

    Raises:
        Refusal: 409, it cannot be done.
    """
    try:
        return await house.controls.compare(planning.Comparison(body.model, body.treatment, body.control, body.priority, by))
    except errors.CommandError as error:
        raise answers.Refusal(409, str(error), "'aibenchctl coverage' shows all cells") from error


async def calibrate(request: web.Request) -> web.Response:
    """Plan to compare a commit with itself on a device; 202 with the number of the request."""
    body = await answers.body(request, Calibration)
    house = request.app[reads.HOUSE]
    device = answers.known("device", request.match_info["name"], [device.name for device in house.settings().devices])
    wanted = planning.Calibration(device, body.repository or "", body.benchmarks, body.blocks, request[PEER].name)
    try:
        number = await house.controls.calibrate(wanted)
    except errors.CommandError as error:
        raise answers.Refusal(409, str(error), "'aibenchctl coverage' shows what is measured where") from error
    return done({"request": number, "see": f"/v1/requests/{number}"}, status=202)


async def resend(request: web.Request) -> web.Response:
    """Queue the dead letters of a sink again, in as many transactions as it takes; where it takes none now, why."""
    await answers.body(request, Ask)
    house = request.app[reads.HOUSE]
    sink = answers.known("sink", request.match_info["name"], [sink.name for sink in house.settings().sinks])
    depths = await house.store.read(outbox.depths)
    # Those that die again meanwhile wait for the next time.
    left = sum(depth.records for depth in depths if (depth.sink, depth.state) == (sink, outbox.DEAD))
    resent = 0
    while resent < left and (moved := await house.store.write(lambda tx: outbox.resend(tx, sink))):
        resent += moved
    return done({"sink": sink, "resent": resent, **_held_up(request, sink)})


async def rebuild(request: web.Request) -> web.Response:
    """Queue a failed build again; 409 where there is no such build, or it has not failed."""
    await answers.body(request, Ask)
    number = int(request.match_info["id"])
    if not await request.app[reads.HOUSE].store.write(lambda tx: builds.rebuild(tx, number)):
        raise answers.Refusal(409, f"there is no failed build {number}", "'aibenchctl builds --state failed' lists them")
    return done({"build": number, "state": "queued"})


async def backup(request: web.Request) -> web.Response:
    """Copy the live journal into a new file."""
    wanted = await answers.body(request, Backup)
    await request.app[reads.HOUSE].store.backup(wanted.file)
    size = await anyio.to_thread.run_sync(lambda: wanted.file.stat().st_size)
    return done({"file": str(wanted.file), "bytes": size})


TRIAGES: Mapping[str, type[Remark | Acceptance | Mute]] = {
    triage.ACKNOWLEDGE: Remark,
    triage.ACCEPT: Acceptance,
    triage.MUTE: Mute,
    triage.REOPEN: Remark,
}


def triaging(action: str) -> answers.Handler:
    """The handler of what somebody makes of a finding."""

    async def handler(request: web.Request) -> web.Response:
        body = await answers.body(request, TRIAGES[action])
        return done(await triaged(request.app[reads.HOUSE], int(request.match_info["id"]), action, body, request[PEER].name))

    return handler


async def triaged(
    house: server.House, finding: int, action: str, said: Remark | Acceptance | Mute, by: str
) -> dict[str, model.Json]:
    """Make something of a finding; what it is now.

    Raises:
        TriageError: it cannot be made of this one.
    """
    until = said.until if isinstance(said, Mute) else None
    wanted = triage.Wanted(finding, action, by, said.why, until)
    await house.store.write(lambda tx: triage.apply(tx, wanted, datetime.now(UTC)))
    return {"finding": finding, "state": triage.DONE[action], "until": until.isoformat() if until else ""}


def _stands(request: web.Request, unit: str) -> model.JsonObject:
    """The ``state`` of a unit of the board now, and its ``reason``."""
    notice = next((one for one in request.app[reads.HOUSE].board.notices() if one.unit == unit), None)
    return {"state": notice.state if notice else "unknown", "reason": notice.reason if notice else ""}


def _held_up(request: web.Request, sink: str) -> model.JsonObject:
    """The ``state`` of a sink that takes no records now, and its ``reason``; nothing where it does."""
    stands = _stands(request, f"sink/{sink}")
    return stands if stands["state"] in HELD_UP else {}


async def _device(request: web.Request) -> str:
    await answers.body(request, Ask)
    settings = request.app[reads.HOUSE].settings()
    return answers.known("device", request.match_info["name"], [device.name for device in settings.devices])


async def _benchmarks(house: server.House, globs: Collection[str]) -> None:
    """Whether each names a benchmark, or matches one.

    Raises:
        Refusal: 404, naming the first that does not.
    """
    cells = await anyio.to_thread.run_sync(house.controls.cells)
    names = {cell.benchmark for cell in cells}
    for glob in globs:
        if not fnmatch.filter(names, glob):
            answers.known("benchmark", glob, names)


async def _settled(house: server.House, number: int) -> bool:
    """Whether the planner has taken a request.

    Raises:
        Refusal: 409, it has refused it.
    """
    found = await house.store.read(lambda connection: views.request(connection, number))
    if found is not None and found["state"] == "refused":
        raise answers.Refusal(409, f"request {number} is refused: {found['reason']}")
    return found is None or found["state"] != "new"


def _repository(house: server.House, name: str | None) -> str:
    names = [repository.name for repository in house.settings().repositories]
    if name is not None:
        return answers.known("repository", name, names)
    if len(names) != 1:
        raise answers.Refusal(400, "repository: which of them is meant?", f"name one of {', '.join(names) or 'none'}")
    return names[0]


def done(facts: model.JsonObject, status: int = 200) -> web.Response:
    """What was done, as the answer to who asked for it."""
    return answers.json_response(answers.dumps(facts), status)
