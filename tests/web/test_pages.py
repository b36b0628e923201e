"""Pages as they are sent."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
from html import unescape

import aiohttp
import pastweeks
import pytest
import sqlalchemy as sa
import statusd

from aibenchd.api import routes
from aibenchd.oneshot import options
from aibenchd.store import requests, schema, store, submissions
from aibenchd.web import experimental, pages, render


async def text_of(client: aiohttp.ClientSession, url: str, code: int = 200) -> str:
    async with client.get(url) as reply:
        assert reply.status == code, await reply.text()
        return await reply.text()


async def test_what_others_wrote_is_shown_and_not_run(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    for path in ("/history?benchmark=resnet50&device=lab-host", "/experiments/708"):
        text = await text_of(client, dashboard.url + path)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text
    history = await text_of(client, dashboard.url + "/history?benchmark=resnet50&device=lab-host")
    chart, *_ = re.findall(r'<script type="application/json">(.*?)</script>', history)
    assert pastweeks.HOSTILE in " ".join(json.loads(chart)["labels"])


async def test_a_search_for_nonsense_is_no_way_in(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    hostile = "%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E"
    for path, code in ((f"/experiments?benchmark={hostile}", 404), (f"/coverage?model={hostile}", 200), (f"/{hostile}", 404)):
        text = await text_of(client, dashboard.url + path, code)
        assert "<img" not in text
        assert "img src=x" in unescape(text)


async def test_everything_is_kept_to_this_host(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    async with client.get(dashboard.url) as reply:
        policy = reply.headers["Content-Security-Policy"]
        cookie = reply.headers["Set-Cookie"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}


async def test_what_a_form_sent_empty_is_not_in_the_address(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{dashboard.url}/experiments?state=&device=phone-a&benchmark=", allow_redirects=False) as reply:
        assert (reply.status, reply.headers["Location"]) == (303, "/experiments?device=phone-a")


async def test_a_finding_has_the_command_that_measures_it_again(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{dashboard.url}/v1/findings/1") as reply:
        finding = await reply.json()
    text = unescape(await text_of(client, f"{dashboard.url}/findings/1"))
    assert f">aibenchctl ab {finding['treatment']} {finding['control']} --repository {finding['repository']} " in text


def test_a_command_names_the_backend_that_it_is_to_run_with() -> None:
    """What is printed is read by the parser of ``aibenchd bench``, word for word."""
    parser = argparse.ArgumentParser()
    options.add_bench(parser)
    design = {
        "benchmark": {"source": "/srv/models/my net.json"},
        "framework": "pytorch",
        "env": {"OMP": "2", "MODE": "a b"},
        "command_args": "--fast 1",
    }
    where = {"repository": "engine", "benchmark": "net", "device": "host", "backend": "mkl"}
    item = {"run_type": "benchmark", "treatment": "b" * 40, "control": "a" * 40, "design": design, **where}
    daemon, told, alone = experimental.command(item).splitlines()
    assert daemon.endswith("--device host --wait    # with each backend that is asked for there; this was mkl")
    assert told.startswith("# with mkl alone, all tests of the file; REPOSITORY: a clone or the URL of engine")
    said = options.read(parser.parse_args(shlex.split(alone)[2:]))
    assert (said.treatment, said.control, said.repository) == ("b" * 40, "a" * 40, "REPOSITORY")
    assert [str(one) for one in said.benchmarks] == ["/srv/models/my net.json"]
    assert (said.framework, said.backends, said.devices) == ("pytorch", ("mkl",), ("host",))
    assert (dict(said.env), said.command_args) == (design["env"], "--fast 1")
    for changed in ({"backend": ""}, {"design": {**design, "layout": 7}}):
        assert "aibenchd bench" not in experimental.command({**item, **changed})


async def test_a_short_trial_takes_more_than_nothing(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    short = (
        schema.trials.update().where(schema.trials.c.experiment == 708, schema.trials.c.arm == "control").values(seconds=0.0034)
    )
    await dashboard.house.store.write(lambda tx: tx.connection.execute(short))
    text = await text_of(client, f"{dashboard.url}/experiments/708")
    assert ">control 3.4 ms<" in text


async def test_pages_of_a_list_follow_one_another(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    seen: list[str] = []
    path: str | None = "/experiments?device=phone-a&limit=100"
    while path:
        text = await text_of(client, dashboard.url + path)
        seen += re.findall(r'<tr><td class="n"><a href="/experiments/(\d+)">', text)
        found = re.search(r'<a rel="next" href="([^"]*)"', text)
        path = unescape(found.group(1)) if found else None
    assert len(seen) == len(set(seen)) > 400
    assert seen == sorted(seen, key=int, reverse=True)


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/nowhere", 404, "there is no page"),
        ("/findings/999", 404, "there is no finding 999"),
        ("/experiments?state=odd", 400, "state: "),
        ("/experiments?stat=open", 400, "stat: there is no such key"),
        ("/experiments?device=lab-hots", 404, "lab-host"),
        ("/coverage?page=0", 400, "page: "),
    ],
)
async def test_what_cannot_be_shown_says_why(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession, path: str, code: int, words: str
) -> None:
    assert words in await text_of(client, dashboard.url + path, code)


async def test_a_search_that_has_measured_nothing_names_no_commit(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    found = schema.findings
    was = await dashboard.house.store.read(
        lambda connection: connection.scalar(sa.select(found.c.culprits).where(found.c.id == 2))
    )
    alike = dict.fromkeys(was["by_commit"], 1 / len(was["by_commit"]))
    begun = was | {"blocks": 0, "by_commit": alike, "culprits": [{"commits": [next(iter(alike))], "probability": 1 / len(alike)}]}
    await dashboard.house.store.write(
        lambda tx: tx.connection.execute(found.update().where(found.c.id == 2).values(culprits=begun)) and None
    )
    assert f"Nothing measured yet: {was['commits']} commits are searched" in await text_of(client, f"{dashboard.url}/findings/2")
    assert '<span class="dim">nothing measured yet, </span>' in await text_of(client, f"{dashboard.url}/findings")


async def test_a_finding_says_on_which_devices_its_commits_are_searched(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    assert "Searched on phone-a (31 blocks), phone-b (24 blocks)." in await text_of(client, f"{dashboard.url}/findings/2")
    assert '<span class="dim">on 2 devices</span>' in await text_of(client, f"{dashboard.url}/findings")


async def test_the_api_can_be_read_there_and_nothing_be_posted(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    for route in routes.ROUTES:
        path = dashboard.url + route.path.replace(routes.NUMBER, "1").replace("{name}", "lab-host")
        if route.method != "GET":
            async with client.request(route.method, path, data="{}") as reply:
                assert reply.status in (404, 405), route
        elif "logs" not in path and "events" not in path and "history" not in path:
            async with client.get(path) as reply:
                assert reply.status == 200, route
    async with client.get(f"{dashboard.url}/metrics") as reply:
        text = await reply.text()
    assert "aibenchd_experiments{" in text
    assert 'aibenchd_findings{state="open",triage=""} 2\n' in text


async def test_files_are_kept_by_browsers_for_as_long_as_they_are_the_same(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    for name in ("style.css", "uplot/uPlot.iife.min.js", "charts.js", "icon.svg"):
        async with client.get(dashboard.url + render.static(name)) as reply:
            assert reply.status == 200
            assert "immutable" in reply.headers["Cache-Control"]
            assert reply.content_type in ("text/css", "text/javascript", "application/javascript", "image/svg+xml")
    for path in ("/static/x/../app.py", "/static/x/..%2f..%2fapp.py", "/static/x/nothing.js"):
        await text_of(client, dashboard.url + path, 404)


def test_every_page_is_in_the_head_or_belongs_to_what_is() -> None:
    head = {"now", "findings", "history", "coverage", "comparison", "experiments"}
    assert {page.section for page in pages.PAGES} == head


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    ],
)
def test_what_is_not_ours_is_as_it_was_published(name: str, digest: str) -> None:
    """uPlot 1.6.32, of the npm package of that name."""
    assert hashlib.sha256((render.STATIC / "uplot" / name).read_bytes()).hexdigest() == digest
    assert "MIT License" in (render.STATIC / "uplot" / "LICENSE").read_text()


async def test_a_finding_shows_what_each_profiler_says_and_where_it_is_to_be_had(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    text = unescape(await text_of(client, f"{dashboard.url}/findings/1"))
    assert '<a href="/v1/logs/profile/1-control.perf.txt.gz" download>control</a>' in text
    assert "by Perfetto scheduling" in text
    assert '<a href="/v1/logs/profile/1-treatment.perfetto-trace.gz" download>treatment</a>' in text
    assert text.count("https://ui.perfetto.dev") == 2
    assert "too few to tell a difference: 1,012 in the control, 15 in the treatment" in text
    assert "-4" not in text.partition("Perfetto samples")[2].partition("</table>")[0]
    assert '<td class="n">3</td><td class="n">41</td><td class="n">+38</td>' in text
    assert '<td class="n">812\N{NO-BREAK SPACE}ms</td>' in text


async def test_what_was_submitted_is_shown_by_the_names_of_its_programs(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    def send(tx: store.Transaction) -> tuple[int, int]:
        number = requests.add(
            tx, repository="submitted", treatment="a" * 64, control="", benchmarks=[], devices=[], priority=0, requested_by="me"
        )
        submissions.add(tx, request=number, uid=1, note="<b>why</b>", names={"treatment": "./<i>bench"}, specification="")
        pair = statusd.pair(tx, "a" * 64, request=number, run_type="submission", repository="submitted")
        built = statusd.build(tx, "a" * 64, repository="submitted")
        return number, statusd.experiment(tx, pair, built, **statusd.decided("measured"))

    number, experiment = await dashboard.house.store.write(send)
    text = await text_of(client, f"{dashboard.url}/requests/{number}")
    assert "treatment: ./&lt;i&gt;bench: &lt;b&gt;why&lt;/b&gt;" in text
    text = await text_of(client, f"{dashboard.url}/experiments/{experiment}")
    assert f"aibenchctl request {number}" in text


async def test_what_is_regressed_in_the_tail_says_so_once_and_shows_its_slow_iterations(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    def rows(tx: store.Transaction) -> int:
        pair = statusd.pair(tx, "c" * 40, "a" * 40)
        built = statusd.build(tx, "c" * 40)
        number = statusd.experiment(tx, pair, built, **statusd.decided("regressed"), in_tail=True)
        statusd.block(tx, number, 0)
        tails = {"treatment_tail": 1414.87, "control_tail": 1040.78}
        tx.connection.execute(schema.blocks.update().where(schema.blocks.c.experiment == number).values(tails))
        trials = sa.select(schema.trials.c.id, schema.trials.c.arm).where(schema.trials.c.experiment == number)
        for trial in tx.connection.execute(trials).all():
            values = [1_000.0 + place % 90 for place in range(90)] + [2_000.0 if trial.arm == "treatment" else 1_040.0] * 10
            row = {"trial": trial.id, "type": "NET", "metric": "latency", "unit": "us", "values": values}
            tx.connection.execute(schema.samples.insert().values(row))
        series = {"type": "NET", "metric": "latency", "unit": "us", "treatment": {"p50": 1_045.0}, "control": {"p50": 1_045.0}}
        tx.connection.execute(schema.results.insert().values(experiment=number, **series))
        again = statusd.experiment(tx, pair, built, backend="again", **statusd.decided("regressed"), in_tail=True)
        statusd.block(tx, again, 0)  # of what measures nothing but the tail
        return number

    number = await dashboard.house.store.write(rows)
    again = await text_of(client, f"{dashboard.url}/experiments/{number + 1}")
    assert again.count("in the tail</span>") == 1
    assert "its tail" not in again
    text = await text_of(client, f"{dashboard.url}/experiments/{number}")
    assert text.count("in the tail</span>") == 1
    assert '<th class="n">its tail</th><th class="n">control\'s</th>' in text
    assert "each process: its slowest quarter" in text
    assert "share of each arm" in text
    assert "further right" not in text


async def test_of_what_ran_under_a_profiler_no_effect_is_shown(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession
) -> None:
    newest = sa.select(sa.func.max(schema.experiments.c.id)).where(schema.experiments.c.verdict == "unchanged")
    number, url = await dashboard.house.store.read(lambda connection: connection.scalar(newest)), dashboard.url + "/experiments"
    before = [await text_of(client, page) for page in (f"{url}/{number}", url)]
    pair = sa.select(schema.experiments.c.pair).where(schema.experiments.c.id == number).scalar_subquery()
    profiled = schema.pairs.update().where(schema.pairs.c.id == pair).values(run_type="profile")
    await dashboard.house.store.write(lambda tx: tx.connection.execute(profiled))
    page, listed = [await text_of(client, address) for address in (f"{url}/{number}", url)]
    assert "It ran under a profiler: its times have the profiler&#39;s own costs in them" in page
    assert [text for text in ('class="est"', 'class="ci"', "<figure", "What was measured") if text in page] == []
    assert [text for text in ('class="est"', "<figure", "What was measured") if text not in before[0]] == []
    row = re.compile(rf'<tr><td class="n"><a href="/experiments/{number}">.*')
    assert ["est" in row.search(text)[0] for text in (before[1], listed)] == [True, False]
