"""``aibenchd discover``, against a real adb server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbd
import anyio
import pytest
import ruamel.yaml

from aibenchd import discover, errors, plugins
from aibenchd.devices import adb, base

phone = adbd.fresh_phone


@pytest.fixture
def server(tmp_path: Path) -> Iterator[adbd.Server]:
    (tmp_path / "adb").mkdir()
    with adbd.server(tmp_path / "adb") as server:
        yield server


async def discovered(**env: str) -> str:
    done = await anyio.run_process([sys.executable, "-m", "aibenchd", "discover"], env=os.environ | env, stderr=subprocess.STDOUT)
    return done.stdout.decode()


async def connected(server: adbd.Server, phone: adbd.Phone) -> None:
    """Have the server know of a phone, whatever it makes of it."""
    settings = {"name": "x", "kind": "adb", "address": phone.address, "server_port": server.port}
    device = adb.Adb(adb.Settings.model_validate(settings), Path("/none"), base.RunSettings())
    with contextlib.suppress(errors.DeviceLostError):
        await device.reach()


async def test_a_phone_is_an_entry_that_can_be_used(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.set(**{"ro.product.model": "Pixel 6"})
    await connected(server, phone)
    printed = await discovered(ANDROID_ADB_SERVER_PORT=str(server.port))
    assert "# Pixel 6 Android 14 x86_64\n" in printed
    (entry,) = ruamel.yaml.YAML(typ="safe", pure=True).load(printed)["devices"]
    assert entry["address"] == phone.address
    assert entry["name"] == f"pixel-6-{str(phone.port)[-4:]}"
    await adb.Adb(adb.Settings.model_validate(entry), Path("/none"), base.RunSettings()).reach()


async def test_a_phone_that_does_not_trust_this_host_is_told_with_what_to_do(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.trusts = False
    await connected(server, phone)
    assert "accept the key on the phone's screen\n" in await discovered(ANDROID_ADB_SERVER_PORT=str(server.port))


async def test_what_cannot_be_told_is_a_comment() -> None:
    printed = await discovered(ANDROID_ADB_SERVER_PORT="1")
    (row,) = [row for row in printed.splitlines() if "# adb: " in row]
    assert "the adb server at 127.0.0.1:1 does not answer: Connection refused; start or restart it: " in row
    assert ruamel.yaml.YAML(typ="safe", pure=True).load(printed) == {"devices": []}


async def test_a_kind_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(adb.Adb):
        @classmethod
        async def discover(cls) -> Any:
            await anyio.sleep_forever()

    monkeypatch.setattr(plugins, "names", lambda group: ("slow",))
    monkeypatch.setattr(plugins, "load", lambda group, kind: Slow)
    monkeypatch.setattr(discover, "DEADLINE", 0.1)
    assert await discover.discover() == ["devices: []  # none was found", "  # slow: no answer within 0 s"]
