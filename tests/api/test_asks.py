"""What POST does, and for whom."""

import grp
import os
import pwd
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import statusd

from aibenchd import errors, model
from aibenchd.api import asks, peers, server
from aibenchd.store import outbox, requests, store, views


async def test_a_comparison_is_queued(daemon: statusd.Daemon) -> None:
    wanted = {"treatment": "HEAD~1", "control": "v1.0", "repository": "engine", "devices": ["phone"], "priority": 5}
    code, answer = await daemon.post("/v1/experiments", wanted)
    assert (code, answer["see"]) == (202, f"/v1/requests/{answer['request']}")
    _, request = await daemon.get(answer["see"])
    assert request["state"] == "new"
    assert {key: request[key] for key in wanted} == wanted
    assert request["benchmarks"] == []
    assert request["requested_by"] == peers.Peer(0, os.getuid(), os.getgid()).name


async def test_a_request_tells_how_its_experiments_stand(daemon: statusd.Daemon) -> None:
    _, answer = await daemon.post("/v1/experiments", {"treatment": "b", "repository": "engine"})

    def rows(tx: object) -> None:
        pair, built = statusd.pair(tx, "b", "a", request=answer["request"]), statusd.build(tx, "b")
        statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
        statusd.experiment(tx, pair, built, device="phone")
        statusd.experiment(tx, statusd.pair(tx, "c"), built)

    await daemon.house.store.write(rows)
    _, request = await daemon.get(answer["see"])
    assert request["outcomes"] == {"regressed": 1, "open": 1}
    assert [item["device"] for item in request["experiments"]] == ["lab-host", "phone"]


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ({}, 400, "'treatment' is required"),
        ({"treatment": "b"}, 400, "repository: which of them is meant?"),
        ({"treatment": "b", "repository": "nope"}, 404, "there is no repository 'nope'"),
        ({"treatment": "b", "repository": "engine", "devices": ["nope"]}, 404, "there is no device 'nope'"),
        ({"treatment": "b", "repository": "engine", "benchmarks": ["squ*", "squeese"]}, 404, "there is no benchmark 'squeese'"),
        ({"treatment": "--upload-pack=x", "repository": "engine"}, 400, "treatment: "),
        ({"treatment": "a b", "repository": "engine"}, 400, "treatment: expected a commit, branch or tag: one word that does"),
        ({"treatment": "b", "repository": "engine", "frob": 1}, 400, "frob: there is no such key"),
        (["treatment"], 400, "no JSON object"),
        ({"treatment": "b" * 70_000}, 413, "the body has more than 64KiB"),
    ],
)
async def test_a_comparison_that_cannot_be_is_refused(daemon: statusd.Daemon, body: object, code: int, error: str) -> None:
    got, answer = await daemon.post("/v1/experiments", body)
    assert got == code
    assert error in answer["error"]
    _, listed = await daemon.get("/v1/requests")
    assert listed["requests"] == []


async def test_who_asks_for_what_the_planner_refuses_hears_it_at_once(
    daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asks, "SETTLE_SECONDS", 60.0)

    async def plan(state: str, reason: str = "") -> None:
        async with daemon.house.events.subscribe() as happening:
            started.set()
            asked = await anext(happening)
            settled = requests.refuse if state == "refused" else lambda tx, request, _: requests.granted(tx, request)
            await daemon.house.store.write(lambda tx: settled(tx, asked.facts["id"], reason))

    for state, reason, expected in (("planned", "", 202), ("refused", "engine has no commit 'b'", 409)):
        started = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plan, state, reason)
            await started.wait()
            code, answer = await daemon.post("/v1/experiments", {"treatment": "b", "repository": "engine"})
        assert code == expected
        assert reason in answer.get("error", "")


