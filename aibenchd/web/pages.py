"""The pages: which readings each is made of, and by which template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from aiohttp import web

from aibenchd.api import answers, reads, routes
from aibenchd.store import cell_facts, finding_views, paging, views
from aibenchd.web import charts, culprits, door, experimental, historical, render, tables

AROUND = 100  # commits, the newest, that a finding is shown among
HISTORIES = 300  # benchmarks that are listed
QUEUED = 12  # experiments that are shown of what runs, and of what waits


class History(views.HistoryQuery):
    """As its page is asked for it; ``range``: whether charts show what is far out too, which their script reads."""

    range: Literal["all"] | None = None


class Page(NamedTuple):
    """``reading`` says what is shown, ``template`` how; ``section`` is which entry of the head it belongs to."""

    path: str
    title: str
    section: str
    template: str
    reading: reads.Reading


def handler(page: Page) -> answers.Handler:
    """The handler that answers with a page."""

    async def answered(request: web.Request) -> web.StreamResponse:
        _without_empty(request)
        question = page.reading(request)
        frame = {**_frame(request), "title": page.title, "section": page.section}

        def made(connection: sa.Connection) -> str:
            return render.page(page.template, {**frame, "standing": _standing(request, connection), **question(connection)})

        return _response(request, await reads.asked(request, made))

    return answered


async def sign_in(request: web.Request) -> web.StreamResponse:
    """Where who is not known says who they are."""
    frame = _frame(request) | {"title": "Sign in", "section": "", "standing": None, "to": request.query.get("to", "/")}
    return _response(request, render.page("sign_in.html", frame))


def refused(request: web.Request, refusal: answers.Refusal) -> web.Response:
    """A page that says what is not done, and what to do."""
    frame = _frame(request) | {"title": HTTPStatus(refusal.status).phrase, "section": "", "standing": None, **refusal.body}
    return web.Response(text=render.page("refused.html", frame), status=refusal.status, content_type="text/html")


def now(request: web.Request) -> reads.Question:
    """What happens: devices, what waits for them, what was decided and found last, and what is wrong."""
    status = reads.status(request)

    def view(connection: sa.Connection) -> paging.Item:
        asked = (views.ExperimentQuery(state=state, limit=QUEUED) for state in ("open", "waiting"))
        running, waiting = (views.experiments(connection, query)["experiments"] for query in asked)
        building = views.builds(connection, views.BuildQuery(state="building", limit=QUEUED))["builds"]
        return {"status": status(connection), "running": running, "waiting": waiting, "building": building}

    return view


def experiments(request: web.Request) -> reads.Question:
    """Those that are asked for, newest first."""
    listed = reads.experiments(request)
    return lambda connection: listed(connection) | _choices(request)


def experiment(request: web.Request) -> reads.Question:
    """All about one."""
    single = reads.experiment(request)

    def view(connection: sa.Connection) -> paging.Item:
        item = single(connection)
        samples = views.samples(connection, item["id"])
        return {**item, "facts": item, **experimental.shown(item, samples), **_subjects(connection, item, ())}

    return view


def findings(request: web.Request) -> reads.Question:
    """Those that are asked for, newest first."""
    listed = reads.findings(request)
    return lambda connection: listed(connection) | _choices(request)


def finding(request: web.Request) -> reads.Question:
    """All about one, with what can be made of it."""
    single, min_effect = reads.finding(request), request.app[reads.HOUSE].settings().experiment.min_effect

    def view(connection: sa.Connection) -> paging.Item:
        item = single(connection)
        likely = culprits.likely(item["culprits"] or {})
        cell = {name: item[name] for name in ("device", "backend", "repository")}
        query = views.HistoryQuery(benchmark=item["benchmark_digest"], limit=AROUND, **cell)
        changes = charts.changes(views.history(connection, query)["history"], min_effect)
        today = datetime.now(UTC).date()
        days = {"tomorrow": (today + timedelta(days=1)).isoformat(), "next_week": (today + timedelta(days=7)).isoformat()}
        return {
            **item,
            "facts": item,
            "likely": likely,
            "changes": changes,
            "command": experimental.again(item),
            **days,
            **_subjects(connection, item, [name for one in likely for name in (one["commit"], *one["within"])]),
        }

    return view


def history(request: web.Request) -> reads.Question:
    """One benchmark on one device; where none is named, those that there are."""
    if "benchmark" not in request.query or "device" not in request.query:
        return _histories(request)
    read, min_effect = reads.history(request, History), request.app[reads.HOUSE].settings().experiment.min_effect

    def view(connection: sa.Connection) -> paging.Item:
        answer = read(connection)
        return {**answer, **historical.shown(answer, min_effect), **_choices(request), "backends": _backends(request)}

    return view


def builds(request: web.Request) -> reads.Question:
    """Those that are asked for, newest first."""
    listed = reads.builds(request)
    return lambda connection: listed(connection) | _choices(request)


def coverage(request: web.Request) -> reads.Question:
    """The part of the matrix that is asked for."""
    asked = answers.parsed(tables.Asked, request.query)
    house = request.app[reads.HOUSE]

    def view(connection: sa.Connection) -> paging.Item:
        configured = house.controls.cells()
        wanted = tables.named(configured, asked)
        part = tables.part(wanted, asked)
        shown = tables.matrix(reads.cells_as_known(connection, part[: cell_facts.CELLS]), asked)
        rows = shown["found"] if asked.state else len({cell.row for cell in wanted})
        pages = {"pages": -(-rows // tables.ROWS), "counts": shown["counts"] if len(part) == len(wanted) else {}}
        return (
            shown
            | pages
            | {"choices": tables.choices(configured), "states": tables.ALL, "left_out": max(0, len(part) - cell_facts.CELLS)}
        )

    return view


def _histories(request: web.Request) -> reads.Question:
    """The benchmarks by the devices that they are measured on; those whose names have what is asked for in them."""
    house = request.app[reads.HOUSE]
    part, device = request.query.get("benchmark", "").lower(), request.query.get("device")

    def view(_connection: sa.Connection) -> paging.Item:
        found: dict[str, dict[str, set[str]]] = {}
        for cell in house.controls.cells():
            if not cell.impossible and part in cell.benchmark.lower() and device in (None, cell.device):
                found.setdefault(cell.benchmark, {}).setdefault(cell.device, set()).add(cell.backend)
        columns = sorted({name for places in found.values() for name in places})
        named = sorted(found)[:HISTORIES]
        rows = [(name, [(column, sorted(found[name].get(column, ()))) for column in columns]) for name in named]
        return {"columns": columns, "rows": rows, "left_out": len(found) - len(named), **_choices(request)}

    return view


def _subjects(connection: sa.Connection, item: paging.Item, more: Sequence[str]) -> paging.Item:
    commits = {commit for commit in (item["treatment"], item["control"], *more) if commit}
    return {"subjects": views.subjects(connection, item["repository"], commits)}


def _choices(request: web.Request) -> paging.Item:
    """What can be chosen among."""
    chosen = request.app[reads.HOUSE].settings()
    return {
        "devices": [device.name for device in chosen.devices],
        "repositories": [repository.name for repository in chosen.repositories],
    }


def _backends(request: web.Request) -> list[str]:
    named = request.query["device"]
    return [
        backend for device in request.app[reads.HOUSE].settings().devices if device.name == named for backend in device.backends
    ]


def _frame(request: web.Request) -> dict[str, Any]:
    """What every page has."""
    session = request.get(door.SESSION)
    return {
        "query": dict(request.query),
        "older": lambda cursor: str(request.rel_url.update_query(cursor=str(cursor))),
        "narrowed": lambda **query: _narrowed(request, query),
        "signed_in": session.name if session else "",
        "key": request.app[door.DOOR].key_of(session) if session else "",
        "key_field": door.KEY,
    }


def _narrowed(request: web.Request, query: Mapping[str, Any]) -> str:
    """This page with other parameters, from its beginning; None takes one away."""
    told = {name: value for name, value in request.query.items() if name not in ("cursor", "page")} | dict(query)
    return str(request.rel_url.with_query({name: str(value) for name, value in told.items() if value is not None}))


def _standing(request: web.Request, connection: sa.Connection) -> Mapping[str, Any]:
    """What the head of each page says."""
    house = request.app[reads.HOUSE]
    faults = sum(notice.fault for notice in house.board.notices())
    return {"faults": faults, "paused": house.controls.status()["paused"], "findings": finding_views.to_triage(connection)}


def _without_empty(request: web.Request) -> None:
    """Have the browser leave out what a form sent empty, so that the address says what is meant.

    Raises:
        HTTPSeeOther: it is to ask again.
    """
    told = [(name, value) for name, value in request.query.items() if value.strip()]
    if len(told) < len(request.query):
        raise web.HTTPSeeOther(str(request.rel_url.with_query(told)))


def _response(request: web.Request, text: str) -> web.Response:
    response = web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})
    door_, session = request.app[door.DOOR], request[door.SESSION]
    if door_.session_of(request) is None and not door_.token:
        door_.remember(request, response, session)
    return response


PAGES = (
    Page("/", "Now", "now", "now.html", now),
    Page("/findings", "Findings", "findings", "findings.html", findings),
    Page(f"/findings/{routes.NUMBER}", "Finding", "findings", "finding.html", finding),
    Page("/history", "History", "history", "history.html", history),
    Page("/coverage", "Coverage", "coverage", "coverage.html", coverage),
    Page("/comparison", "Comparison", "comparison", "comparison.html", coverage),
    Page("/experiments", "Experiments", "experiments", "experiments.html", experiments),
    Page(f"/experiments/{routes.NUMBER}", "Experiment", "experiments", "experiment.html", experiment),
    Page("/builds", "Builds", "now", "builds.html", builds),
    Page(f"/requests/{routes.NUMBER}", "Request", "experiments", "request.html", reads.request_of),
)
