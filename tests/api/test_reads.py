"""What GET answers."""

import json
import math

import pytest
import statusd

from aibenchd import model, plugins, settings
from aibenchd.store import outbox, schema


async def test_status_has_everything_at_a_glance(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        built = statusd.build(tx, "b" * 40)
        pair = statusd.pair(tx, "b" * 40, "a" * 40)
        statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
        statusd.experiment(tx, pair, built, device="phone")
        statusd.revision(tx, "b" * 40, 2)
        tx.connection.execute(schema.repositories.insert().values(name="engine", head="b" * 40, polled_at=statusd.NOW))
        outbox.put(tx, [("lab", "all")], [model.Record("r1", "verdict", "{}")])

    await daemon.house.store.write(rows)
    daemon.house.board.put("device/phone", "unreachable", "plug it in", fault=True)
    code, status = await daemon.get("/v1/status")
    assert code == 200
    assert status["version"] == "1.2.3"
    assert [(fault["unit"], fault["reason"]) for fault in status["faults"]] == [("device/phone", "plug it in")]
    assert status["experiments"] == {"decided": 1, "open": 1}
    assert status["verdicts"] == {"regressed": 1}
    assert status["builds"] == {"built": 1}
    assert [(device["name"], device["state"], device["experiments"]) for device in status["devices"]] == [
        ("lab-host", "unknown", {"decided": 1}),
        ("phone", "unreachable", {"open": 1}),
    ]
    assert [(one["name"], one.get("head"), one.get("subject")) for one in status["repositories"]] == [
        ("engine", "b" * 40, "change 2"),
        ("other", None, None),
    ]
    assert [(sink["name"], sink["pending"], sink["dead"]) for sink in status["sinks"]] == [("lab", 1, 0)]
    assert [item["verdict"] for item in status["recent"]] == ["regressed"]


async def test_a_list_goes_on_where_its_page_ended(daemon: statusd.Daemon) -> None:
    await daemon.house.store.write(lambda tx: [statusd.experiment(tx, *_pair(tx, str(n))) for n in range(5)])
    seen, cursor = [], ""
    while cursor is not None:
        _, page = await daemon.get(f"/v1/experiments?limit=2{f'&cursor={cursor}' if cursor else ''}")
        seen += [item["id"] for item in page["experiments"]]
        cursor = page["next"]
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [4, 3, 2, 1]),
        ("state=decided", [3, 2]),
        ("verdict=regressed", [2]),
        ("device=phone", [4]),
        ("repository=other", [3]),
        ("repository=engine&state=decided", [2]),
        ("benchmark=squeeze", [4, 3, 2, 1]),
        (f"benchmark={statusd.DIGEST}", [4, 3, 2, 1]),
        ("state=cancelled&device=phone", []),
    ],
)
async def test_experiments_are_filtered(daemon: statusd.Daemon, query: str, expected: list[int]) -> None:
    def rows(tx: object) -> None:
        statusd.experiment(tx, *_pair(tx, "a"))
        statusd.experiment(tx, *_pair(tx, "b"), **statusd.decided("regressed"))
        statusd.experiment(tx, *_pair(tx, "c", repository="other"), **statusd.decided("improved"))
        statusd.experiment(tx, *_pair(tx, "d"), device="phone")

    await daemon.house.store.write(rows)
    code, page = await daemon.get(f"/v1/experiments?{query}")
    assert (code, [item["id"] for item in page["experiments"]]) == (200, expected)


