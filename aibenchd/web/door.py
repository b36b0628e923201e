"""Who may see the dashboard, and who may change things through it.

Without a token it listens on loopback alone. Whoever has an account on this host may look; what changes something is asked of
the kernel, which knows whose socket the other end is, and only operators may, as through the status socket. With a token
all of it is for those who have signed in with that, and a program may send it as ``Authorization: Bearer``.

A page of another site can make a browser send requests here. It cannot sign in (the cookie is ``SameSite=Strict``), cannot have
this host's name mean another one (``Host`` is looked at), and knows no form's key (:meth:`Door.key_of`), without which nothing is
changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread
import structlog
from aiohttp import web
from yarl import URL

from aibenchd import settings
from aibenchd.api import answers, peers, reads

SESSION_SECONDS = 30 * 86400
FAILED_SECONDS = 1.0  # that a wrong token costs who tries it
NAME_LIMIT = 64  # characters of who signs in
KEY = "key"  # the field of a form
OPEN_PATHS = ("/sign-in", "/static/")  # how those begin that are seen by whoever is not known

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """One browser. ``name`` is whom it was signed in by, empty where no token is needed."""

    name: str
    until: int  # seconds since 1970
    nonce: str


class Door:
    """Of one listener. ``token`` is empty where none is needed; ``port`` is what keeps two daemons' cookies apart."""

    def __init__(self, token: str, port: int) -> None:
        self.token = token
        self.cookie = f"aibenchd-{port}"
        self._secret = hashlib.sha256(b"aibenchd dashboard " + (token.encode() or secrets.token_bytes(32))).digest()

    def begin(self, name: str = "") -> Session:
        """A new session."""
        return Session(name, int(time.time()) + SESSION_SECONDS, secrets.token_urlsafe(16))

    def session_of(self, request: web.Request) -> Session | None:
        """The one that a request's cookie is of; None where there is none that holds."""
        name, _, rest = request.cookies.get(self.cookie, "").partition(".")
        until, _, rest = rest.partition(".")
        nonce, _, mac = rest.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("session", name, until, nonce).encode()):
            return None
        session = Session(base64.urlsafe_b64decode(name).decode(), int(until), nonce)
        return session if session.until > time.time() else None

    def remember(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Have the browser send the session from now on."""
        name, until = base64.urlsafe_b64encode(session.name.encode()).decode(), str(session.until)
        value = ".".join((name, until, session.nonce, self._mac("session", name, until, session.nonce)))
        secure = request.headers.get("X-Forwarded-Proto", request.scheme) == "https"
        response.set_cookie(self.cookie, value, max_age=SESSION_SECONDS, httponly=True, samesite="Strict", secure=secure)

    def forget(self, response: web.StreamResponse) -> None:
        """Have the browser send no session any more. One that was copied from it stays good until it ends."""
        response.del_cookie(self.cookie)

    def key_of(self, session: Session) -> str:
        """What a form of this session must send along."""
        return self._mac("form", session.nonce)

    async def try_token(self, given: str) -> bool:
        """Whether it is the token; whoever guesses is told so slowly."""
        if hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return True
        await anyio.sleep(FAILED_SECONDS)
        return False

    async def has_token(self, request: web.Request) -> bool:
        """Whether a program sent it."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and await self.try_token(given)

    def _mac(self, *words: str) -> str:
        return hmac.new(self._secret, "\0".join(words).encode(), hashlib.sha256).hexdigest()


DOOR = web.AppKey("door", Door)
SESSION = web.RequestKey("session", Session)


@web.middleware
async def guarded(request: web.Request, handler: answers.Handler) -> web.StreamResponse:
    """Let in who may look; give each browser its session."""
    door = request.app[DOOR]
    if not door.token and not _is_ours(request.host):
        raise answers.Refusal(
            421, f"this dashboard is for this host alone, not for {request.host}", "behind a proxy, set dashboard.token_file"
        )
    session = door.session_of(request)
    if door.token and session is None and not request.path.startswith(OPEN_PATHS):
        if _by_a_person(request):
            raise web.HTTPSeeOther(str(URL("/sign-in").with_query(to=str(request.rel_url))))
        if not await door.has_token(request):
            raise answers.Refusal(401, "sign in, or send the token", "as 'Authorization: Bearer TOKEN'")
    request[SESSION] = session or door.begin()
    return await handler(request)


def _by_a_person(request: web.Request) -> bool:
    """Whether a page is asked for, by a browser: programs are told to send the token."""
    return request.method == "GET" and "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/v1")


def _is_ours(host: str) -> bool:
    """Whether a request names this host as only itself does: a site of any other name may be made to mean it."""
    try:
        return settings.is_loopback(URL(f"http://{host}").host or "")
    except ValueError:
        return False


async def operator(request: web.Request, form: Mapping[str, object]) -> str:
    """The name of who sent a form, who may change things.

    Raises:
        Refusal: 403, the form is not of our page, or they may not.
    """
    door, session = request.app[DOOR], request[SESSION]
    sent = str(form.get(KEY, ""))
    if not _same_origin(request) or not hmac.compare_digest(sent.encode(), door.key_of(session).encode()):
        raise answers.Refusal(403, "this form is not of a page of ours that this browser was shown", "open the page again")
    name = session.name if door.token else await anyio.to_thread.run_sync(_local_operator, request)
    log.info("asked", by=name, method=request.method, path=request.path)
    return name


def _same_origin(request: web.Request) -> bool:
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    return site == "same-origin" and (origin is None or origin.partition("://")[2] == request.host)


def _local_operator(request: web.Request) -> str:
    transport = request.transport
    if transport is None:  # who asked is gone already
        raise ConnectionResetError
    here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    peer = peers.on_this_host(here[:2], there[:2])
    operators = request.app[reads.HOUSE].settings().status.operators
    if peer is None or not peers.may_operate(peer, operators):
        name = "who is at the other end" if peer is None else peer.name
        raise answers.Refusal(403, f"{name} may not change anything here", peers.way_in(operators, "status.operators"))
    return peer.name
