"""What there is to show: the journal, the notice board and the configuration, side by side.

A *reading* takes what a request asks for and gives a question to the journal. Its answer is what the status socket says as
JSON, and what the dashboard makes a page of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import anyio
import pydantic
import sqlalchemy as sa
from aiohttp import web

from aibenchd import board, model, redaction, settings
from aibenchd.api import answers, apart, matrix, metrics, server
from aibenchd.devices import base as devices_base
from aibenchd.plan import suspicion
from aibenchd.store import cell_facts, finding_views, noises, outbox, paging, selfchecks, series, views

QUERY_SECONDS = 5.0  # of one question to the journal
AT_ONCE = 2  # questions to the journal: the rooms read it too
RECENT = 10  # verdicts in the status
DEAD_LETTERS = 20  # of each sink
LEAVING = "leaving"  # the state of a device that a reload removed, until its block in flight has ended


class NoiseQuery(pydantic.BaseModel):
    """Of which device; of all where none is named."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    device: str | None = None


HOUSE = web.AppKey("house", server.House)
LIMITER = web.AppKey("limiter", anyio.CapacityLimiter)

T = TypeVar("T")
Question: TypeAlias = Callable[[sa.Connection], paging.Item]
Reading: TypeAlias = Callable[[web.Request], Question]  # raises Refusal where the request asks for what cannot be


def shown(reading: Reading) -> answers.Handler:
    """The handler that answers with a reading, as JSON."""

    async def handler(request: web.Request) -> web.Response:
        question = reading(request)
        # Encoded on the reader's thread too: a page of a thousand takes longer than the loop may be held up.
        return answers.json_response(await asked(request, lambda connection: answers.dumps(question(connection))))

    return handler


async def asked(request: web.Request, question: Callable[[sa.Connection], T]) -> T:
    """The answer of the journal, on a reader's thread.

    Raises:
        QueryTooSlowError: it takes longer than :data:`QUERY_SECONDS`.
    """

    def query(connection: sa.Connection) -> T:
        with paging.deadline(connection, QUERY_SECONDS):
            return question(connection)

    async with request.app[LIMITER]:
        return await request.app[HOUSE].store.read(query)


def status(request: web.Request) -> Question:
    """The whole of it at a glance, faults first."""
    house = request.app[HOUSE]
    facts = {"faults": [_notice(notice) for notice in house.board.notices() if notice.fault], **house.controls.status()}
    models = [{"name": name, **_state(notice)} for name, notice in _by_name(house.board, "model").items()]

    def view(connection: sa.Connection) -> paging.Item:
        counts = views.counts(connection)
        return {
            **facts,
            "repositories": _repositories(house, views.repositories(connection)),
            "devices": _devices(house, connection, counts),
            "experiments": counts.by_state(),
            "verdicts": counts.by_verdict(),
            "findings": finding_views.finding_states(connection),
            "selfcheck": selfchecks.rate(selfchecks.counts(connection)),
            "builds": dict(counts.builds),
            "sinks": _sinks(house, outbox.depths(connection)),
            "models": models,
            "recent": views.verdicts(connection, RECENT),
        }

    return view


def devices(request: web.Request) -> Question:
    """Each device: what it is, what it does, how it is, and what waits for it."""
    house = request.app[HOUSE]
    return lambda connection: {"devices": _devices(house, connection, views.counts(connection))}


def noise(request: web.Request) -> Question:
    """How noisy each benchmark is on each device, or on the one that is named, and the smallest change that is found there."""
    device = answers.parsed(NoiseQuery, request.query).device
    if device is not None:
        answers.known("device", device, [one.name for one in request.app[HOUSE].settings().devices])
    return lambda connection: {"noise": noises.listing(connection, device)}


def sinks(request: web.Request) -> Question:
    """Each sink with its state, what waits for it, and its oldest dead letters."""
    house = request.app[HOUSE]

    def view(connection: sa.Connection) -> paging.Item:
        listed = _sinks(house, outbox.depths(connection))
        for sink in listed:
            letters = outbox.dead_letters(connection, sink["name"], DEAD_LETTERS)
            sink["dead_letters"] = [
                {
                    "record": letter.record.id,
                    "kind": letter.record.kind,
                    "reason": letter.reason,
                    "created_at": letter.created_at.isoformat(),
                }
                for letter in letters
            ]
        return {"sinks": listed}

    return view


def coverage(request: web.Request) -> Question:
    """Every configured cell: how fast it is, or why that is not known; see :mod:`aibenchd.api.matrix`."""
    controls = request.app[HOUSE].controls

    def view(connection: sa.Connection) -> paging.Item:
        cells = controls.cells()
        shown = cells[: cell_facts.CELLS]
        return {"coverage": cells_as_known(connection, shown), "left_out": len(cells) - len(shown)}

    return view


def cells_as_known(connection: sa.Connection, cells: Sequence[server.Cell]) -> list[paging.Item]:
    """Each of these cells with what the journal knows of it; :data:`cell_facts.CELLS` at most."""
    known = cell_facts.coverage(connection, {(cell.repository, cell.benchmark_digest) for cell in cells})
    return matrix.answer(cells, known)