async def test_a_name_that_is_in_no_configuration_any_more_is_no_mistake(daemon: statusd.Daemon) -> None:
    await daemon.house.store.write(lambda tx: statusd.experiment(tx, *_pair(tx, "a"), device="sold", identifier="old"))
    for query in (
        "history?benchmark=old&device=sold",
        f"history?benchmark={statusd.DIGEST}&device=phone",
        "builds?repository=other",
    ):
        assert (await daemon.get(f"/v1/{query}"))[0] == 200
    for query, error, hint in (
        ("history?benchmark=odl&device=sold", "there is no benchmark 'odl'", "known: squeeze"),
        ("history?benchmark=old&device=phoen", "there is no device 'phoen'", "did you mean 'phone'?"),
    ):
        assert await daemon.get(f"/v1/{query}") == (404, {"error": error, "hint": hint})


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/v1/experiments?limit=0", "limit"),
        ("/v1/experiments?limit=1001", "limit"),
        ("/v1/experiments?limit=many", "limit"),
        ("/v1/experiments?cursor=99999999999999999999", "cursor"),
        ("/v1/experiments?state=done", "state"),
        ("/v1/experiments?stat=open", "stat: there is no such key"),
        ("/v1/history?benchmark=squeeze", "device"),
    ],
)
async def test_a_question_that_is_wrong_is_refused_by_name(daemon: statusd.Daemon, target: str, error: str) -> None:
    code, answer = await daemon.get(target)
    assert code == 400
    assert error in answer["error"]
    assert answer["hint"].startswith("the keys are limit, cursor") is ("no such key" in error)  # else they are no help