async def test_a_comparison_of_cells_is_handed_on_or_refused_with_why(daemon: statusd.Daemon) -> None:
    wanted = {"model": "net", "treatment": "pytorch@host/mkl", "control": "caffe2@host"}
    daemon.controls.comparing = 7
    assert await daemon.post("/v1/comparisons", wanted) == (202, {"request": 7, "see": "/v1/requests/7"})
    me = peers.Peer(0, os.getuid(), os.getgid()).name
    assert daemon.controls.asked == [("compare", "net", "pytorch@host/mkl", "caffe2@host", me)]
    daemon.controls.comparing = errors.CommandError("both are the same")
    code, answer = await daemon.post("/v1/comparisons", wanted)
    assert (code, answer["error"]) == (409, "both are the same")
    for body, error in (
        ({}, "'model' is required"),
        (wanted | {"model": ""}, "model: "),
        (wanted | {"a": 1}, "a: there is no such key"),
    ):
        code, answer = await daemon.post("/v1/comparisons", body)
        assert code == 400
        assert error in answer["error"]


async def test_controls_are_told_who_asked(daemon: statusd.Daemon) -> None:
    for target in ("/v1/pause", "/v1/resume", "/v1/devices/phone/drain", "/v1/devices/phone/undrain"):
        assert (await daemon.post(target))[0] == 200
    me = peers.Peer(0, os.getuid(), os.getgid()).name
    assert daemon.controls.asked == [("pause", me), ("resume", me), ("drain", "phone", me), ("undrain", "phone", me)]
    code, answer = await daemon.post("/v1/devices/tablet/drain")
    assert (code, answer["error"], answer["hint"]) == (404, "there is no device 'tablet'", "known: lab-host, phone")


async def test_a_reload_tells_what_changed_or_what_is_wrong(daemon: statusd.Daemon) -> None:
    assert await daemon.post("/v1/reload") == (200, {"changes": ["device phone: added"]})
    daemon.controls.reloading = server.ReloadResult(applied=False, faults=("a.yaml:3:1: devices: no",))
    code, answer = await daemon.post("/v1/reload")
    assert (code, answer["faults"]) == (422, ["a.yaml:3:1: devices: no"])


async def test_dead_letters_are_sent_again(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        outbox.put(tx, [("lab", "all")], [model.Record(f"r{n}", "verdict", "{}") for n in range(3)])
        while batch := outbox.batch(tx.connection, "lab", records=1, size=100):
            outbox.bury(tx, "lab", batch[0], "no")

    await daemon.house.store.write(rows)
    assert await daemon.post("/v1/sinks/lab/resend") == (200, {"sink": "lab", "resent": 3})
    _, answer = await daemon.get("/v1/sinks")
    assert (answer["sinks"][0]["pending"], answer["sinks"][0]["dead"]) == (3, 0)
    assert (await daemon.post("/v1/sinks/nope/resend"))[0] == 404


async def test_who_sends_again_hears_that_the_sink_takes_nothing(daemon: statusd.Daemon) -> None:
    daemon.house.board.put("sink/lab", "paused", "401 Unauthorized; renew the token", fault=True)
    held_up = {"state": "paused", "reason": "401 Unauthorized; renew the token"}
    assert await daemon.post("/v1/sinks/lab/resend") == (200, {"sink": "lab", "resent": 0, **held_up})
    daemon.house.board.put("sink/lab", "ready")
    assert await daemon.post("/v1/sinks/lab/resend") == (200, {"sink": "lab", "resent": 0})


async def test_only_a_failed_build_is_built_again(daemon: statusd.Daemon) -> None:
    good, bad = await daemon.house.store.write(lambda tx: [statusd.build(tx, "a"), statusd.build(tx, "b", state="failed")])
    assert (await daemon.post(f"/v1/builds/{bad}/rebuild"))[0] == 200
    assert (await daemon.post(f"/v1/builds/{good}/rebuild"))[0] == 409
    states = await daemon.house.store.read(lambda connection: views.counts(connection).builds)
    assert states == {"built": 1, "queued": 1}


async def test_the_journal_is_copied_while_it_is_in_use(daemon: statusd.Daemon, tmp_path: Path) -> None:
    await daemon.house.store.write(lambda tx: statusd.build(tx, "a"))
    copy = tmp_path / "copy.db"
    code, answer = await daemon.post("/v1/backup", {"file": str(copy)})
    assert (code, answer) == (200, {"file": str(copy), "bytes": copy.stat().st_size})
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM builds").fetchone() == (1,)
    connection.close()
    code, answer = await daemon.post("/v1/backup", {"file": str(copy)})
    assert (code, answer["error"]) == (409, f"{copy} exists; name a new file")
    assert (await daemon.post("/v1/backup", {"file": "copy.db"}))[0] == 400


def test_operators_are_root_the_daemon_and_the_groups_named() -> None:
    mine = grp.getgrgid(os.getgid()).gr_name
    stranger = peers.Peer(1, 65_533, 65_533)
    assert peers.may_operate(peers.Peer(1, 0, 0), ())
    assert peers.may_operate(peers.Peer(1, os.getuid(), 65_533), ())
    assert not peers.may_operate(stranger, (mine, "no-such-group"))
    assert peers.may_operate(peers.Peer(1, 65_533, os.getgid()), (mine,))
    assert stranger.name == "65533"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
async def test_others_may_look_and_not_touch(daemon: statusd.Daemon) -> None:
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for request in sys.argv[1:]:\n"
        "    s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect('aibenchd.sock')\n"
        "    s.sendall(f'{request} HTTP/1.0\\r\\n\\r\\n'.encode())\n"
        "    print(s.makefile().read())\n"
    )
    daemon.path.parent.chmod(0o711)
    daemon.path.chmod(0o666)
    argv = [sys.executable, "-c", program, "GET /v1/status", "POST /v1/pause"]
    told = await anyio.run_process(argv, cwd=daemon.path.parent)
    looked, touched = told.stdout.decode().split("HTTP/1.0 ")[1:]
    assert looked.startswith("200 OK")
    assert touched.startswith("403 Forbidden")
    assert "members of no-such-group may" in touched
    assert daemon.controls.asked == []


