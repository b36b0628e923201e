"""The socket itself."""

import contextlib
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest
import remotes
import statusd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, settings
from aibenchd.api import answers, server


def test_the_socket_has_the_mode_asked_for_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "run" / "a.sock"
    with server.unix_socket(path, 0o620, ""):
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        assert [entry.name for entry in path.parent.iterdir()] == ["a.sock"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with server.unix_socket(path, 0o600, ""), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with server.unix_socket(path, 0o600, ""):
        with pytest.raises(errors.SocketError, match="another aibenchd answers there"), server.unix_socket(path, 0o600, ""):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_successor_s_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with server.unix_socket(path, 0o600, ""):
        path.unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(path))
    assert path.exists()
    successor.close()


@pytest.mark.parametrize(
    ("name", "group", "error"),
    [
        ("file", "", "is no socket; remove it"),
        ("file/a.sock", "", "cannot listen there"),
        ("x" * 100 + ".sock", "", "too long for the path of a socket"),
        ("a.sock", "no-such-group", "no group 'no-such-group'"),
    ],
)
def test_a_socket_that_cannot_be_says_why(tmp_path: Path, name: str, group: str, error: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.SocketError, match=error), server.unix_socket(tmp_path / name, 0o600, group):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("configured", "environment", "path"),
    [
        (None, {}, "/state/aibenchd.sock"),
        (None, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a/aibenchd.sock"),
        ("/x.sock", {"RUNTIME_DIRECTORY": "/run/a"}, "/x.sock"),
    ],
)
def test_where_the_socket_is(configured: str | None, environment: dict[str, str], path: str) -> None:
    chosen = settings.StatusSettings(socket=configured)
    assert server.default_path(chosen, Path("/state"), environment) == Path(path)


async def test_metrics_alone_are_answered_on_tcp(daemon: statusd.Daemon, tmp_path: Path) -> None:
    port = remotes.free_port()
    status = settings.StatusSettings(metrics_listen=f"127.0.0.1:{port}")
    daemon.configure(status=status)
    async with anyio.create_task_group() as tasks, statusd.aiohttp.ClientSession() as client:
        await tasks.start(server.serve, daemon.house, tmp_path / "other.sock")
        async with client.get(f"http://127.0.0.1:{port}/metrics") as reply:
            assert (reply.status, reply.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        for method, target in (("GET", "/v1/status"), ("POST", "/v1/pause"), ("POST", "/metrics")):
            async with client.request(method, f"http://127.0.0.1:{port}{target}") as reply:
                assert reply.status in (404, 405)
                assert "/v1" not in str((await reply.json())["routes"])
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["no.such.host.invalid:1", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_says_why(address: str) -> None:
    with (
        pytest.raises(errors.SocketError, match=r"status.metrics_listen: (cannot listen on|there is no port)"),
        server.tcp_socket("status.metrics_listen", address),
    ):
        pass


async def test_a_question_that_takes_too_long_is_broken_off(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from aibenchd.api import reads
    from aibenchd.store import paging

    monkeypatch.setattr(reads, "QUERY_SECONDS", 0.0)
    monkeypatch.setattr(paging, "STEPS", 1)
    code, answer = await daemon.get("/v1/experiments")
    assert (code, answer["hint"]) == (503, "ask for less: a smaller limit, or more filters")
    monkeypatch.undo()
    assert (await daemon.get("/v1/experiments"))[0] == 200


async def test_a_bug_is_told_as_one(daemon: statusd.Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(daemon.controls, "status", broken)
    code, answer = await daemon.get("/v1/status")
    assert (code, answer["error"]) == (500, "aibenchd is at fault")
    assert "bug" not in str(answer)


async def test_a_client_that_talks_nonsense_hurts_nobody(daemon: statusd.Daemon) -> None:
    for nonsense in (
        b"\x16\x03\x01\x00",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"A" * 100_000,
    ):
        answer = b""
        async with await anyio.connect_unix(os.fspath(daemon.path)) as connection:
            with anyio.fail_after(30), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await connection.send(nonsense)
                await connection.send_eof()
                answer = await connection.receive()
        assert b" 200 " not in answer
    assert (await daemon.get("/v1/status"))[0] == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_lists_are_encoded_item_by_item_and_nobody_sees_it(value: dict[str, Any]) -> None:
    assert answers.dumps(value) == json.dumps(value, ensure_ascii=False).encode() + b"\n"


def test_json_has_no_word_for_what_is_not_finite() -> None:
    assert (
        answers.dumps({"a": [float("nan"), 1.5, {"b": float("inf")}], "c": "é"})
        == '{"a": [null, 1.5, {"b": null}], "c": "é"}\n'.encode()
    )
