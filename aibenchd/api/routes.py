"""The routes of the status socket, and the HTTP server behind it."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from typing import NamedTuple

import anyio
from aiohttp import web
from aiohttp.typedefs import Middleware

from aibenchd.api import answers, asks, reads, server, streams
from aibenchd.store import views

NUMBER = r"{id:\d{1,18}}"
ANSWER_SECONDS = 60.0
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
    Route("GET", "/v1/status", reads.status, "everything at a glance, faults first"),
    Route("GET", "/v1/devices", reads.devices, "devices: what they are, their state, health and queue"),
    Route("GET", "/v1/experiments", reads.listed(views.ExperimentQuery, views.experiments), "newest first"),
    Route("GET", f"/v1/experiments/{NUMBER}", reads.single("experiment", views.experiment), "with blocks, trials, results"),
    Route("GET", "/v1/revisions", reads.listed(views.RevisionQuery, views.revisions), "newest first, with their verdicts"),
    Route("GET", "/v1/findings", reads.listed(views.Page, views.findings), "what regressed or broke"),
    Route("GET", f"/v1/findings/{NUMBER}", reads.single("finding", views.finding), "with its operators, and who is at fault"),
    Route("GET", "/v1/coverage", reads.coverage, "models by devices and backends: how fast each cell is, or why not"),
    Route("GET", "/v1/history", reads.history, "one benchmark on one device over revisions"),
    Route("GET", "/v1/noise", reads.noise, "how noisy benchmarks are, and the smallest change that is found; ?device=NAME"),
    Route("GET", "/v1/builds", reads.listed(views.BuildQuery, views.builds), "newest first"),
    Route("GET", "/v1/requests", reads.listed(views.Page, views.requests), "what people asked for, newest first"),
    Route("GET", f"/v1/requests/{NUMBER}", reads.single("request", views.request), "with its experiments"),
    Route("GET", f"/v1/logs/build/{NUMBER}", streams.log_of("build", views.build_log), "what a build printed", math.inf),
    Route("GET", f"/v1/logs/trial/{NUMBER}", streams.log_of("trial", views.trial_log), "what a failed trial printed", math.inf),
    Route("GET", "/v1/sinks", reads.sinks, "what waits for delivery, and dead letters"),
    Route("GET", "/v1/config", reads.config, "the settings in force"),
    Route("GET", "/v1/events", streams.events, "what happens, as server-sent events", math.inf),
    Route("GET", "/metrics", reads.metrics_text, "for Prometheus"),
    Route("POST", "/v1/reload", asks.reload, "read the configuration again"),
    Route("POST", "/v1/pause", asks.pause, "begin no block and no build"),
    Route("POST", "/v1/resume", asks.resume, "go on"),
    Route("POST", "/v1/experiments", asks.compare, "compare two revisions"),
    Route("POST", "/v1/comparisons", asks.compare_cells, "compare two cells of a model"),
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
    return [f"{route.method} {route.path.replace(NUMBER, '{id}')}: {route.about}" for route in routes]


async def serve(house: server.House, listening: socket.socket, metrics: socket.socket | None) -> None:
    """Answer on ``listening``, and on ``metrics`` for metrics alone, until cancelled."""
    apps = [(_app(house, ROUTES), listening)]
    if metrics is not None:
        apps.append((_app(house, [route for route in ROUTES if route.path == "/metrics"]), metrics))
    runners = [
        (web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=STOP_SECONDS), where)
        for app, where in apps
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


def _app(house: server.House, routes: Sequence[Route]) -> web.Application:
    app = web.Application(
        middlewares=[answers.explained, _known_by(routes), asks.operators_only],
        client_max_size=answers.BODY_LIMIT,
    )
    app[reads.HOUSE] = house
    app[reads.LIMITER] = anyio.CapacityLimiter(reads.AT_ONCE)
    app[streams.WATCHERS] = anyio.CapacityLimiter(streams.WATCHERS_AT_ONCE)
    app[streams.OPEN] = set()
    app.on_shutdown.append(_end_streams)
    for route in routes:
        app.router.add_route(route.method, route.path, answers.timely(route.handler, route.seconds))
    return app


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
