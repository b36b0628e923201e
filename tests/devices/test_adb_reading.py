"""What Android's own services print, read."""

import pytest

from aibenchd.devices import adbapp, adbreading

THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 3
Thermal Status: 2
Cached temperatures:
	Temperature{mValue=75.1, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=31.9, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=48.7, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=41.25, mType=1, mName=G3D, mStatus=0}
	Temperature{mValue=0.98, mType=-1, mName=vdroop, mStatus=0}
	Temperature{mValue=4200.0, mType=6, mName=battery_voltage, mStatus=0}
	Temperature{mValue=39.4, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 64
  scale: 100
  voltage: 4123
  temperature: 317
  technology: Li-ion
  Charge counter: 2875000
"""
PROPERTIES = """\
[ro.build.fingerprint]: [google/oriole/oriole:14/UP1A.231005.007/10754064:user/release-keys]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.model]: [Pixel 6]
[ro.serialno]: [1A2B3C4D]
[ro.soc.model]: [GS101]
[persist.sys.text]: [two
lines]
"""


def told(asked: dict[str, str], **answers: str) -> dict[str, str]:
    text = "".join(f"\n=== {name}\n{answers.get(name, '')}\n" for name in asked)
    return adbreading.answers(asked, text)


def test_a_fingerprint() -> None:
    answers = {
        "properties": PROPERTIES,
        "kernel": "5.10.157-android13-4",
        "governor": "sched_pixel\nsched_pixel\nsched_pixel",
        "cpu": "processor\t: 0\nHardware\t: Tensor\n",
        "memory": "MemTotal:        7821032 kB",
    }
    found = adbreading.facts(told(adbreading.FACTS, **answers), "usb")
    assert len(found.pop("hash")) == 16
    assert found == {
        "model": "Pixel 6",
        "release": "14",
        "sdk": "34",
        "abi": "arm64-v8a",
        "build": "google/oriole/oriole:14/UP1A.231005.007/10754064:user/release-keys",
        "soc": "GS101",
        "os": "Android 14",
        "kernel": "5.10.157-android13-4",
        "cpu": "Tensor",
        "governor": "sched_pixel",
        "memory": "7821032 kB",
    }


def test_what_is_not_told_is_left_out_and_the_serial_stands_for_itself() -> None:
    silent = adbreading.facts(told(adbreading.FACTS), "usb")
    assert silent.keys() == {"hash"}
    assert silent == adbreading.facts(adbreading.answers(adbreading.FACTS, "garbage"), "usb")
    assert silent != adbreading.facts(told(adbreading.FACTS), "other")


def test_a_state() -> None:
    answers = {
        "battery": BATTERY,
        "thermal": THERMAL,
        "load": "3.41 2.90 2.11 4/2713 12345",
        "governor": "schedutil\nperformance",
        "frequency": "1803000\n2253000\n1803000",
    }
    assert adbreading.state(told(adbreading.STATE, **answers)) == {
        "temperature": "48.7",
        "load": "3.41",
        "battery": "64",
        "charge": "10350",
        "voltage": "4.123",
        "governor": "performance, schedutil",
        "frequency": "1803 MHz, 2253 MHz",
        "throttled": "Android's thermal status is moderate",
    }


@pytest.mark.parametrize("text", ["", "Can't find service: thermalservice", "Thermal Status: 0", "Thermal Status: 9"])
def test_a_phone_without_a_thermal_service_has_its_batterys_temperature(text: str) -> None:
    found = adbreading.state(told(adbreading.STATE, battery=BATTERY, thermal=text))
    assert (found["temperature"], found["throttled"]) == ("31.7", "")


def test_policies() -> None:
    rows = (
        "/sys/p0 schedutil 300000 1800000 300000 1800000 900000 300000 1800000\n/sys/p4 walt 5 6 5 8\n"
        "/sys/broken schedutil\n/sys/off\n\n"
    )
    first, second = adbreading.policies(rows)
    assert first == adbreading.Policy("/sys/p0", "schedutil", 300000, 1800000, 300000, 1800000, (300000, 900000, 1800000))
    assert second.steps == ()


@pytest.mark.parametrize(
    ("wanted", "khz"),
    [("max", 1800), ("min", 300), ("mid", 900), ("900000", 900), ("1000000", 900), ("100", 300), ("9000000000", 1800)],
)
def test_frequencies_are_steps_that_there_are(wanted: str, khz: int) -> None:
    assert adbreading.Policy("p", "g", 300, 1800, 300, 1800, (300, 900, 1800)).frequency(wanted) == khz


def test_a_kernel_that_does_not_tell_its_steps() -> None:
    policy = adbreading.Policy("p", "g", 300, 1800, 300, 1800, ())
    assert [policy.frequency(wanted) for wanted in ("max", "min", "mid", "1000000")] == [1800, 300, 1050, 1000]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["--net", "a", "--iter=5", "--warm", "--input", "b"], {"net": "a", "iter": "5", "warm": "true", "input": "b"}),
        (["stray", "--a=", "stray", "--b", "-1"], {"a": "", "b": "-1"}),
    ],
)
def test_an_apps_options(words: list[str], options: dict[str, str]) -> None:
    assert adbapp.options(words) == options