async def test_an_experiment_is_shown_with_all_that_it_has(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> int:
        number = statusd.experiment(tx, *_pair(tx, "a"))
        statusd.block(tx, number, 0)
        statusd.block(tx, number, 1, log="logs/trial.log")
        statistics = {"p50": 1.5, "mad": math.nan}
        tx.connection.execute(
            schema.results.insert().values(experiment=number, type="NET", metric="latency", unit="us", treatment=statistics)
        )
        return number

    number = await daemon.house.store.write(rows)
    code, shown = await daemon.get(f"/v1/experiments/{number}")
    assert code == 200
    assert shown["design"] == {"seed": 1, "rule": {}}
    assert shown["builds"]["treatment"]["commit"] == "a"
    assert shown["builds"]["control"] is None
    assert [[trial["outcome"] for trial in block["trials"]] for block in shown["blocks"]] == [["ok", "ok"], ["ok", "failed"]]
    assert [result["treatment"] for result in shown["results"]] == [{"p50": 1.5, "mad": None}]


async def test_what_is_not_there_is_404(daemon: statusd.Daemon) -> None:
    for target in ("/v1/experiments/7", "/v1/requests/7", "/v1/logs/build/7", "/v1/logs/trial/7"):
        code, answer = await daemon.get(target)
        assert code == 404
        assert "7" in answer["error"]


async def test_a_route_that_is_not_there_is_answered_with_those_that_are(daemon: statusd.Daemon) -> None:
    code, answer = await daemon.get("/v2/status")
    assert (code, answer["error"]) == (404, "there is no GET /v2/status")
    assert any(route.startswith("GET /v1/experiments/{id}:") for route in answer["routes"])
    code, answer = await daemon.post("/v1/status")
    assert (code, answer["error"]) == (405, "there is no POST /v1/status")


async def test_findings_are_shown_newest_first_with_what_measured_them_again(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        for name, state in enumerate(["unconfirmed", "open", "suspect"]):
            suspect = statusd.experiment(tx, *_pair(tx, str(name)), **statusd.decided("regressed"))
            statusd.finding(tx, suspect, state=state)
        again = statusd.decided("regressed") | {"estimate": 0.04, "low": 0.02, "high": 0.06, "finding": 2}
        verify = statusd.experiment(tx, statusd.pair(tx, "1", run_type="verify"), 2, **again)
        assert verify == 4
        later = statusd.experiment(tx, *_pair(tx, "9"), **statusd.decided("regressed"))
        tx.connection.execute(schema.sightings.insert().values(experiment=later, finding=2))

    await daemon.house.store.write(rows)
    _, first = await daemon.get("/v1/findings?limit=2")
    shown = [
        {name: item[name] for name in ("id", "state", "confirmed", "suspect", "verify", "estimate", "sightings")}
        for item in first["findings"]
    ]
    assert shown == [
        {"id": 3, "state": "suspect", "confirmed": False, "suspect": 3, "verify": None, "estimate": 0.05, "sightings": 0},
        {"id": 2, "state": "open", "confirmed": True, "suspect": 2, "verify": 4, "estimate": 0.04, "sightings": 1},
    ]
    assert (await daemon.get("/v1/status"))[1]["findings"] == {"open": 1, "suspect": 1, "unconfirmed": 1}
    _, rest = await daemon.get(f"/v1/findings?limit=2&cursor={first['next']}")
    assert ([item["id"] for item in rest["findings"]], rest["next"]) == ([1], None)


async def test_an_open_finding_waits_for_no_device(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        suspect = statusd.experiment(tx, *_pair(tx, "a"), device="sold", **statusd.decided("regressed"))
        statusd.finding(tx, suspect, state="open", reason="slower")

    await daemon.house.store.write(rows)
    assert (await daemon.get("/v1/findings/1"))[1]["reason"] == "slower"


async def test_a_comparison_of_cells_regresses_no_commit(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        statusd.revision(tx, "a", 1)
        tx.connection.execute(schema.repositories.insert().values(name="engine", head="a"))
        statusd.experiment(tx, *_pair(tx, "a", run_type="compare"), **statusd.decided("regressed"))

    await daemon.house.store.write(rows)
    assert (await daemon.get("/v1/findings"))[1]["findings"] == []
    assert (await daemon.get("/v1/history?benchmark=squeeze&device=lab-host"))[1]["history"] == []
    assert (await daemon.get("/v1/revisions"))[1]["revisions"][0]["experiments"] == {}
    assert [one["verdict"] for one in (await daemon.get("/v1/experiments"))[1]["experiments"]] == ["regressed"]


async def test_coverage_shows_the_newest_of_each_cell_and_what_is_not_planned(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        for commit, verdict in (("a", "regressed"), ("b", "unchanged")):
            number = statusd.experiment(tx, *_pair(tx, commit), **statusd.decided(verdict))
            statusd.block(tx, number, 0)
            statusd.block(tx, number, 1)
        statusd.experiment(tx, *_pair(tx, "c"), device="sold", **statusd.decided("unchanged"))

    await daemon.house.store.write(rows)
    _, answer = await daemon.get("/v1/coverage")
    assert [(cell["column"], cell["state"], cell["verdict"], cell["commit"]) for cell in answer["coverage"]] == [
        ("pytorch@lab-host", "measured", "unchanged", "b"),
        ("pytorch@phone", "unplanned", None, None),
    ]
    (measured, _) = answer["coverage"]
    assert measured["measured"] == {
        "key": "", "unit": "", "median": 1.1, "low": 1.1, "high": 1.1, "confidence": 0.5, "processes": 2,
    }  # fmt: skip


async def test_history_lays_revisions_side_by_side(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        for position, commit in enumerate("abc"):
            statusd.revision(tx, commit, position)
            number = statusd.experiment(tx, *_pair(tx, commit), **statusd.decided("unchanged"))
            for kind, metric in (("NET", "latency"), ("NET", "memory"), ("ID_0_Conv", "latency")):
                values = {"experiment": number, "type": kind, "metric": metric, "unit": "us", "treatment": {"p50": position}}
                tx.connection.execute(schema.results.insert().values(values))
        statusd.experiment(tx, *_pair(tx, "d"))

    await daemon.house.store.write(rows)
    _, answer = await daemon.get("/v1/history?benchmark=squeeze&device=lab-host&metric=latency")
    points = [
        (item["treatment"], item["subject"], [one["treatment"]["p50"] for one in item["results"]]) for item in answer["history"]
    ]
    assert points == [("c", "change 2", [2]), ("b", "change 1", [1]), ("a", "change 0", [0])]


async def test_history_chains_the_levels_of_commits(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        for position, commit in enumerate("abcd"):
            statusd.revision(tx, commit, position)
        for older, newer in ("ab", "bc", "cd"):
            pair = statusd.pair(tx, newer, control=older)
            statusd.experiment(tx, pair, statusd.build(tx, newer), control_build=1, **statusd.decided("unchanged"))

    await daemon.house.store.write(rows)
    _, answer = await daemon.get("/v1/history?benchmark=squeeze&device=lab-host")
    levels = [(one["commit"], round(one["ratio"], 4)) for one in answer["series"]["levels"]]
    assert levels == [("a", 1.0), ("b", 1.05), ("c", 1.1025), ("d", 1.1576)]
    assert answer["series"]["number"] == "mean of the fastest eighth"
    widths = [one["high"] - one["low"] for one in answer["series"]["levels"]]
    assert widths == sorted(widths)
    assert answer["series"]["creep"]["creeps"] is False


async def test_revisions_tell_what_became_of_them(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        for position, commit in enumerate("abc"):
            statusd.revision(tx, commit, position)
        statusd.revision(tx, "beside", 2, state="gone", on_branch=False)
        pair, built = _pair(tx, "c")
        statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
        statusd.experiment(tx, pair, built, device="phone")
        tx.connection.execute(schema.repositories.insert().values(name="engine", head="c"))

    await daemon.house.store.write(rows)
    for target in ("/v1/revisions?limit=2", "/v1/revisions?repository=engine&limit=2"):
        _, answer = await daemon.get(target)
        assert [(item["commit"], item["experiments"]) for item in answer["revisions"]] == [
            ("c", {"regressed": 1, "open": 1}),
            ("b", {}),
        ]
    _, answer = await daemon.get(f"/v1/revisions?repository=engine&cursor={answer['next']}")
    assert [item["commit"] for item in answer["revisions"]] == ["a"]


async def test_sinks_show_their_dead_letters(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        outbox.put(tx, [("lab", "all")], [model.Record(f"r{n}", "verdict", "{}") for n in range(3)])
        first = outbox.batch(tx.connection, "lab", records=1, size=100)[0]
        outbox.bury(tx, "lab", first, "400 Bad Request")

    await daemon.house.store.write(rows)
    _, answer = await daemon.get("/v1/sinks")
    (sink,) = answer["sinks"]
    assert (sink["pending"], sink["dead"]) == (2, 1)
    assert [(letter["record"], letter["reason"]) for letter in sink["dead_letters"]] == [("r0", "400 Bad Request")]


async def test_the_configuration_is_shown_without_secrets(daemon: statusd.Daemon) -> None:
    for target in ("/v1/config", "/v1/status"):
        _, answer = await daemon.get(target)
        assert answer["repositories"][0]["name"] == "engine"
        assert "hunter2" not in str(answer)


OWN_KEYS: dict[str, model.JsonObject] = {
    "adb": {"serial": "0A1B", "directory": "/data/local/tmp/bench"},
    "gpu": {"index": 0, "meter": {"kind": "nvml", "gpu": "0"}},
    "local": {"directory": "/srv/bench", "helper": "/run/helper.sock", "meter": {"kind": "rapl", "helper": "/run/helper.sock"}},
    "simulated": {"program": {"latency": 10}},
    "ssh": {"host": "board", "key_file": "/srv/key", "jump": [{"host": "gate"}], "lost_after": "90s"},
    "ssh-gpu": {"host": "board", "gpu": "0"},
    "vendor": {
        "run": ["loader", "{command}"],
        "directory": "/srv/bench",
        "metrics": [{"pattern": "(?P<value>x)", "type": "NET", "metric": "m", "unit": "s"}],
    },
}


@pytest.mark.parametrize("kind", plugins.names("devices"))
async def test_the_configuration_of_each_kind_of_device_is_shown_as_it_can_be_written(daemon: statusd.Daemon, kind: str) -> None:
    written = json.dumps({"devices": [{"name": "d", "kind": kind, **OWN_KEYS.get(kind, {})}]})
    chosen = settings.Settings.model_validate_json(written)
    daemon.configure(devices=chosen.devices)
    code, answer = await daemon.get("/v1/config")
    assert code == 200
    shown = json.dumps({"devices": answer["devices"]})
    assert settings.Settings.model_validate_json(shown).devices == chosen.devices


def _pair(tx: object, commit: str, *, run_type: str = "benchmark", **more: str) -> tuple[int, int]:
    return statusd.pair(tx, commit, run_type=run_type, **more), statusd.build(tx, commit, **more)
