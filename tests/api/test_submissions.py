"""What is sent through the socket: kept whole under its digest or not at all, for who may, and what the daemon then is asked."""

from __future__ import annotations

import contextlib
import functools
import grp
import hashlib
import io
import json
import os
import socket
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import statusd
import trees

from aibenchd import digests, errors, settings
from aibenchd.api import answers, call, peers, screen, sending, submissions
from aibenchd.store import requests, store
from aibenchd.store import submissions as stored
from aibenchd.submissions import submitting

CONTENT = b"#!/bin/sh\nexit 0\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64
NOBODY = 65_534


async def put(daemon: statusd.Daemon, digest: str, data: Any, kind: str = "application/octet-stream") -> tuple[int, Any]:
    return await daemon._ask("PUT", f"/v1/contents/{digest}", data=data, headers={"Content-Type": kind})


def left(daemon: statusd.Daemon) -> list[str]:
    """All that lies below where things are kept, but for when it was used, and who sent it."""
    root, notes = daemon.house.kept.directory, ("used", "senders")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent.name not in notes)


def tar(*members: tuple[str, bytes | str]) -> bytes:
    """A tar of files, and of links where a text is given in place of bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size, info.mode = len(content), 0o755
            packed.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()


async def test_a_file_is_kept_under_its_digest(daemon: statusd.Daemon) -> None:
    assert await put(daemon, DIGEST, CONTENT) == (201, {"digest": DIGEST})
    assert daemon.house.kept.path(DIGEST).read_bytes() == CONTENT
    assert left(daemon) == [f".content/sha256/{DIGEST}"]
    assert (await put(daemon, DIGEST, CONTENT))[0] == 201


async def test_a_directory_is_unpacked_with_its_modes(daemon: statusd.Daemon, tmp_path: Path) -> None:
    trees.write(tmp_path / "build", {"engine": "#!run", "lib/a.so": "data"})
    packed = tar(("engine", (tmp_path / "build" / "engine").read_bytes()))
    one = tmp_path / "one"
    trees.write(one, {"engine": "#!run"})
    digest = digests.of_tree(one, digests.OF_TREES_SENT)
    assert (await put(daemon, digest, packed, submissions.TAR))[0] == 201
    kept = daemon.house.kept.path(digest)
    assert (kept / "engine").read_text() == (one / "engine").read_text()
    assert (kept / "engine").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("../outside", b"x")], "a name that leads out of its directory"),
        ([("/etc/outside", b"x")], "a name that leads out of its directory"),
        ([("link", "/etc/passwd")], "neither a file nor a directory"),
        ([("link", "elsewhere"), ("link/file", b"x")], "neither a file nor a directory"),
        ([("twice", b"x"), ("twice", b"y")], "twice"),
        ([("file", b"x"), ("file/below", b"y")], "twice"),
    ],
)
async def test_a_hostile_tar_leaves_nothing(daemon: statusd.Daemon, members: list[Any], said: str) -> None:
    code, answer = await put(daemon, OTHER, tar(*members), submissions.TAR)
    assert code == 422
    assert said in answer["error"]
    assert left(daemon) == []
    assert not (daemon.house.kept.directory.parent / "outside").exists()


async def test_a_device_in_a_tar_and_bytes_that_are_none_are_refused(daemon: statusd.Daemon) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        info = tarfile.TarInfo("null")
        info.type = tarfile.CHRTYPE
        packed.addfile(info)
    for data in (made.getvalue(), b"no tar at all" * 100, b""):
        code, answer = await put(daemon, OTHER, data, submissions.TAR)
        assert (code, "the directory that was sent" in answer["error"]) == (422, True)
    assert left(daemon) == []


async def test_what_unpacks_to_more_than_is_taken_is_refused(daemon: statusd.Daemon) -> None:
    import gzip

    daemon.configure(submissions=settings.SubmissionSettings(max_size="1MiB"))
    bomb = gzip.compress(tar(("zeros", bytes(50 << 20))))
    assert len(bomb) < 1 << 20
    code, answer = await put(daemon, OTHER, bomb, submissions.TAR)
    assert (code, "larger" in answer["error"]) == (422, True)
    assert left(daemon) == []


async def test_other_bytes_than_were_announced_are_not_kept(daemon: statusd.Daemon) -> None:
    code, answer = await put(daemon, OTHER, CONTENT)
    assert (code, answer["error"]) == (
        422,
        f"what came has the digest {DIGEST}, and {OTHER} was announced; send it again, by an aibenchctl of the daemon's version",
    )
    assert left(daemon) == []


@pytest.mark.parametrize("announced", [True, False])
async def test_too_much_is_refused_by_its_announcement_or_when_it_has_come(daemon: statusd.Daemon, announced: bool) -> None:
    daemon.configure(submissions=settings.SubmissionSettings(max_size="3MiB"))

    async def pieces() -> Any:
        for _ in range(8):
            yield bytes(1 << 20)

    code, answer = await put(daemon, OTHER, io.BytesIO(bytes(8 << 20)) if announced else pieces())
    assert (code, answer["error"]) == (413, "more than 3MiB is sent; send less, or raise submissions.max_size")
    assert left(daemon) == []


async def test_an_upload_that_breaks_off_leaves_nothing(daemon: statusd.Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        await anyio.to_thread.run_sync(sender.connect, os.fspath(daemon.path))
        head = f"PUT /v1/contents/{OTHER} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
        await anyio.to_thread.run_sync(sender.sendall, head.encode() + bytes(3 << 20))
        incoming = daemon.house.kept.directory / "incoming"
        with anyio.fail_after(20):
            while not (incoming.is_dir() and any(incoming.iterdir())):
                await anyio.sleep(0.01)
    with anyio.fail_after(20):
        while any(incoming.iterdir()):
            await anyio.sleep(0.01)
    assert left(daemon) == []
    assert (await put(daemon, DIGEST, CONTENT))[0] == 201


async def test_a_body_that_is_not_as_its_header_says_is_refused(daemon: statusd.Daemon) -> None:
    sent = {"data": b"no gzip at all" * 20, "headers": {"Content-Encoding": "gzip"}}
    code, answer = await daemon._ask("PUT", f"/v1/contents/{OTHER}", **sent)
    assert (code, "the body is not as its header says" in answer["error"]) == (400, True), answer
    assert left(daemon) == []


async def test_a_body_that_is_nested_too_deep_is_refused(daemon: statusd.Daemon) -> None:
    code, answer = await daemon._ask("POST", "/v1/submissions", data=b"[" * 30_000 + b"]" * 30_000)
    assert (code, "the body is no JSON: maximum recursion depth exceeded" in answer["error"]) == (400, True), answer


async def test_who_sends_nothing_more_is_given_up(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "WINDOW_SECONDS", 0.1)

    async def pieces() -> Any:
        yield b"a little"
        await anyio.sleep(2)

    code, answer = await put(daemon, OTHER, pieces())
    assert (code, answer["error"]) == (408, "only 8B came in 0.1 s")
    assert left(daemon) == []


async def test_who_sends_a_byte_now_and_then_is_given_up_as_well(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "WINDOW_SECONDS", 0.5)
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        while sent < 1_000:
            sent += 1
            yield b"x"
            await anyio.sleep(0.02)

    code, answer = await put(daemon, OTHER, pieces())
    assert (code, answer["hint"]) == (408, "send 1MiB or more in that time")
    assert sent < 1_000
    assert left(daemon) == []


async def test_who_sends_slowly_and_enough_is_heard_out(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "WINDOW_SECONDS", 1.0)
    monkeypatch.setattr(submissions, "LEAST", 10)
    whole = bytes(range(60))

    async def pieces() -> Any:
        for place in range(0, len(whole), 10):
            yield whole[place : place + 10]
            await anyio.sleep(0.3)

    assert (await put(daemon, hashlib.sha256(whole).hexdigest(), pieces()))[0] == 201


async def test_a_full_disk_is_told_before_anything_is_sent(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from aibenchd.submissions import kept

    monkeypatch.setattr(kept, "LEAST_FREE", 1 << 60)
    code, answer = await put(daemon, DIGEST, CONTENT)
    assert code == 507
    assert "is full; free some space, or lower submissions.cache_size" in answer["error"]


async def test_no_more_is_kept_than_the_configuration_says(daemon: statusd.Daemon) -> None:
    daemon.configure(submissions=settings.SubmissionSettings(max_size="1kB", cache_size="20B"))
    assert (await put(daemon, DIGEST, CONTENT))[0] == 201
    other = hashlib.sha256(b"other").hexdigest()
    code, answer = await put(daemon, other, b"other")
    assert (code, "too little of submissions.cache_size (20B)" in answer["error"]) == (507, True)
    assert left(daemon) == [f".content/sha256/{DIGEST}"]


async def test_no_more_uploads_than_a_few_go_on_at_once(daemon: statusd.Daemon) -> None:
    going_on = anyio.Event()

    async def slow() -> Any:
        yield CONTENT[:3]
        await going_on.wait()
        yield CONTENT[3:]

    async def upload() -> None:
        async with daemon.client() as client, client.put(f"http://aibenchd/v1/contents/{DIGEST}", data=slow()) as reply:
            codes.append(reply.status)
            pauses.append(reply.headers.get("Retry-After"))

    codes: list[int] = []
    pauses: list[str | None] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(submissions.OF_ONE + 1):
            tasks.start_soon(upload)
        with anyio.fail_after(20):
            while not codes:
                await anyio.sleep(0.01)
        assert codes == [503]
        going_on.set()
    assert codes == [503] + [201] * submissions.OF_ONE
    assert pauses == ["5"] + [None] * submissions.OF_ONE


def test_nobody_has_all_places_for_uploads() -> None:
    uploads = submissions.Uploads()
    with contextlib.ExitStack() as held:
        for uid in (1, 1, 2, 3):
            held.enter_context(uploads.place(uid))
        with pytest.raises(answers.Refusal, match="2 uploads of yours are under way"):
            held.enter_context(uploads.place(1))
        with pytest.raises(answers.Refusal, match="4 uploads are under way"):
            held.enter_context(uploads.place(4))
    with uploads.place(4):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
async def test_one_user_s_uploads_leave_room_for_others(daemon: statusd.Daemon) -> None:
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, NOBODY))
    daemon.configure(submissions=settings.SubmissionSettings(groups=(group.gr_name,), max_size="1kB", cache_size="4kB"))
    daemon.path.parent.chmod(0o711)
    daemon.path.chmod(0o666)
    mine = [bytes([number]) * 800 for number in range(4)]
    codes = [(await put(daemon, hashlib.sha256(one).hexdigest(), one))[0] for one in mine]
    assert codes == [201, 201, 503, 503]
    async with daemon.client() as client:
        address = f"http://aibenchd/v1/contents/{hashlib.sha256(mine[2]).hexdigest()}"
        async with client.put(address, data=mine[2]) as reply:
            told, pause = await reply.json(), int(reply.headers["Retry-After"])
    assert "leaves too little of your share of submissions.cache_size (2kB)" in told["error"]
    assert told["hint"].startswith("try again in ")
    assert 3_500 < pause <= 3_602  # what came first is let go of then
    theirs = "x" * 900
    request = f"PUT /v1/contents/{hashlib.sha256(theirs.encode()).hexdigest()}|{theirs}"
    assert await as_nobody(daemon, group.gr_gid, request) == ["201"]


async def test_the_client_waits_until_there_is_a_place_for_its_file(
    daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submissions, "RETRY_SECONDS", 1)
    going_on = anyio.Event()

    async def slow() -> Any:
        yield CONTENT[:3]
        await going_on.wait()
        yield CONTENT[3:]

    async def other() -> None:
        await put(daemon, DIGEST, slow())

    program = tmp_path / "bench"
    program.write_bytes(os.urandom(4 << 20))  # more than a socket holds
    sent, told = sending.File(program), screen.Status()
    upload = functools.partial(sending._upload, call.Daemon(os.fspath(daemon.path)), sent, told)
    async with anyio.create_task_group() as tasks:
        for _ in range(submissions.OF_ONE):
            tasks.start_soon(other)
        incoming = daemon.house.kept.directory / "incoming"
        with anyio.fail_after(20):
            while not incoming.is_dir() or len(list(incoming.iterdir())) < submissions.OF_ONE:
                await anyio.sleep(0.01)
        monkeypatch.setattr(sending, "WAITING_SECONDS", 0.0)
        with pytest.raises(call.Refused, match="2 uploads of yours are under way already; try again in 1 s"):
            await anyio.to_thread.run_sync(upload)
        monkeypatch.setattr(sending, "WAITING_SECONDS", 60.0)
        tasks.start_soon(anyio.to_thread.run_sync, upload)
        with anyio.fail_after(20):
            while "waits to be sent, for 1m at most: 2 uploads of yours are under way already" not in capsys.readouterr().err:
                await anyio.sleep(0.01)
        going_on.set()
    assert daemon.house.kept.has(sent.digest)


def test_a_refusal_is_read_though_the_daemon_listens_on(tmp_path: Path) -> None:
    """As it does for a while to what it has refused to take."""
    body = json.dumps({"error": "no place", "hint": "wait"}).encode()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.0 503 No\r\nRetry-After: 5\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        daemon = call.Daemon(os.fspath(tmp_path / "none"))
        daemon.connected = lambda: ours  # type: ignore[method-assign]
        with pytest.raises(call.Refused, match=r"^no place; wait$") as refused:
            daemon.put("/v1/contents/x", [b"piece"], 5, "application/octet-stream")
    assert refused.value.retry_after == 5


BODY: dict[str, Any] = {"treatment": {"name": "./a", "digest": DIGEST}, "benchmarks": ["net"]}


async def test_what_is_asked_is_handed_on_with_who_asks(daemon: statusd.Daemon) -> None:
    daemon.controls.submitting = submitting.Lacking(["d"], ["net.onnx"])
    assert await daemon.post("/v1/submissions", BODY) == (200, {"send": ["d"], "name": ["net.onnx"]})
    daemon.controls.submitting = submitting.Planned(7, ["net.json:1:2: odd"])
    wanted = BODY | {"devices": ["phone"], "note": " why ", "blocks": "3"}
    assert await daemon.post("/v1/submissions", wanted) == (
        202,
        {"request": 7, "see": "/v1/requests/7", "warnings": ["net.json:1:2: odd"]},
    )
    asked = daemon.controls.submitted[-1]
    assert (asked.devices, asked.note, asked.blocks, asked.uid) == (["phone"], "why", 3, os.getuid())
    daemon.controls.submitting = errors.CommandError("which framework?")
    assert (await daemon.post("/v1/submissions", BODY))[0] == 409


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"treatment": {"name": "a", "digest": "xyz"}}, 400, "treatment.digest: "),
        ({"benchmarks": []}, 400, "expected either a specification or benchmarks"),
        ({"specification": {"name": "a", "files": {"a": DIGEST}}}, 400, "expected either a specification or benchmarks"),
        ({"devices": ["tablet"]}, 404, "there is no device 'tablet'"),
        ({"note": "x" * 1_001}, 400, "note: "),
        ({"frob": 1}, 400, "frob: there is no such key"),
    ],
)
async def test_what_makes_no_sense_is_refused(daemon: statusd.Daemon, changes: dict[str, Any], code: int, said: str) -> None:
    got, answer = await daemon.post("/v1/submissions", BODY | changes)
    assert (got, said in answer["error"]) == (code, True), answer
    assert daemon.controls.submitted == []


async def test_as_many_files_as_there_may_be_fit_however_long_their_names_are(daemon: statusd.Daemon) -> None:
    async def post(body: Any) -> tuple[int, Any]:
        return await daemon._ask("POST", "/v1/submissions", data=io.BytesIO(json.dumps(body).encode()))

    names = [f"{number:03}-" + "/".join(["\1" * 198] * 5) for number in range(submissions.FILES)]
    assert max(map(len, names)) == 998
    specification = {"name": "net.json", "files": dict.fromkeys(["net.json", *names[1:]], DIGEST)}
    body = {"treatment": BODY["treatment"], "specification": specification}
    assert len(json.dumps(body)) > 40 * answers.BODY_LIMIT
    assert await post(body) == (202, {"request": 1, "see": "/v1/requests/1", "warnings": []})
    assert len(daemon.controls.submitted[-1].specification.files) == submissions.FILES  # type: ignore[union-attr]
    larger = body | {"note": "x" * (4 << 20)}
    code, answer = await post(larger)
    assert (code, answer["error"]) == (413, "the body has more than 4MiB")
    specification["files"] = dict.fromkeys(["net.json", *names], DIGEST)
    code, answer = await post(body)
    assert (code, "specification.files: " in answer["error"], "500" in answer["error"]) == (400, True, True), answer
    code, answer = await daemon.post("/v1/experiments", {"treatment": "x" * answers.BODY_LIMIT})
    assert (code, answer["error"]) == (413, "the body has more than 64KiB")


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "./a", "a//b", "a\0", "a/", ".", ".."])
async def test_a_path_that_leaves_its_directory_is_refused(daemon: statusd.Daemon, name: str) -> None:
    body = {"treatment": BODY["treatment"], "specification": {"name": "net.json", "files": {"net.json": DIGEST, name: DIGEST}}}
    code, answer = await daemon.post("/v1/submissions", body)
    assert (code, "specification.files" in answer["error"]) == (400, True), answer


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "/".join("a" * 51)])
async def test_a_path_that_no_file_can_have_is_refused(daemon: statusd.Daemon, name: str) -> None:
    body = {"treatment": BODY["treatment"], "specification": {"name": "net.json", "files": {"net.json": DIGEST, name: DIGEST}}}
    code, answer = await daemon.post("/v1/submissions", body)
    assert (code, "expected at most 50 names of at most 255 bytes" in answer["error"]) == (400, True), answer


def asked_by(uid: int) -> Callable[[store.Transaction], int]:
    """A request with an experiment that is open, submitted by a user."""

    def write(tx: store.Transaction) -> int:
        number = requests.add(
            tx, repository="submitted", treatment="t", control="", benchmarks=[], devices=[], priority=0, requested_by="me"
        )
        stored.add(tx, request=number, uid=uid, note="", names={"treatment": "./a"}, specification="")
        pair = statusd.pair(tx, "t", request=number, run_type="submission", repository="submitted")
        statusd.experiment(tx, pair, statusd.build(tx, f"t{uid}", repository="submitted"))
        return number

    return write


async def test_a_request_is_cancelled_while_something_is_left_of_it(daemon: statusd.Daemon) -> None:
    number = await daemon.house.store.write(asked_by(NOBODY))
    me = peers.Peer(0, os.getuid(), os.getgid()).name
    assert await daemon.post(f"/v1/requests/{number}/cancel") == (200, {"request": number, "cancelled": 1})
    assert daemon.controls.asked == [("cancel", str(number), me)]
    ended = await daemon.house.store.write(lambda tx: stored.cancel(tx, number, "cancelled by me"))
    assert [device for _, device in ended] == ["lab-host"]
    assert (await daemon.post(f"/v1/requests/{number}/cancel"))[0] == 409
    assert (await daemon.post("/v1/requests/99/cancel"))[0] == 404


async def as_nobody(daemon: statusd.Daemon, gid: int, *requests: str) -> list[str]:
    """Ask as another user of a group, ``METHOD TARGET|BODY`` each; the codes of the answers."""
    program = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({gid}); os.setuid({NOBODY})\n"
        "for request in sys.argv[1:]:\n"
        "    s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect('aibenchd.sock')\n"
        "    head, _, body = request.partition('|')\n"
        "    s.sendall(f'{head} HTTP/1.0\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}'.encode())\n"
        "    print(s.makefile().read().split()[1])\n"
    )
    told = await anyio.run_process([sys.executable, "-c", program, *requests], cwd=daemon.path.parent)
    return told.stdout.decode().split()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
async def test_who_may_send_and_who_may_cancel(daemon: statusd.Daemon) -> None:
    theirs = await daemon.house.store.write(asked_by(NOBODY))
    another = await daemon.house.store.write(asked_by(NOBODY - 1))
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, NOBODY))
    daemon.path.parent.chmod(0o711)
    daemon.path.chmod(0o666)

    async def answers(gid: int) -> list[str]:
        wanted = (
            f"PUT /v1/contents/{DIGEST}|{CONTENT.decode()}",
            f"POST /v1/submissions|{json.dumps(BODY)}",
            f"POST /v1/requests/{theirs}/cancel",
            f"POST /v1/requests/{another}/cancel",
            "POST /v1/pause",
        )
        return await as_nobody(daemon, gid, *wanted)

    assert await answers(NOBODY) == ["403", "403", "200", "403", "403"]
    daemon.configure(submissions=settings.SubmissionSettings(groups=(group.gr_name,)))
    assert await answers(group.gr_gid) == ["201", "202", "200", "403", "403"]