def history(request: web.Request, asked: type[views.HistoryQuery] = views.HistoryQuery) -> Question:
    """One benchmark on one device; where that is one series, with the level of each commit and whether it creeps.

    Levels begin where the benchmark's specification was last changed.
    """
    house = request.app[HOUSE]

    def view(connection: sa.Connection, query: views.HistoryQuery) -> paging.Item:
        page = views.history(connection, query)
        _check_metric(connection, query, page["history"])
        return page | {"series": _levels(connection, page["history"], house.settings())}

    return listed(asked, view)(request)


def _levels(connection: sa.Connection, shown: Sequence[paging.Item], chosen: settings.Settings) -> model.JsonObject | None:
    if len({(item["repository"], item["backend"]) for item in shown}) != 1:
        return None
    newest = shown[0]
    cell = suspicion.Cell(*(newest[name] for name in ("repository", "benchmark_digest", "device", "backend", "benchmark")))
    from aibenchd import creeping  # it imports numpy

    return creeping.levels(series.of_cell(connection, cell), chosen.creep)


async def config(request: web.Request) -> web.Response:
    """The settings in force, with whatever looks like a secret masked."""
    chosen = request.app[HOUSE].settings().model_dump(mode="json")
    return answers.json_response(answers.dumps(redaction.processor(None, "", chosen)))


async def metrics_text(request: web.Request) -> web.Response:
    """For Prometheus."""
    house = request.app[HOUSE]
    notices = house.board.notices()

    def view(connection: sa.Connection) -> bytes:
        return metrics.text(views.counts(connection), views.queues(connection), outbox.depths(connection), notices).encode()

    body = await asked(request, view)
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


def listed(shape: type[paging.Page], view: Callable[[sa.Connection, Any], paging.Item]) -> Reading:
    """The reading of a list, whose parameters are ``shape``'s; where nothing is found, 404 names what there is not."""

    def reading(request: web.Request) -> Question:
        query = answers.parsed(shape, request.query)
        house = request.app[HOUSE]

        def found(connection: sa.Connection) -> paging.Item:
            answer = view(connection, query)
            if not any(answer.values()):
                _check_names(house, connection, query)
            return _with_absent(house, answer)

        return found

    return reading


def single(kind: str, view: Callable[[sa.Connection, int], paging.Item | None]) -> Reading:
    """The reading of one thing by its number."""

    def reading(request: web.Request) -> Question:
        number = int(request.match_info["id"])
        house = request.app[HOUSE]

        def found(connection: sa.Connection) -> paging.Item:
            item = view(connection, number)
            if item is None:
                raise answers.Refusal(404, f"there is no {kind} {number}", f"'aibenchctl {kind}s' lists them")
            return _with_absent(house, item)

        return found

    return reading


experiments = listed(views.ExperimentQuery, views.experiments)
experiment = single("experiment", views.experiment)
revisions = listed(views.RevisionQuery, views.revisions)
findings = listed(finding_views.FindingQuery, finding_views.findings)
builds = listed(views.BuildQuery, views.builds)
requests = listed(paging.Page, views.requests)
request_of = single("request", apart.request)


def finding(request: web.Request) -> Question:
    """One finding, with what is still ``coming`` of it."""
    chosen = request.app[HOUSE].settings()

    def view(connection: sa.Connection, number: int) -> paging.Item | None:
        item = finding_views.finding(connection, number)
        if item is not None:
            searched, profiled = chosen.bisect.enabled, chosen.verify.profile
            item["coming"] = finding_views.coming(connection, item, searched=searched, profiled=profiled)
        return item

    return single("finding", view)(request)


def _check_names(house: server.House, connection: sa.Connection, query: paging.Page) -> None:
    """Whether what a query names is configured, or was once: the journal knows what no configuration has any more.

    Raises:
        Refusal: 404, naming the first that never was.
    """
    for kind, name in query.model_dump(include={"repository", "device", "benchmark"}, exclude_none=True).items():
        if not _measured(connection, kind, name):
            answers.known(kind, name, _names(house, kind, name))


def _check_metric(connection: sa.Connection, query: views.HistoryQuery, shown: Sequence[paging.Item]) -> None:
    """Whether what a query names was measured of one of those shown, where anything was.

    Raises:
        Refusal: 404, naming what was.
    """
    if query.metric is None or any(item["results"] for item in shown):
        return
    whole = views.history(connection, query.model_copy(update={"metric": None}))["history"]
    if metrics := {result["metric"] for item in whole for result in item["results"]}:
        answers.known("metric", query.metric, metrics)


def _measured(connection: sa.Connection, kind: str, name: str) -> bool:
    if kind == "repository":
        return name in views.repositories(connection)
    return bool(views.experiments(connection, views.ExperimentQuery.model_validate({kind: name, "limit": 1}))["experiments"])


