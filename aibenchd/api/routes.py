"""The routes of the status socket, and the HTTP server behind it."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import anyio
import anyio.to_thread
from aiohttp import web
from aiohttp.typedefs import Middleware

from aibenchd.api import answers, asks, reads, server, streams, submissions
from aibenchd.store import views

_PATTERN = re.compile(r":[^/]*}(?=/|$)")  # that a part of a path must match
NUMBER = r"{id:\d{1,18}}"
PROFILE = r"{name:\d{1,18}-[a-z]{1,9}\.[a-z.-]{1,32}}"
ANSWER_SECONDS = 60.0
FOREVER = math.inf
BACKUP_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 75.0
STOP_SECONDS = 2.0  # that answers under way have when the daemon stops


class Route(NamedTuple):
    """``path`` as aiohttp has it; ``about`` is what ``GET /v1`` says of it."""

    method: str
    path: str
    handler: answers.Handler
    about: str
    seconds: float = ANSWER_SECONDS  # until it must have answered


async def _index(_request: web.Request) -> web.Response:
    return answers.json_response(answers.dumps({"routes": listing()}))


ROUTES = (
    Route("GET", "/v1", _index, "this list"),
    Route("GET", "/v1/status", reads.shown(reads.status), "everything at a glance, faults first"),
    Route("GET", "/v1/devices", reads.shown(reads.devices), "devices: what they are, their state, health and queue"),
    Route("GET", "/v1/experiments", reads.shown(reads.experiments), "newest first"),
    Route("GET", f"/v1/experiments/{NUMBER}", reads.shown(reads.experiment), "with blocks, trials, results"),
    Route("GET", "/v1/revisions", reads.shown(reads.revisions), "newest first, with their verdicts"),
    Route("GET", "/v1/findings", reads.shown(reads.findings), "what regressed or broke"),
    Route("GET", f"/v1/findings/{NUMBER}", reads.shown(reads.finding), "with its operators, and who is at fault"),
    Route("GET", "/v1/coverage", reads.shown(reads.coverage), "models by devices and backends: each cell's figure, or why none"),
    Route("GET", "/v1/history", reads.shown(reads.history), "one benchmark on one device over revisions"),
    Route("GET", "/v1/noise", reads.shown(reads.noise), "how noisy benchmarks are, and the change that is found; ?device=NAME"),
    Route("GET", "/v1/builds", reads.shown(reads.builds), "newest first"),
    Route("GET", "/v1/requests", reads.shown(reads.requests), "what people asked for, newest first"),
    Route("GET", f"/v1/requests/{NUMBER}", reads.shown(reads.request_of), "with its experiments"),
    Route("GET", f"/v1/logs/build/{NUMBER}", streams.log_of("build", views.build_log), "what a build printed", FOREVER),
    Route("GET", f"/v1/logs/trial/{NUMBER}", streams.log_of("trial", views.trial_log), "what a failed trial printed", FOREVER),
    Route("GET", f"/v1/logs/profile/{PROFILE}", streams.profile, "what an arm did under a profiler", FOREVER),
    Route("GET", "/v1/sinks", reads.shown(reads.sinks), "what waits for delivery, and dead letters"),
    Route("GET", "/v1/config", reads.config, "the settings in force"),
    Route("GET", "/v1/events", streams.watched(streams.named), "what happens, as server-sent events", FOREVER),
    Route("GET", "/metrics", reads.metrics_text, "for Prometheus"),
    Route("POST", "/v1/reload", asks.reload, "read the configuration again"),
    Route("POST", "/v1/pause", asks.pause, "begin no block and no build"),
    Route("POST", "/v1/resume", asks.resume, "go on"),
    Route("POST", "/v1/experiments", asks.compare, "compare two revisions"),
    Route("PUT", "/v1/contents/{digest:[0-9a-f]{64}}", submissions.upload, "send a file, or a directory as a tar", FOREVER),
    Route("POST", "/v1/submissions", submissions.submit, "measure programs that were sent"),
    Route("POST", f"/v1/requests/{NUMBER}/cancel", submissions.cancel, "end what is left of it"),
    Route("POST", "/v1/comparisons", asks.compare_cells, "compare two cells of a model"),
    Route("POST", f"/v1/findings/{NUMBER}/acknowledge", asks.triaging("acknowledge"), "say that somebody looks after it"),
    Route("POST", f"/v1/findings/{NUMBER}/accept", asks.triaging("accept"), "close it: its level is the new baseline"),
    Route("POST", f"/v1/findings/{NUMBER}/mute", asks.triaging("mute"), "hear nothing more of it until a day"),
    Route("POST", f"/v1/findings/{NUMBER}/reopen", asks.triaging("reopen"), "take back what was made of it"),
    Route("POST", "/v1/devices/{name}/drain", asks.drain, "take no more blocks on a device"),
    Route("POST", "/v1/devices/{name}/undrain", asks.undrain, "take blocks on it again"),
    Route("POST", "/v1/devices/{name}/release", asks.release, "take it out of quarantine, and try it now"),
    Route("POST", "/v1/devices/{name}/calibrate", asks.calibrate, "compare a commit with itself on it"),
    Route("POST", "/v1/sinks/{name}/resend", asks.resend, "deliver dead letters again"),
    Route("POST", f"/v1/builds/{NUMBER}/rebuild", asks.rebuild, "try a failed build again"),
    Route("POST", "/v1/backup", asks.backup, "copy the journal into a new file", BACKUP_SECONDS),
)


def listing(routes: Sequence[Route] = ROUTES) -> list[str]:
    """All routes, one line each."""
    paths = (_PATTERN.sub("}", route.path) for route in routes)
    return [f"{route.method} {path}: {route.about}" for route, path in zip(routes, paths, strict=True)]


async def serve(house: server.House, sockets: server.Sockets) -> None:
    """Answer on each of the sockets what it is for, until cancelled."""
    shared = Shared()
    sites = [(app(house, ROUTES, shared), sockets.status)]
    if sockets.metrics is not None:
        sites.append((app(house, [route for route in ROUTES if route.path == "/metrics"], shared), sockets.metrics))
    if sockets.dashboard is not None:
        dashboard = await anyio.to_thread.run_sync(importlib.import_module, "aibenchd.web.app")  # with jinja2
        sites.append((dashboard.app(house, shared, sockets.dashboard), sockets.dashboard.listening))
    runners = [
        (web.AppRunner(made, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=STOP_SECONDS), where)
        for made, where in sites
    ]
    try:
        for runner, where in runners:
            await runner.setup()
            await web.SockSite(runner, where, backlog=server.BACKLOG).start()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            for runner, _ in runners:
                await runner.cleanup()


class Shared:
    """What all sockets have together: bounds of how much is asked at once. Made on the event loop."""

    def __init__(self) -> None:
        self.limiter = anyio.CapacityLimiter(reads.AT_ONCE)
        self.uploads = submissions.Uploads()
        self.watchers = anyio.CapacityLimiter(streams.WATCHERS_AT_ONCE)


def app(house: server.House, routes: Sequence[Route], shared: Shared) -> web.Application:
    """The server of a Unix socket, whose peers the kernel knows."""
    return serving(house, routes, shared, [answers.explained(answers.as_json), _known_by(routes), asks.who_may])


def serving(house: server.House, routes: Sequence[Route], shared: Shared, middlewares: Sequence[Middleware]) -> web.Application:
    """A server of these routes."""
    made = web.Application(middlewares=middlewares, client_max_size=answers.BODY_LIMIT)
    made[reads.HOUSE] = house
    made[reads.LIMITER] = shared.limiter
    made[streams.WATCHERS] = shared.watchers
    made[streams.OPEN] = set()
    made[submissions.UPLOADS] = shared.uploads
    made.on_shutdown.append(_end_streams)
    for route in routes:
        made.router.add_route(route.method, route.path, answers.timely(route.handler, route.seconds))
    return made


async def _end_streams(app: web.Application) -> None:
    for scope in app[streams.OPEN]:
        scope.cancel()


def _known_by(routes: Sequence[Route]) -> Middleware:
    @web.middleware
    async def known(request: web.Request, handler: answers.Handler) -> web.StreamResponse:
        """Say what there is to who asks for what there is not."""
        missed = request.match_info.http_exception
        if missed is not None:
            raise answers.Refusal(
                missed.status, f"there is no {request.method} {request.path}", "see 'routes'", routes=listing(routes)
            )
        return await handler(request)

    return known
