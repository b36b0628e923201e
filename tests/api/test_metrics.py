"""Metrics, read back by the rules of Prometheus' text format."""

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import databases
import pytest
import remotes
import statusd

from aibenchd import model, settings
from aibenchd.api import metrics, server
from aibenchd.store import outbox, store

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


def read(text: str) -> dict[str, dict[str, float]]:
    """Metrics by name, and by their labels as text; every sample has its HELP and TYPE before it."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in found
            found[name] = {}
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in ([name, "gauge"], [name, "counter"])
        else:
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            assert matched[1] == name
            found[name][matched[2] or ""] = float(matched[3])
    return found


def rows(tx: store.Transaction) -> None:
    """A journal with something of everything."""
    built = statusd.build(tx, "a")
    pair = statusd.pair(tx, "a")
    first = statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
    statusd.experiment(tx, pair, built, device="phone")
    statusd.block(tx, first, 0)
    statusd.block(tx, first, 1, log="log")
    outbox.put(tx, [("lab", "all")], [model.Record("r", "verdict", "{}")])


async def test_metrics_say_what_the_journal_and_the_board_say(daemon: statusd.Daemon) -> None:
    await daemon.house.store.write(rows)
    daemon.house.board.put("device/phone", 'in a "bad"\nway\\', fault=True)
    code, text = await daemon.get("/metrics")
    assert code == 200
    found = read(text)
    assert found["aibenchd_experiments"] == {
        'device="lab-host",state="decided",verdict="regressed"': 1,
        'device="phone",state="open",verdict=""': 1,
    }
    assert found["aibenchd_blocks_total"] == {'state="valid"': 1, 'state="invalid"': 1}
    assert found["aibenchd_trials_total"] == {'outcome="ok"': 3, 'outcome="failed"': 1}
    assert found["aibenchd_queue_seconds"]['device="phone"'] == 0  # it is there, and nothing is known to wait for it
    assert found["aibenchd_builds"] == {'state="built"': 1}
    assert found["aibenchd_outbox_records"] == {'sink="lab",kind="verdict",state="pending"': 1}
    assert found["aibenchd_unit_fault"] == {'kind="device",name="phone"': 1}
    assert list(found["aibenchd_unit_state"]) == [r'kind="device",name="phone",state="in a \"bad\"\nway\\"']
    assert found["process_resident_memory_bytes"][""] > 1 << 20
    assert found["process_cpu_seconds_total"][""] > 0
    assert found["process_open_fds"][""] > 3


def test_a_help_text_stays_on_its_line() -> None:
    text = metrics.render([metrics.Family("a", "gauge", "one\ntwo \\", [({}, 1)])])
    assert text == "# HELP a one\\ntwo \\\\\n# TYPE a gauge\na 1\n"


async def test_prometheus_finds_no_fault_with_them(daemon: statusd.Daemon) -> None:
    """promtool reads the text as Prometheus does, and tells of names and kinds that are not as they should be."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    await daemon.house.store.write(rows)
    daemon.house.board.put("device/phone", 'in a "bad"\nway\\', fault=True)
    _, text = await daemon.get("/metrics")
    done = await anyio.run_process([promtool, "check", "metrics"], input=text.encode(), check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_prometheus_scrapes_them(daemon: statusd.Daemon, tmp_path: Path) -> None:
    port = remotes.free_port()
    daemon.configure(status=settings.StatusSettings(metrics_listen=f"127.0.0.1:{port}"))
    await daemon.house.store.write(rows)
    scrape = {"job_name": "aibenchd", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.serve, daemon.house, tmp_path / "other.sock")
        configuration = json.dumps({"scrape_configs": [scrape]})
        with databases.prometheus(tmp_path, configuration=configuration) as database, anyio.fail_after(60):
            found: list[Any] = []
            while not found:
                await anyio.sleep(0.1)
                asked = functools.partial(database.get, "/api/v1/query", query="aibenchd_outbox_records")
                found = (await anyio.to_thread.run_sync(asked)).json()["data"]["result"]
        tasks.cancel_scope.cancel()
    (one,) = found
    assert one["value"][1] == "1"
    assert {name: one["metric"][name] for name in ("sink", "kind", "state", "job")} == {
        "sink": "lab",
        "kind": "verdict",
        "state": "pending",
        "job": "aibenchd",
    }