def _names(house: server.House, kind: str, name: str) -> set[str]:
    """All that the configuration has of a kind; of benchmarks, ``name`` too where it is the digest of one."""
    if kind == "benchmark":
        cells = house.controls.cells()
        return {cell.benchmark for cell in cells} | {name for cell in cells if cell.benchmark_digest == name}
    configured = house.settings().repositories if kind == "repository" else house.settings().devices
    return {one.name for one in configured}


def _with_absent(house: server.House, answer: paging.Item) -> paging.Item:
    """An experiment, or a list of them, where those whose device the configuration has no longer say what they wait for.

    The state of a finding, which may be open too, is another one.
    """
    present, leaving = {device.name for device in house.settings().devices}, _leaving(house)
    for item in (answer, *answer.get("experiments", ())):
        if "suspect" not in item and item.get("state") in ("waiting", "open") and item.get("device", "") not in present:
            ends = ", and ends its block in flight" if item["device"] in leaving else ""
            absent = f"device {item['device']} is not in the configuration any more{ends}; it goes on once that has it again"
            item["reason"] = "; ".join(filter(None, (absent, item["reason"])))
    return answer


def _repositories(house: server.House, known: Mapping[str, paging.Item]) -> list[paging.Item]:
    notices = _by_name(house.board, "repository")
    return [
        {
            "name": repository.name,
            "kind": repository.kind,
            "url": redaction.text(repository.url),
            "branch": repository.branch,
            **_state(notices.get(repository.name)),
            **{key: value for key, value in known.get(repository.name, {}).items() if key != "name"},
        }
        for repository in house.settings().repositories
    ]


def _devices(house: server.House, connection: sa.Connection, counts: views.Counts) -> list[paging.Item]:
    known, smallest, queues = views.devices(connection), noises.smallest_by_device(connection), views.queues(connection)
    notices = _by_name(house.board, "device")
    never: paging.Item = {"fingerprint": {}, "seen_at": None, "last_block": None}
    configured: dict[str, paging.Item] = {
        device.name: {
            "kind": device.kind,
            "platform": device.platform,
            "tags": list(device.tags),
            "backends": list(device.backends),
            **_state(notices.get(device.name)),
        }
        for device in house.settings().devices
    }
    unknown: paging.Item = {"kind": "", "platform": "", "tags": [], "backends": []}
    leaving = {name: {**unknown, **_state(notices[name]), "state": LEAVING} for name in sorted(_leaving(house))}
    return [
        {
            "name": name,
            **facts,
            **_health(notices, name),
            **_identity(known.get(name, never)),
            "experiments": counts.by_state(name),
            "smallest": smallest.get(name),  # change that is found: of the quietest benchmark, and of the noisiest
            "left": left if (left := queues.get(name)) and left["experiments"] else None,  # what it is expected to be busy with
        }
        for name, facts in (configured | leaving).items()
    ]


def _leaving(house: server.House) -> set[str]:
    """Devices that the configuration has no longer, and that have not let go of their block in flight yet."""
    at_work = {name for name in _by_name(house.board, "device") if "/" not in name}
    return at_work - {device.name for device in house.settings().devices}


def _health(notices: Mapping[str, board.Notice], name: str) -> paging.Item:
    """Whether it let us down of late, and what about it makes figures vary, with what mends that."""
    failing, hazards = notices.get(f"{name}/health"), notices.get(f"{name}/hazards")
    return {
        "health": failing.state if failing else "good" if name in notices else "unknown",
        "hazards": hazards.state.split(", ") if hazards else [],
        "advice": hazards.reason.splitlines() if hazards else [],
    }


def _identity(known: paging.Item) -> paging.Item:
    facts = known["fingerprint"]
    named = {name: facts.get(name, "") for name in ("hash", "abi", "os")}
    return {**named, "model": devices_base.model_of(facts), **known}


def _sinks(house: server.House, depths: list[outbox.Depth]) -> list[paging.Item]:
    notices = _by_name(house.board, "sink")

    def total(sink: str, state: str) -> tuple[int, int]:
        found = [depth for depth in depths if (depth.sink, depth.state) == (sink, state)]
        return sum(depth.records for depth in found), sum(depth.bytes for depth in found)

    listed = []
    for sink in house.settings().sinks:
        (pending, size), (dead, _) = total(sink.name, outbox.PENDING), total(sink.name, outbox.DEAD)
        facts = {"name": sink.name, "kind": sink.kind, **_state(notices.get(sink.name))}
        listed.append(facts | {"pending": pending, "pending_bytes": size, "dead": dead})
    return listed


def _by_name(noted: board.Board, kind: str) -> dict[str, board.Notice]:
    return {notice.unit.partition("/")[2]: notice for notice in noted.notices(kind)}


def _notice(notice: board.Notice) -> paging.Item:
    return {"unit": notice.unit, **_state(notice)}


def _state(notice: board.Notice | None) -> paging.Item:
    if notice is None:
        return {"state": "unknown", "reason": "", "fault": False, "since": None}
    return {"state": notice.state, "reason": notice.reason, "fault": notice.fault, "since": notice.since.isoformat()}
