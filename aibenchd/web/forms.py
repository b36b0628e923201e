"""What people change through the dashboard: the forms of its pages."""

from __future__ import annotations

import json

from aiohttp import web
from yarl import URL

from aibenchd.api import answers, asks, reads, routes
from aibenchd.web import door


async def sign_in(request: web.Request) -> web.StreamResponse:
    """With a name, that what one does is known by, and the token."""
    form = await request.post()
    at = request.app[door.DOOR]
    name = str(form.get("name", "")).strip()
    if not name or len(name) > door.NAME_LIMIT or not name.isprintable():
        raise answers.Refusal(400, f"a name is needed, of {door.NAME_LIMIT} characters at most", "go back, and write who you are")
    if not at.token or not await at.try_token(str(form.get("token", ""))):
        raise answers.Refusal(403, "this is not the token", "it is in the file that dashboard.token_file names")
    response = web.HTTPSeeOther(_own(str(form.get("to", "/"))))
    at.remember(request, response, at.begin(name))
    raise response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """Of this browser."""
    await door.operator(request, await request.post())
    response = web.HTTPSeeOther("/")
    request.app[door.DOOR].forget(response)
    raise response


async def triage_finding(request: web.Request) -> web.StreamResponse:
    """Make something of a finding, and show it."""
    form = await request.post()
    by = await door.operator(request, form)
    number, action = int(request.match_info["id"]), str(form.get("action", ""))
    shape = asks.TRIAGES[answers.known("triage", action, asks.TRIAGES)]
    told = {name: str(form[name]) for name in shape.model_fields if str(form.get(name, "")).strip()}
    await asks.triaged(request.app[reads.HOUSE], number, action, answers.parsed(shape, told), by)
    raise web.HTTPSeeOther(f"/findings/{number}")


async def measure_two(request: web.Request) -> web.StreamResponse:
    """Have two cells measured against each other, and show how that goes."""
    form = await request.post()
    by = await door.operator(request, form)
    picked = [_cell(str(one)) for one in form.getall("pick", [])]
    if len(picked) != 2 or picked[0][0] != picked[1][0]:
        raise answers.Refusal(400, "two cells of one model are needed", "go back, and pick them")
    (row, treatment), (_, control) = picked
    wanted = answers.parsed(asks.CellComparison, {"model": row, "treatment": treatment, "control": control})
    number = await asks.compared(request.app[reads.HOUSE], wanted, by)
    raise web.HTTPSeeOther(f"/requests/{number}")


def _cell(text: str) -> tuple[str, str]:
    """A row and a column of the matrix, as its page sends them."""
    try:
        row, column = json.loads(text)
    except ValueError as error:
        raise answers.Refusal(400, "this names no cell", "open the page again") from error
    return str(row), str(column)


def _own(target: str) -> str:
    """An address of ours; the first page where it is one of others."""
    url = URL(target)
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) and not url.absolute else "/"


FORMS = (
    ("/sign-in", sign_in, "with the token"),
    ("/sign-out", sign_out, "forget who it was"),
    (f"/findings/{routes.NUMBER}/triage", triage_finding, "make something of it"),
    ("/comparison", measure_two, "measure two cells against each other"),
)
