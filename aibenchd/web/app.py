"""The server behind the dashboard's listener: pages, the files that come with them, and what can be read of the API."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping

from aiohttp import web

from aibenchd.api import answers, routes, server, streams
from aibenchd.web import door, forms, pages, render

POLICY = (  # nothing comes from, or goes to, another host; no script or style but our files
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEPT = "public, max-age=31536000, immutable"  # of a file whose address changes with it
FOR_PROGRAMS = ("/v1", "/metrics")  # how the paths begin that are answered in no page

_FILES = web.AppKey("files", Mapping[str, bytes])


def app(house: server.House, shared: routes.Shared, at: server.Dashboard) -> web.Application:
    """The dashboard of one listener. Reads the files that it serves, which are few and small."""
    made = routes.serving(house, _routes(), shared, [answers.explained(_told), door.guarded, _there])
    made[door.DOOR] = door.Door(at.token, at.listening.getsockname()[1])
    files = (path for path in render.STATIC.rglob("*") if path.is_file())
    made[_FILES] = {str(path.relative_to(render.STATIC)): path.read_bytes() for path in files}
    made.on_response_prepare.append(_protected)
    return made


def _routes() -> list[routes.Route]:
    return [
        *(route for route in routes.ROUTES if route.method == "GET"),
        *(routes.Route("GET", page.path, pages.handler(page), page.title) for page in pages.PAGES),
        *(routes.Route("POST", path, handler, about) for path, handler, about in forms.FORMS),
        routes.Route("GET", "/sign-in", pages.sign_in, "for who is not known"),
        routes.Route("GET", "/events", streams.watched(streams.message), "what happens, for pages", routes.FOREVER),
        routes.Route("GET", r"/static/{digest}/{name:.+}", _file, "what pages are made with"),
    ]


def _told(request: web.Request, refusal: answers.Refusal) -> web.StreamResponse:
    told = answers.as_json if request.path.startswith(FOR_PROGRAMS) else pages.refused
    return told(request, refusal)


@web.middleware
async def _there(request: web.Request, handler: answers.Handler) -> web.StreamResponse:
    """Say so where there is no such page."""
    missed = request.match_info.http_exception
    if missed is not None:
        raise answers.Refusal(missed.status, f"there is no page {request.path} to {request.method}")
    return await handler(request)


async def _file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    found = request.app[_FILES].get(name)
    if found is None:
        raise answers.Refusal(404, f"there is no file {name}")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return web.Response(body=found, content_type=kind, headers={"Cache-Control": KEPT})


async def _protected(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
