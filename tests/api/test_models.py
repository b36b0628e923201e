from __future__ import annotations

import sys

import anyio
import statusd


async def shown(daemon: statusd.Daemon) -> str:
    done = await anyio.run_process([sys.executable, "-m", "aibenchd.api.client", "-s", str(daemon.path), "status"])
    return done.stdout.decode()


async def test_files_on_their_way_are_shown(daemon: statusd.Daemon) -> None:
    assert (await daemon.get("/v1/status"))[1]["models"] == []
    assert "progress" not in await shown(daemon)
    progress = "1,000 of 4,000 bytes (25 %) from https://example.org/init.pb"
    daemon.house.board.put("model/net/init.pb", "downloading", progress)
    (one,) = (await daemon.get("/v1/status"))[1]["models"]
    assert (one["name"], one["state"], one["reason"], one["fault"]) == ("net/init.pb", "downloading", progress, False)
    head, row = (await shown(daemon)).partition("file  ")[2].splitlines()[:2]
    assert head.split() == ["state", "since", "progress"]
    assert row.endswith(progress)
