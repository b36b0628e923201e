"""Logs and events."""

import json
import os
import select
from pathlib import Path

import anyio
import anyio.abc
import pytest
import statusd

from aibenchd import events
from aibenchd.api import streams


async def logged(daemon: statusd.Daemon, log: str) -> int:
    return await daemon.house.store.write(lambda tx: statusd.build(tx, "a", log=log))


async def test_logs_are_streamed(daemon: statusd.Daemon, tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/build.log").write_text(text)
    number = await logged(daemon, "logs/build.log")
    assert await daemon.get(f"/v1/logs/build/{number}") == (200, text)

    def trial(tx: object) -> int:
        experiment = statusd.experiment(tx, statusd.pair(tx, "a"), number)
        return statusd.block(tx, experiment, 0, log="logs/build.log")

    failed = await daemon.house.store.write(trial)
    assert await daemon.get(f"/v1/logs/trial/{failed}") == (200, text)
    code, answer = await daemon.get(f"/v1/logs/trial/{failed - 1}")
    assert (code, answer["error"]) == (404, f"no log of trial {failed - 1} is kept")


async def test_a_long_log_is_shown_from_its_end(daemon: statusd.Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOG_LIMIT", 100_000)
    (tmp_path / "log").write_bytes(os.urandom(50) + b"x" * 100_000)
    number = await logged(daemon, "log")
    async with daemon.client() as client, client.get(f"http://aibenchd/v1/logs/build/{number}") as reply:
        assert reply.headers["X-Left-Out"] == "50"
        assert await reply.read() == b"x" * 100_000


async def test_a_profile_is_sent_as_the_file_that_it_is(daemon: statusd.Daemon, tmp_path: Path) -> None:
    whole = os.urandom(200_000)
    (tmp_path / "logs/profile").mkdir(parents=True)
    (tmp_path / "logs/profile/7-control.perfetto-trace.gz").write_bytes(whole)
    (tmp_path / "logs/secret").write_text("secret")
    address = "http://aibenchd/v1/logs/profile/"
    async with daemon.client() as client:
        async with client.get(f"{address}7-control.perfetto-trace.gz") as reply:
            assert reply.headers["Content-Disposition"] == 'attachment; filename="7-control.perfetto-trace.gz"'
            assert await reply.read() == whole
        for name in ("8-control.perfetto-trace.gz", "..%2Fsecret", "7-control", "7-control.%2e%2e"):
            async with client.get(f"{address}{name}") as reply:
                assert reply.status == 404


@pytest.mark.parametrize("log", ["../secret", "/etc/passwd", "out", "outside/secret", "pipe", "."])
async def test_nothing_but_files_of_the_state_directory_is_shown(tmp_path: Path, log: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "secret").write_text("secret")
    (state / "out").symlink_to(tmp_path / "secret")
    (state / "outside").symlink_to(tmp_path)
    os.mkfifo(state / "pipe")
    async with statusd.serving(state) as daemon:
        code, answer = await daemon.get(f"/v1/logs/build/{await logged(daemon, log)}")
    assert code in (403, 409)
    assert "secret" not in str(answer)


async def test_a_log_that_is_gone_says_so(daemon: statusd.Daemon) -> None:
    code, answer = await daemon.get(f"/v1/logs/build/{await logged(daemon, 'gone')}")
    assert (code, answer["error"]) == (404, "its log is gone")


async def test_events_are_told_as_they_happen(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    async with daemon.client() as client, client.get("http://aibenchd/v1/events") as reply:
        assert reply.content_type == "text/event-stream"
        assert (await reply.content.readline()).startswith(b": ")  # a sign of life
        daemon.house.events.publish(events.Event("experiment.decided", {"id": 7}))
        with anyio.fail_after(30):
            while (line := await reply.content.readline()) != b"event: experiment.decided\n":
                assert line in (b"\n", b": still here\n")
            data = json.loads((await reply.content.readline()).removeprefix(b"data: "))
    assert (data["topic"], data["id"]) == ("experiment.decided", 7)


async def test_watchers_are_bounded(daemon: statusd.Daemon) -> None:
    async with daemon.client() as client:
        replies = [await client.get("http://aibenchd/v1/events") for _ in range(streams.WATCHERS_AT_ONCE)]
        assert (await daemon.get("/v1/events"))[0] == 503
        for reply in replies:
            reply.close()


async def test_watchers_that_go_away_are_let_go_of_without_a_word(
    daemon: statusd.Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon.client() as client:
        for reply in [await client.get("http://aibenchd/v1/events") for _ in range(streams.WATCHERS_AT_ONCE)]:
            reply.close()
        with anyio.fail_after(60):
            while (again := await client.get("http://aibenchd/v1/events")).status == 503:
                daemon.house.events.publish(events.Event("experiment.decided", {"id": 7}))
                await anyio.sleep(0.01)
        again.close()
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_a_watcher_that_takes_nothing_is_left(
    daemon: statusd.Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.05)
    async with await anyio.connect_unix(daemon.path) as connection:
        await connection.send(b"GET /v1/events HTTP/1.0\r\nHost: aibenchd\r\n\r\n")
        assert (await connection.receive()).startswith(b"HTTP/1.0 200 OK")
        end = select.poll()
        end.register(connection.extra(anyio.abc.SocketAttribute.raw_socket), 0)
        with anyio.fail_after(60):
            while not end.poll(0):
                daemon.house.events.publish(events.Event("experiment.decided", {"much": "x" * 10_000}))
                await anyio.sleep(0.001)
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_watchers_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with statusd.serving(tmp_path) as daemon:
        client = daemon.client()
        reply = await client.get("http://aibenchd/v1/events")
    with anyio.fail_after(30):
        assert await reply.content.read() == b""
    await client.close()
