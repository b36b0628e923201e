from __future__ import annotations

import json
from pathlib import Path

import pytest

from aibenchd import errors
from aibenchd.devices import adb, local, ssh
from aibenchd.oneshot import fleet, options


async def test_words_name_devices() -> None:
    said = options.Options(devices=("local", "R5CT10ABCDE", "10.0.0.7:5555", "bench@board-7:2222"), excluded_devices=("none",))
    host, phone, networked, board = await fleet.chosen(said)
    assert isinstance(host, local.Settings)
    assert isinstance(phone, adb.Settings)
    assert isinstance(networked, adb.Settings)
    assert isinstance(board, ssh.Settings)
    assert (host.name, host.platform) == (fleet.LOCAL, "host")
    assert (phone.serial, phone.platform) == ("R5CT10ABCDE", "android")
    assert networked.address == "10.0.0.7:5555"
    assert (board.host, board.port, board.username, board.platform) == ("board-7", 2222, "bench", "linux")


async def test_this_host_is_what_nobody_names() -> None:
    said = options.Options(cooldown=1.5, cpus=(0,), set_freq="max", platform="linux")
    (host,) = await fleet.chosen(said)
    assert (host.name, host.cooldown, host.cpus, host.platform) == (fleet.LOCAL, 1.5, (0,), "linux")
    assert host.conditioning.frequency == "max"


async def test_devices_of_a_configuration(tmp_path: Path) -> None:
    lab = tmp_path / "lab.yaml"
    devices = [{"name": name, "kind": "local", "tags": [name], "cpus": [cpu]} for cpu, name in enumerate(("quiet", "loud"))]
    lab.write_text(json.dumps({"version": 1, "devices": devices}))
    assert [one.name for one in await fleet.chosen(options.Options(config=lab))] == ["quiet", "loud"]
    (loud,) = await fleet.chosen(options.Options(config=lab, excluded_devices=("quiet",), cooldown=2.0))
    assert (loud.tags, loud.cooldown) == (("loud",), 2.0)
    with pytest.raises(errors.CommandError, match=r"has no device 'laud'; did you mean 'loud'\?"):
        await fleet.chosen(options.Options(config=lab, devices=("laud",)))


async def test_with_no_adb_server_there_are_no_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")  # where nothing listens, and nobody starts one
    with pytest.raises(errors.AibenchdError):
        await fleet.chosen(options.Options(platform="android"))
