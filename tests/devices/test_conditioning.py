from typing import Any

import pytest

from aibenchd.devices import base, conditioning

FIT = {"temperature": "70", "load": "0.5", "battery": "80"}


@pytest.mark.parametrize(
    ("limits", "state", "why"),
    [
        ({}, {}, ""),
        ({"max_temperature": 70, "max_load": 0.5, "min_battery": 80}, FIT, ""),
        ({"max_temperature": 70}, {**FIT, "temperature": "81.25"}, "81.25 °C, begins at 70 or below"),
        ({"max_load": 0.25}, FIT, "load 0.5, begins at 0.25 or below"),
        ({"min_battery": 90}, FIT, "battery at 80 %, begins at 90 or above"),
        ({"max_temperature": 70}, {}, "the device does not tell its temperature; remove conditioning.max_temperature"),
        ({"min_battery": 1}, {"battery": "?"}, "the device does not tell its battery; remove conditioning.min_battery"),
    ],
)
def test_what_a_block_waits_for_is_said(limits: dict[str, Any], state: dict[str, str], why: str) -> None:
    assert conditioning.obstacle(base.Conditioning(**limits), state) == why


def test_hazards_are_named_with_what_mends_them() -> None:
    fingerprint = {"governor": "powersave", "turbo": "on", "siblings": "CPU 0 shares its core with CPU 2", "swap": "/dev/sda2"}
    found = conditioning.hazards(fingerprint, {"throttled": "5 times"})
    assert list(found) == ["governor not fixed", "turbo on", "core shared", "swap on", "throttled"]
    mended = ("governor: performance", "no_turbo", "smt/control", "swapoff", "max_temperature")
    assert all(command in said for command, said in zip(mended, found.values(), strict=True))


def test_what_is_fixed_is_no_hazard() -> None:
    assert conditioning.hazards({"governor": "performance", "turbo": "off"}, {"throttled": ""}) == {}
    assert conditioning.hazards({"governor": "schedutil", "frequency": "1200 MHz"}, {}) == {}
