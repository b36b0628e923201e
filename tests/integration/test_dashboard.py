"""The dashboard of a real daemon, in a real browser: what it measures is seen as it happens, and what is made of it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import browser as browsers
import lab
import remotes


async def seen(work: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(work)


async def test_a_regression_is_seen_accepted_and_then_the_baseline(tmp_path: Path, browser: browsers.Browser) -> None:
    url = f"http://127.0.0.1:{remotes.free_port()}"
    made = lab.make(tmp_path)
    made.configure(
        dashboard={"listen": url.removeprefix("http://")},
        repositories=[made.configuration["repositories"][0] | {"baseline": {"rule": "last-good"}, "start_at": ""}],
        experiment=made.configuration["experiment"] | {"alpha": 0.01, "beta": 0.05},
    )
    first = made.commit("as it was")
    compared = "experiments e JOIN pairs p ON p.id = e.pair WHERE control IS NOT NULL ORDER BY e.id"
    verdicts = f"SELECT treatment, control, verdict FROM {compared}"
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'")
        await seen(lambda: browser.open(f"{url}/"))
        await seen(lambda: browser.until("'live' in document.documentElement.dataset"))

        slower = made.commit("keeps activations", latency=110.0)
        await made.until(verdicts, [(slower, first, "regressed")])
        await made.until("SELECT state FROM findings", [("unconfirmed",)])
        await seen(lambda: browser.until("document.querySelector('#recent .regressed')"))

        def accept() -> None:
            link = browser.run("return document.querySelector('#recent tbody a').href")  # at once: the part may be replaced
            browser.open(link)
            browser.until("document.querySelectorAll('figure.chart canvas').length === 3")
            browser.open(f"{url}/findings/1")
            browser.find("textarea[name=why]").send_keys("the profiler needs them")
            browser.find("button[value=accept]").click()
            browser.until("document.querySelector('.made b')?.textContent === 'accepted'")
            assert browser.complaints() == []

        await seen(accept)
        (finding,) = (await made.ctl("findings"))["findings"]
        assert (finding["state"], finding["triages"][0]["why"]) == ("accepted", "the profiler needs them")

        same = made.commit("harmless", latency=110.1)
        await made.until(verdicts, [(slower, first, "regressed"), (same, slower, "unchanged")])
        assert len((await made.ctl("findings"))["findings"]) == 1
    assert "Traceback" not in made.log()
