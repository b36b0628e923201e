"""Metrics, read back by the rules of Prometheus' text format."""

import re

import statusd

from aibenchd import model
from aibenchd.api import metrics
from aibenchd.store import outbox

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


async def test_metrics_say_what_the_journal_and_the_board_say(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        built = statusd.build(tx, "a")
        pair = statusd.pair(tx, "a")
        first = statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
        statusd.experiment(tx, pair, built, device="phone")
        statusd.block(tx, first, 0)
        statusd.block(tx, first, 1, log="log")
        outbox.put(tx, [("lab", "all")], [model.Record("r", "verdict", "{}")])

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
