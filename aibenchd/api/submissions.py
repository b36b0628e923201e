"""What people send: programs and files, piece by piece; what is to be done with them; and its end before its time."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import posixpath
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Annotated, Self, TypeAlias

import aiohttp
import anyio
import anyio.to_thread
import pydantic
from aiohttp import web

from aibenchd import errors, quantities
from aibenchd.api import answers, asks, peers, reads
from aibenchd.store import submissions as stored
from aibenchd.store import views
from aibenchd.submissions import kept, specification, submitting

PIECE = 1 << 20  # bytes that are written at a time
AT_ONCE, OF_ONE = 4, 2  # uploads; of one user
LEAST, WINDOW_SECONDS = 1 << 20, 60.0  # bytes that must come in so long, or all that is left: who creeps holds others up
BUSY_SECONDS = 60  # after which somebody whose share is needed by what still runs may try again
SHARE = 2  # one user may have this part of submissions.cache_size, and one thing of max_size however large that is
RETRY_SECONDS = 5  # after which one that found no place may try again
BODY_LIMIT = 4 << 20  # bytes of JSON: FILES paths, each as long as it may be and escaped
TAR = "application/x-tar"  # the type of a directory
FILES = 500  # of one specification
DEEPEST, LONGEST = 50, 255  # names in a path, and bytes that a file system takes for one


class Uploads:
    """Who is sending something: :data:`AT_ONCE` in all, and :data:`OF_ONE` of one user, so that nobody has all places."""

    def __init__(self) -> None:
        self._under_way: collections.Counter[int] = collections.Counter()

    @contextlib.contextmanager
    def place(self, uid: int) -> Iterator[None]:
        """One of a user's places, while it lasts.

        Raises:
            Refusal: there is none; 503.
        """
        if self._under_way[uid] >= OF_ONE:
            raise self._refusal(f"{OF_ONE} uploads of yours are under way already")
        if self._under_way.total() >= AT_ONCE:
            raise self._refusal(f"{AT_ONCE} uploads are under way already")
        self._under_way[uid] += 1
        try:
            yield
        finally:
            self._under_way[uid] -= 1

    def _refusal(self, what: str) -> answers.Refusal:
        return answers.Refusal(503, what, f"try again in {RETRY_SECONDS} s", retry_after=RETRY_SECONDS)


UPLOADS = web.AppKey("uploads", Uploads)


def _below(path: str) -> str:
    if posixpath.isabs(path) or "\0" in path or posixpath.normpath(path) != path or path.split("/")[0] in ("..", "."):
        raise ValueError("expected a path that does not leave its directory, in its shortest form")
    if path.count("/") >= DEEPEST or max(map(len, os.fsencode(path).split(b"/"))) > LONGEST:
        raise ValueError(f"expected at most {DEEPEST} names of at most {LONGEST} bytes in a path")
    return path


def _few(files: dict[str, str]) -> dict[str, str]:
    if len(files) > FILES:
        raise ValueError(f"expected {FILES} or fewer, found {len(files)}; put what belongs together into one directory")
    return files


Digest: TypeAlias = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
Below: TypeAlias = Annotated[str, pydantic.Field(min_length=1, max_length=1_000), pydantic.AfterValidator(_below)]
Called: TypeAlias = Annotated[str, pydantic.Field(min_length=1, max_length=1_000)]


class Program(asks.Ask):
    """What it is called, and the digest under which it was sent or will be."""

    name: Called
    digest: Digest


class Specification(asks.Ask):
    """One that is sent: ``name`` is its path among ``files``, which has the digest of each."""

    name: Below
    files: Annotated[dict[Below, Digest], pydantic.AfterValidator(_few)]
    string_map: Annotated[dict[str, str], pydantic.Field(default_factory=dict)]

    @pydantic.model_validator(mode="after")
    def _is_sent(self) -> Self:
        if self.name not in self.files:
            raise ValueError("expected its own digest among files")
        return self


class Submission(asks.Ask):
    """Programs, and what of them is to be measured where: a specification that is sent, or benchmarks of the configuration."""

    treatment: Program
    control: Program | None = None
    specification: Specification | None = None
    benchmarks: Annotated[asks.Names, pydantic.Field(default_factory=list)]
    framework: Annotated[str, pydantic.Field(max_length=200)] = ""
    devices: Annotated[asks.Names, pydantic.Field(default_factory=list)]
    backends: Annotated[asks.Names, pydantic.Field(default_factory=list)]
    blocks: Annotated[int, pydantic.Field(ge=0, le=1_000)] = 0
    priority: asks.Priority = 0
    note: Annotated[str, pydantic.StringConstraints(strip_whitespace=True, max_length=1_000)] = ""

    @pydantic.model_validator(mode="after")
    def _says_what(self) -> Self:
        if (self.specification is None) == (not self.benchmarks):
            raise ValueError("expected either a specification or benchmarks")
        return self


async def upload(request: web.Request) -> web.Response:
    """Keep a file, or a directory that comes as a tar, under its digest; it is there whole, or not at all.

    408 where it comes too slowly, 413 where it is too large, 422 where it is not what its digest says, 503 where too many come
    at once or their sender has as much here as one user may, 507 where the disk is full.
    """
    with request.app[UPLOADS].place(request[asks.PEER].uid):
        try:
            await _received(request)
        except errors.UploadError as error:
            raise _refusal(error) from error
    return asks.done({"digest": request.match_info["digest"]}, status=201)


async def submit(request: web.Request) -> web.Response:
    """Plan it: 202 with the number of the request, and ``warnings`` of the specification. 200 where more is to be sent first.

    ``send`` then has the digests of what is to be uploaded, and ``name`` the files, by their paths, whose digests are to be told.
    """
    house = request.app[reads.HOUSE]
    body = await answers.body(request, Submission, BODY_LIMIT)
    for device in body.devices:
        answers.known("device", device, [one.name for one in house.settings().devices])
    try:
        planned = await house.controls.submit(_wanted(body, request[asks.PEER]))
    except errors.UploadError as error:
        raise _refusal(error) from error
    except errors.CommandError as error:
        raise answers.Refusal(409, str(error)) from error
    if isinstance(planned, submitting.Lacking):
        return asks.done({"send": list(planned.digests), "name": list(planned.paths)})
    see = f"/v1/requests/{planned.request}"
    return asks.done({"request": planned.request, "see": see, "warnings": list(planned.warnings)}, status=202)


async def cancel(request: web.Request) -> web.Response:
    """End what is left of a request. 403 where another sent it, 409 where nothing is left."""
    await answers.body(request, asks.Ask)
    house, number, peer = request.app[reads.HOUSE], int(request.match_info["id"]), request[asks.PEER]
    found = await house.store.read(lambda connection: views.request(connection, number))
    if found is None:
        raise answers.Refusal(404, f"there is no request {number}", "'aibenchctl requests' lists them")
    operators = house.settings().status.operators
    owner = await house.store.read(lambda connection: stored.owner(connection, number))
    if owner != peer.uid and not await anyio.to_thread.run_sync(peers.may_operate, peer, operators):
        way_in = peers.way_in(operators, "status.operators")
        raise answers.Refusal(403, f"request {number} is {found['requested_by']}'s to cancel", f"beside them, {way_in}")
    left = found["state"] == "new" or {"waiting", "open"} & found["outcomes"].keys()
    if not left:
        raise answers.Refusal(409, f"nothing is left of request {number}", f"'aibenchctl request {number}' shows how it ended")
    return asks.done({"request": number, "cancelled": await house.controls.cancel(number, peer.name)})


async def _received(request: web.Request) -> None:
    house, digest, is_directory = request.app[reads.HOUSE], request.match_info["digest"], request.content_type == TAR
    chosen, size, sender = house.settings().submissions, request.content_length or 0, request[asks.PEER].uid

    def begin(needed: Collection[str]) -> kept.Incoming:
        coming = house.kept.begin(digest, size, chosen.max_size, sender=sender, is_directory=is_directory)
        try:
            house.kept.share_out(coming, max(chosen.cache_size // SHARE, chosen.max_size), needed)
            house.kept.make_room(size or chosen.max_size, chosen.keep, chosen.cache_size, needed)
        except errors.UploadError:
            coming.close()
            raise
        return coming

    coming = await anyio.to_thread.run_sync(begin, await house.store.read(stored.needed))
    try:
        async for piece in _pieces(request):
            await anyio.to_thread.run_sync(coming.write, piece)
        await anyio.to_thread.run_sync(coming.settle)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(coming.close)


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes, in pieces of PIECE bytes or a little more.

    Raises:
        Refusal: 408, it comes too slowly; only the waiting for it counts, not what it takes to write it. 400, it is cut off.
    """
    gathered, came, waited = bytearray(), 0, 0.0
    while True:
        began = anyio.current_time()
        try:
            with anyio.fail_after(WINDOW_SECONDS - waited):
                piece = await request.content.readany()
        except TimeoutError:
            reason = f"only {quantities.size_text(came)} came in {WINDOW_SECONDS:g} s"
            raise answers.Refusal(408, reason, f"send {quantities.size_text(LEAST)} or more in that time") from None
        except web.RequestPayloadError as error:
            raise answers.Refusal(400, f"the body is not as its header says: {error}", "send it as it is") from error
        except aiohttp.ClientError:  # who sent it has gone
            raise ConnectionResetError from None
        came, waited = came + len(piece), waited + anyio.current_time() - began
        if came >= LEAST:
            came, waited = 0, 0.0
        gathered += piece
        if gathered and (len(gathered) >= PIECE or not piece):
            yield bytes(gathered)
            gathered.clear()
        if not piece:
            return


def _refusal(error: errors.UploadError) -> answers.Refusal:
    if isinstance(error, errors.ShareError):
        seconds = BUSY_SECONDS if error.seconds is None else math.ceil(error.seconds) + 1
        way_out = "" if error.seconds is not None else "; 'aibenchctl requests' lists what needs it, and 'cancel ID' ends one"
        return answers.Refusal(503, str(error), f"try again in {quantities.duration_text(seconds)}{way_out}", retry_after=seconds)
    statuses = {errors.TooLargeError: 413, errors.NoSpaceError: 507}
    return answers.Refusal(statuses.get(type(error), 422), str(error))


def _wanted(body: Submission, peer: peers.Peer) -> submitting.Wanted:
    sent = body.specification
    control = body.control
    return submitting.Wanted(
        treatment=submitting.Program(body.treatment.name, body.treatment.digest),
        control=None if control is None else submitting.Program(control.name, control.digest),
        specification=None if sent is None else specification.Sent(sent.name, sent.files, sent.string_map),
        benchmarks=body.benchmarks,
        framework=body.framework,
        devices=body.devices,
        backends=body.backends,
        blocks=body.blocks,
        priority=body.priority,
        note=body.note,
        by=peer.name,
        uid=peer.uid,
    )
