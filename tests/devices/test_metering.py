"""Energy: the kernel's counters, the helper that may read them, and programs that print watts."""

from __future__ import annotations

import math
import socket
import threading
from pathlib import Path

import anyio
import launchers
import pytest

from aibenchd import errors, helper
from aibenchd.devices import base, metering


def zones(root: Path, **microjoules: int) -> Path:
    """Counters as the kernel lays them out below /sys/class/powercap; cores are within the package."""
    for number, (name, count) in enumerate(microjoules.items()):
        place = root / "sys/class/powercap" / f"intel-rapl:{number}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "name").write_text(f"{name}\n")
        (place / "energy_uj").write_text(f"{count}\n")
        (place / "max_energy_range_uj").write_text("1000000\n")
    return root / "sys/class/powercap"


def read(root: Path) -> dict[str, metering.Zone]:
    return {zone.name: zone for zone in metering.counters(root)}


def test_packages_and_memory_are_added_and_what_is_within_a_package_is_not(tmp_path: Path) -> None:
    before = read(zones(tmp_path, package=100_000, core=50_000, dram=10_000))
    after = read(zones(tmp_path, package=600_000, core=450_000, dram=30_000))
    assert metering.spent(before, after) == pytest.approx(0.52)


def test_a_counter_that_began_again_is_followed(tmp_path: Path) -> None:
    before = read(zones(tmp_path, package=900_000))
    after = read(zones(tmp_path, package=100_000))
    assert metering.spent(before, after) == pytest.approx(0.2)


def test_the_whole_platform_is_counted_once(tmp_path: Path) -> None:
    before = read(zones(tmp_path, package=0, psys=0))
    after = read(zones(tmp_path, package=200_000, psys=300_000))
    assert metering.spent(before, after) == pytest.approx(0.3)


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    assert math.isnan(metering.spent(read(tmp_path), read(tmp_path)))
    assert isinstance(metering.make(None, on_this_host=False), metering.NoMeter)


async def test_the_helper_reads_what_only_root_may(tmp_path: Path) -> None:
    root = tmp_path / "root"
    zones(root, package=100_000)
    path = tmp_path / "helper.sock"
    machine = helper.Machine(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for _ in range(2):
                with listening.accept()[0] as connection:
                    for request in helper._requests(connection):
                        connection.sendall(helper._line(helper.answer(machine, request)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        meter = metering.Rapl(base.MeterSettings(kind="rapl", helper=path))
        async with meter.metering({}) as energy:
            zones(root, package=350_000)
        thread.join(10)
    assert energy.joules == pytest.approx(0.25)
    assert energy.seconds > 0


async def test_a_helper_that_is_not_there_is_named(tmp_path: Path) -> None:
    meter = metering.Rapl(base.MeterSettings(kind="rapl", helper=tmp_path / "helper.sock"))
    with pytest.raises(errors.HarnessError, match=r"helper\.sock does not answer: .*socket unit"):
        async with meter.metering({}):
            pass


def program(tmp_path: Path, *lines: str) -> metering.Program:
    path = tmp_path / "meter"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return metering.Program(base.MeterSettings(kind="program", command=(str(path),)))


async def test_a_program_that_prints_watts_is_averaged_over_the_time_it_ran(tmp_path: Path) -> None:
    begins = f"echo warming up; echo $AIBENCHD_VOLTAGE; echo 2.0; echo > {tmp_path}/begun"
    meter = program(tmp_path, f"{begins}; while :; do echo 3.2; sleep 0.01; done")
    async with meter.metering({"AIBENCHD_VOLTAGE": "4.4"}) as energy:
        await launchers.until_written(tmp_path / "begun")
        await anyio.sleep(0.3)
    assert 2.0 < energy.joules / energy.seconds < 4.4
    assert energy.seconds >= 0.3


async def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    meter = program(tmp_path, f"echo 1; (echo $$; exec sh -c 'echo $$ > {tmp_path}/child; exec sleep 1000') | sed -u s/x/x/")
    async with meter.metering({}):
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await anyio.sleep(0.01)
    child = int((tmp_path / "child").read_text())
    with anyio.fail_after(10):
        while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            await anyio.sleep(0.01)


async def test_a_helper_that_hangs_up_is_named(tmp_path: Path) -> None:
    path = tmp_path / "helper.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(1)  # the rest is left unread: the other end is told that its connection was reset
            connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        meter = metering.Rapl(base.MeterSettings(kind="rapl", helper=path))
        with pytest.raises(errors.HarnessError, match=r"helper\.sock does not answer"):
            async with meter.metering({}):
                pass
        thread.join(10)


@pytest.mark.parametrize(
    ("lines", "message"), [(["echo none; exit 1"], "printed no number"), (["sleep 60"], "printed no number")]
)
async def test_a_program_that_measures_nothing_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(errors.HarnessError, match=message):
        async with program(tmp_path, *lines).metering({}):
            await anyio.sleep(0.1)


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    meter = metering.Program(base.MeterSettings(kind="program", command=(str(tmp_path / "nothing"),)))
    with pytest.raises(errors.HarnessError, match="cannot be started"):
        async with meter.metering({}):
            pass