async def test_findings_are_triaged_by_who_the_kernel_says(daemon: statusd.Daemon) -> None:
    def write(tx: store.Transaction) -> None:
        made = statusd.experiment(tx, statusd.pair(tx, "a", "b"), statusd.build(tx, "a"), **statusd.decided("regressed"))
        statusd.finding(tx, made, state="open")

    await daemon.house.store.write(write)
    me = pwd.getpwuid(os.getuid()).pw_name
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    code, told = await daemon.post("/v1/findings/1/mute", {"until": day, "why": "the driver is exchanged then"})
    assert (code, told) == (200, {"finding": 1, "state": "muted", "until": f"{day}T00:00:00+00:00"})
    _, muted = await daemon.get("/v1/findings?triage=muted")
    assert [(one["id"], one["triages"][0]["by"], one["triages"][0]["why"]) for one in muted["findings"]] == [
        (1, me, "the driver is exchanged then")
    ]
    assert (await daemon.get("/v1/findings?triage=none"))[1]["findings"] == []
    assert (await daemon.post("/v1/findings/1/accept", {"why": "worth it"}))[1]["state"] == "accepted"
    code, told = await daemon.post("/v1/findings/1/acknowledge")
    assert (code, told["error"]) == (409, "finding 1 is accepted: 'aibenchctl reopen' takes that back")
    assert (await daemon.post("/v1/findings/1/reopen"))[1]["state"] == "reopened"


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("accept", {}, "'why' is required"),
        ("accept", {"why": "  "}, "why: "),
        ("mute", {"why": "x"}, "'until' is required"),
        ("mute", {"why": "x", "until": "2001-01-01"}, "until: 2001-01-01 00:00+00:00 is past; name a day or time to come"),
        ("mute", {"why": "x", "until": "2999-01-01"}, " 366 days ahead; name an earlier day, or accept"),
        ("mute", {"why": "x", "until": "soon"}, "until: "),
        ("acknowledge", {"by": "somebody else"}, "by: there is no such key"),
    ],
)
async def test_a_triage_that_says_too_little_is_refused(
    daemon: statusd.Daemon, action: str, body: dict[str, str], words: str
) -> None:
    code, told = await daemon.post(f"/v1/findings/1/{action}", body)
    assert code == 400
    assert words in told["error"]
