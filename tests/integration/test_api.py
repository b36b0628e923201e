"""The daemon as its service manager starts it, and as the client and curl ask it."""

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CONFIGURATION = """\
version: 1
state_directory: {directory}/state
status: {{socket: {directory}/aibenchd.sock}}
devices:
  - {{name: lab-host, kind: local}}
sinks:
  - {{name: files, kind: local, directory: {directory}/records}}
"""
SECOND_SINK = "  - {{name: second, kind: local, directory: {directory}/second}}\n"
DEADLINE = 60.0  # seconds


@dataclass
class Running:
    """A daemon that said that it is ready."""

    directory: Path
    process: subprocess.Popen[bytes]
    heard: queue.SimpleQueue[bytes]

    @property
    def configuration(self) -> Path:
        return self.directory / "aibenchd.yaml"

    @property
    def socket(self) -> Path:
        return self.directory / "aibenchd.sock"

    def hear(self, wanted: str) -> dict[str, str]:
        """The next message to the service manager that says ``wanted``."""
        while True:
            message = dict(line.split("=", 1) for line in self.heard.get(timeout=DEADLINE).decode().splitlines())
            if wanted in message:
                return message

    def ask(self, *words: str, code: int = 0) -> str:
        """What ``aibenchctl WORDS`` prints."""
        argv = [sys.executable, "-m", "aibenchd.api.client", "-s", str(self.socket), *words]
        told = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert told.returncode == code, told.stderr
        return told.stdout or told.stderr

    def ask_json(self, *words: str) -> Any:
        return json.loads(self.ask("--json", *words))


@contextlib.contextmanager
def listening(path: Path) -> Iterator[queue.SimpleQueue[bytes]]:
    """A service manager's socket, and what was said to it: it is read at once, for its queue holds a few messages only."""
    heard = queue.SimpleQueue[bytes]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))

        def listen() -> None:
            while message := manager.recv(4096):
                heard.put(message)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            manager.shutdown(socket.SHUT_RD)
            thread.join()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "aibenchd.yaml").write_text(CONFIGURATION.format(directory=tmp_path))
    with listening(tmp_path / "notify") as heard, (tmp_path / "log").open("wb") as log:
        argv = [sys.executable, "-m", "aibenchd", "serve", str(tmp_path / "aibenchd.yaml")]
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        environment.pop("STATE_DIRECTORY", None)
        with subprocess.Popen(argv, env=environment, stdout=log, stderr=log) as process:
            running = Running(tmp_path, process, heard)
            try:
                running.hear("READY")
                yield running
            finally:
                process.kill()


@pytest.mark.parametrize("word", ["token", "metrics_listen"])
def test_what_it_cannot_begin_with_is_said_in_one_line(tmp_path: Path, word: str) -> None:
    path = tmp_path / "aibenchd.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = {
            "token": "dashboard: {listen: 127.0.0.1:0, token_file: ./no-token}\n",
            "metrics_listen": f"status: {{metrics_listen: 127.0.0.1:{taken.getsockname()[1]}}}\n",
        }
        path.write_text(f"version: 1\nstate_directory: {tmp_path}/state\n{wrong[word]}")
        argv = [sys.executable, "-m", "aibenchd", "serve", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert word in done.stderr


@pytest.mark.parametrize(("source", "said"), [("from-systemd", "CREDENTIALS_DIRECTORY is not set"), ("./empty", "is empty")])
def test_a_token_that_it_cannot_begin_with_is_named_by_file_line_and_key(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "aibenchd.yaml"
    (tmp_path / "empty").touch(0o600)
    text = f"version: 1\nstate_directory: {tmp_path}/state\ndashboard:\n  listen: 127.0.0.1:0\n  token_file: {source}\n"
    path.write_text(text)
    argv = [sys.executable, "-m", "aibenchd", "serve", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}:5:3: dashboard.token_file: ")
    assert said in line


def test_a_daemon_is_asked_and_told(running: Running) -> None:
    status = running.ask_json("status")
    assert [device["name"] for device in status["devices"]] == ["lab-host"]
    assert status["config"] == str(running.configuration)
    assert "lab-host" in running.ask("status")
    running.ask("pause")
    assert running.ask_json("status")["paused"] is True
    running.ask("resume")
    assert running.ask_json("status")["paused"] is False
    running.ask("drain", "lab-host")
    running.ask("undrain", "lab-host")
    running.ask("backup", str(running.directory / "copy.db"))
    with sqlite3.connect(running.directory / "copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM experiments").fetchone() == (0,)
    copy.close()
    assert running.hear("WATCHDOG") == {"WATCHDOG": "1"}


def test_a_reload_applies_what_is_good_and_leaves_what_is_bad(running: Running) -> None:
    good = running.configuration.read_text()
    running.configuration.write_text(good + SECOND_SINK.format(directory=running.directory))
    assert "second" in running.ask("reload")
    assert "MONOTONIC_USEC" in running.hear("RELOADING")
    running.hear("READY")
    running.configuration.write_text(good.replace("devices:", "devises:"))
    assert "devises" in running.ask("reload", code=3)
    running.hear("READY")
    assert [sink["name"] for sink in running.ask_json("sinks")["sinks"]] == ["files", "second"]
    assert [fault["unit"] for fault in running.ask_json("status")["faults"]] == ["daemon/configuration"]
    running.configuration.write_text(good)
    running.process.send_signal(signal.SIGHUP)
    running.hear("READY")
    assert [sink["name"] for sink in running.ask_json("sinks")["sinks"]] == ["files"]


def test_it_stops_when_told_and_takes_its_socket_along(running: Running) -> None:
    running.process.terminate()
    assert "EXTEND_TIMEOUT_USEC" in running.hear("STOPPING")
    assert running.process.wait(DEADLINE) == 0, (running.directory / "log").read_text()
    assert not running.socket.exists()
    assert "does not run" in running.ask("status", code=4)


def test_watchers_that_go_away_leave_a_log_of_json_lines(running: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as watching:
        watching.settimeout(DEADLINE)
        watching.connect(str(running.socket))
        watching.sendall(b"GET /v1/events HTTP/1.0\r\n\r\n")
        assert watching.recv(4096).startswith(b"HTTP/1.0 200 OK")
    for word in ("pause", "resume", "pause"):
        running.ask(word)
    running.process.terminate()
    assert running.process.wait(DEADLINE) == 0
    lines = [json.loads(line) for line in (running.directory / "log").read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("warning", "error")]
    assert lines[-1]["event"] == "stopped"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_is_client_enough(running: Running) -> None:
    def curl(*words: str) -> str:
        argv = ["curl", "--silent", "--unix-socket", str(running.socket), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout

    assert json.loads(curl("http://localhost/v1/experiments")) == {"experiments": [], "next": None}
    assert json.loads(curl("--data", "", "http://localhost/v1/pause")) == {"paused": True}
    assert "aibenchd_unit_state{" in curl("http://localhost/metrics")
