"""The pages: which readings each is made of, and by which template."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import sqlalchemy as sa
from aiohttp import web

from aibenchd.api import answers, reads
from aibenchd.store import views
from aibenchd.web import door, render

QUEUED = 12  # experiments that are shown of what runs, and of what waits


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

    def view(connection: sa.Connection) -> views.Item:
        asked = (views.ExperimentQuery(state=state, limit=QUEUED) for state in ("open", "waiting"))
        running, waiting = (views.experiments(connection, query)["experiments"] for query in asked)
        return {"status": status(connection), "running": running, "waiting": waiting}

    return view


def _frame(request: web.Request) -> dict[str, Any]:
    """What every page has."""
    session = request.get(door.SESSION)
    return {
        "path": request.path,
        "query": dict(request.query),
        "here": str(request.rel_url),
        "signed_in": session.name if session else "",
        "key": request.app[door.DOOR].key_of(session) if session else "",
        "key_field": door.KEY,
    }


def _standing(request: web.Request, connection: sa.Connection) -> Mapping[str, Any]:
    """What the head of each page says."""
    house = request.app[reads.HOUSE]
    faults = sum(notice.fault for notice in house.board.notices())
    return {"faults": faults, "paused": house.controls.status()["paused"], "findings": views.to_triage(connection)}


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


PAGES = (Page("/", "Now", "now", "now.html", now),)
