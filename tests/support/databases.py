"""Real databases that take metrics, each a process on loopback: InfluxDB 1, VictoriaMetrics, Prometheus."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import remotes

USER, PASSWORD = "bench", "a pass:word"
START_SECONDS = 30


@dataclass
class Database:
    """One that listens at ``url``."""

    url: str

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """Ask it something, as whoever may."""
        return self._asked("GET", path, parameters)

    def post(self, path: str, body: str = "", **parameters: str) -> httpx.Response:
        return self._asked("POST", path, parameters, content=body)

    def _asked(self, method: str, path: str, parameters: dict[str, str], **more: str) -> httpx.Response:
        with httpx.Client(auth=(USER, PASSWORD), timeout=30, trust_env=False) as client:
            return client.request(method, f"{self.url}{path}", params=parameters, **more)

    def selected(self, database: str, query: str) -> list[dict[str, Any]]:
        """InfluxDB: the series that a query finds."""
        (result,) = self.get("/query", db=database, q=query, epoch="ns").json()["results"]
        return list(result.get("series", ()))


@contextlib.contextmanager
def influxdb(directory: Path) -> Iterator[Database]:
    """InfluxDB 1 with a database ``bench``, that a user may write to."""
    program = _program("influxd", "influxdb")
    port, inner = remotes.free_port(), remotes.free_port()
    configuration = directory / "influxdb.conf"
    configuration.write_text(
        f'''
reporting-enabled = false
bind-address = "127.0.0.1:{inner}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = true
log-enabled = false
[ifql]
enabled = false
[flux]
enabled = false
'''
    )
    with _running([program, "-config", str(configuration)], f"http://127.0.0.1:{port}", "/ping", directory) as database:
        database.post("/query", q=f"CREATE USER \"{USER}\" WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES").raise_for_status()
        database.post("/query", q="CREATE DATABASE bench").raise_for_status()
        yield database


@contextlib.contextmanager
def victoria_metrics(directory: Path) -> Iterator[Database]:
    """VictoriaMetrics, which takes the line protocol of InfluxDB 1 and 2."""
    program = _program("victoria-metrics", "victoria-metrics")
    port = remotes.free_port()
    arguments = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={directory}/data", "-retentionPeriod=100y"]
    with _running([program, *arguments], f"http://127.0.0.1:{port}", "/health", directory) as database:
        yield database


@contextlib.contextmanager
def prometheus(
    directory: Path, *arguments: str, configuration: str = "", at_least: tuple[int, int] = (2, 0)
) -> Iterator[Database]:
    """Prometheus, of some version at least."""
    program = _program("prometheus", "prometheus")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    assert version, said
    if (int(version[1]), int(version[2])) < at_least:
        pytest.skip(f"prometheus {version[1]}.{version[2]} is installed, this needs {at_least[0]}.{at_least[1]}, as of Debian 13")
    port, path = remotes.free_port(), directory / "prometheus.yml"
    path.write_text(configuration)
    own = [f"--config.file={path}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with _running([program, *own, *arguments], f"http://127.0.0.1:{port}", "/-/ready", directory) as database:
        yield database


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {package})")
    return found


@contextlib.contextmanager
def _running(command: Sequence[str], url: str, ready: str, directory: Path) -> Iterator[Database]:
    log = directory / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=directory) as process:
        try:
            _await(process, f"{url}{ready}", log)
            yield Database(url)
        finally:
            process.kill()


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).is_success:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
