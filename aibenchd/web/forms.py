"""What people change through the dashboard: the forms of its pages."""

from __future__ import annotations

from aiohttp import web
from yarl import URL

from aibenchd.api import answers
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


def _own(target: str) -> str:
    """An address of ours; the first page where it is one of others."""
    url = URL(target)
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) and not url.absolute else "/"


FORMS = (("/sign-in", sign_in, "with the token"), ("/sign-out", sign_out, "forget who it was"))
