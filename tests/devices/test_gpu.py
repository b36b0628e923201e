# ruff: noqa: N802  the names are the library's
"""A GPU as a device. The library that asks it is a double of ours; where there is a GPU, it is also asked itself."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
import threading
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import pytest

from aibenchd import errors
from aibenchd.devices import base, conditioning, gpu, gpus, metering, nvml

UUID, SECOND = "GPU-9b1f7c0a-58f2-4b0e-8f57-3c1f0c7d2e11", "GPU-22222222-58f2-4b0e-8f57-3c1f0c7d2e12"


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


def fail(error: int, *_: Any) -> None:
    raise NVMLError(error)


class Double:
    """What of nvidia-ml-py's module is used. Two GPUs, named by their UUIDs."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION, NVML_ERROR_NOT_FOUND = 3, 4, 6
    NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND = 9, 12, 13
    NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, NVML_ERROR_LIB_RM_VERSION_MISMATCH = 15, 16, 18
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

    def __init__(self) -> None:
        self.initialised = 0
        self.reasons = 0
        self.processes: dict[int, str] = {}
        self.millijoules = 5_000
        self.locked: tuple[int, int] | None = None
        self.fails: dict[str, int] = {}  # what each function fails with
        self.gate = threading.Event()
        self.gate.set()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(fail, self.fails[name]) if name.startswith("nvml") and name in self.fails else found

    def nvmlInit(self) -> None:
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        assert self.initialised
        self.gate.wait()
        if index > 1:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return (UUID, SECOND)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in (UUID, SECOND):
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetUUID(self, card: str) -> str:
        return card

    def nvmlDeviceGetName(self, card: str) -> str:
        return "NVIDIA H100"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12080

    def nvmlDeviceGetVbiosVersion(self, card: str) -> str:
        return "96.00.74"

    def nvmlDeviceGetEccMode(self, card: str) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetPersistenceMode(self, card: str) -> int:
        return 0

    def nvmlDeviceGetPowerManagementLimit(self, card: str) -> int:
        return 700_000

    def nvmlDeviceGetPowerUsage(self, card: str) -> int:
        return 71_500

    def nvmlDeviceGetMemoryInfo(self, card: str) -> Any:
        return types.SimpleNamespace(total=80 << 30, free=79 << 30, used=1 << 30)

    def nvmlDeviceGetComputeRunningProcesses(self, card: str) -> list[Any]:
        return [types.SimpleNamespace(pid=pid) for pid in self.processes]

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        return self.processes[pid] or fail(self.NVML_ERROR_NO_PERMISSION)

    def nvmlDeviceGetTemperature(self, card: str, sensor: int) -> int:
        return 41

    def nvmlDeviceGetClockInfo(self, card: str, kind: int) -> int:
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: str) -> int:
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card: str) -> int:
        return self.reasons

    def nvmlDeviceGetSupportedMemoryClocks(self, card: str) -> list[int]:
        return [2619, 1593]

    def nvmlDeviceGetSupportedGraphicsClocks(self, card: str, memory: int) -> list[int]:
        return {2619: [1980, 1965, 345], 1593: [345]}[memory]

    def nvmlDeviceSetGpuLockedClocks(self, card: str, least: int, most: int) -> None:
        self.locked = (least, most)

    def nvmlDeviceResetGpuLockedClocks(self, card: str) -> None:
        self.locked = None

    def nvmlDeviceGetTotalEnergyConsumption(self, card: str) -> int:
        self.millijoules += 2_500
        return self.millijoules


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    made = Double()
    monkeypatch.setitem(sys.modules, nvml.PACKAGE, made)  # type: ignore[arg-type]
    monkeypatch.setattr(nvml, "may_lock", lambda: True)
    yield made
    assert made.initialised == 0


def device(directory: Path, **keys: Any) -> gpu.Gpu:
    name = keys.pop("name", "card")
    chosen = gpu.Settings(name=name, kind="gpu", minimum_free="0B", **(keys or {"index": 0}))
    return gpu.Gpu(chosen, directory / name, base.RunSettings())


# ---- the session


async def test_programs_see_their_gpu_and_no_other_whatever_a_benchmark_says(double: Double, place: Path) -> None:
    async with device(place, index=1, env={"CUDA_VISIBLE_DEVICES": "7"}).session() as session:
        command = base.Command(("env",), await session.directory("work"), env={"CUDA_VISIBLE_DEVICES": "0", "OTHER": "x"})
        printed = (await session.run(command)).stdout.splitlines()
    assert {f"CUDA_VISIBLE_DEVICES={SECOND}", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "OTHER=x"} <= set(printed)


async def test_a_fingerprint_and_a_state_are_the_hosts_and_the_gpus(double: Double, place: Path) -> None:
    double.reasons = 0x1 | 0x2 | 0x4 | 0x40
    double.processes = {4711: "/usr/bin/python3", 4712: ""}
    async with device(place, uuid=UUID).session() as session:
        await session.health()
        found, state = await session.fingerprint(), await session.state()
    assert found["kernel"] == os.uname().release
    card = {
        "gpu": "NVIDIA H100",
        "hash": UUID,
        "driver": "570.86.15",
        "cuda": "12.8",
        "vbios": "96.00.74",
        "ecc": "on",
        "power_limit": "700 W",
        "persistence": "off",
    }
    assert card.items() <= found.items()
    own = {"temperature": "41", "power": "71.5 W", "clock": "1980 MHz"}
    assert state["throttled"].endswith("power limit, too hot (hardware)")
    assert {**own, "memory_clock": "2619 MHz", "memory_used": "1024 MiB"}.items() <= state.items()
    hazards = conditioning.hazards(found, state)
    assert "nvidia-smi -pm 1" in hazards["persistence off"]
    assert "power limit" in hazards["throttled"]
    assert "on the GPU: 4711 /usr/bin/python3, 4712; end them" in hazards["GPU shared"]
    assert "GPU shared" not in conditioning.hazards(found, {**state, "processes": gpus.listed([])})


async def test_what_a_card_does_not_know_is_left_out(double: Double, place: Path) -> None:
    unknown = ("GetEccMode", "GetPowerUsage", "GetVbiosVersion", "GetTotalEnergyConsumption", "GetSupportedMemoryClocks")
    double.fails = {f"nvmlDevice{name}": double.NVML_ERROR_NOT_SUPPORTED for name in unknown}
    double.fails["nvmlDeviceGetCurrentClocksEventReasons"] = double.NVML_ERROR_FUNCTION_NOT_FOUND  # an older driver
    double.reasons = 0x20
    async with device(place).session() as session:
        assert not {"ecc", "vbios"} & (await session.fingerprint()).keys()
        state = await session.state()
        assert "power" not in state
        assert state["throttled"].endswith("too hot (driver)")
        with pytest.raises(errors.CommandError, match="does not say which clocks"):
            await session.changes(base.Conditioning(frequency="max"))
    async with meter().metering({}) as energy:
        pass
    assert math.isnan(energy.joules)


@pytest.mark.parametrize(
    ("wanted", "megahertz"), [("max", 1980), ("mid", 1965), ("min", 345), ("1965000000", 1965), ("345000000", 345)]
)
async def test_clocks_are_locked_and_let_go(double: Double, place: Path, wanted: str, megahertz: int) -> None:
    async with device(place).session() as session:
        (change,) = await session.changes(base.Conditioning(frequency=wanted))
        assert double.locked is None
        await session.apply(json.loads(json.dumps(change.do)))
        assert double.locked == (megahertz, megahertz)
        assert (await session.fingerprint())["gpu_frequency"] == f"{megahertz} MHz"
    async with device(place).session() as later:
        await later.apply(json.loads(json.dumps(change.undo)))
        await later.apply(change.undo)
        assert double.locked is None


async def test_a_clock_that_cannot_be_had_is_said_with_what_mends_it(
    double: Double, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device(place).session() as session:
        with pytest.raises(errors.CommandError, match="GPU 0 cannot run at 1900000000 Hz; the nearest that it can is 1965000000"):
            await session.changes(base.Conditioning(frequency="1900000000"))
        monkeypatch.setattr(nvml, "may_lock", lambda: False)
        with pytest.raises(errors.CommandError, match="run nvidia-smi -i 0 -lgc 1980,1980 as root"):
            await session.changes(base.Conditioning(frequency="max"))
        with pytest.raises(errors.HarnessError, match="knows no action"):
            await session.apply({"verb": "explode"})


@pytest.mark.parametrize("error", [Double.NVML_ERROR_NO_PERMISSION, Double.NVML_ERROR_NOT_SUPPORTED])
async def test_clocks_that_are_refused_are_no_loss_of_the_gpu(double: Double, place: Path, error: int) -> None:
    double.fails = {"nvmlDeviceSetGpuLockedClocks": error, "nvmlDeviceResetGpuLockedClocks": error}
    async with device(place).session() as session:
        with pytest.raises(
            errors.CommandError, match=f"GPU 0: .*cannot be locked: error {error}; run nvidia-smi -i 0 -lgc 345,345"
        ):
            await session.apply({"verb": gpus.LOCK, "megahertz": 345})
        assert "gpu_frequency" not in await session.fingerprint()
        if error == double.NVML_ERROR_NOT_SUPPORTED:
            await session.apply({"verb": gpus.UNLOCK})
            return
        with pytest.raises(
            errors.CommandError, match=f"GPU 0: .*cannot be let go: error {error}; run nvidia-smi -i 0 -rgc as root"
        ):
            await session.apply({"verb": gpus.UNLOCK})
        double.fails = {"nvmlDeviceSetGpuLockedClocks": double.NVML_ERROR_GPU_IS_LOST}
        with pytest.raises(errors.DeviceLostError, match="fallen off the bus"):
            await session.apply({"verb": gpus.LOCK, "megahertz": 345})


async def test_one_gpu_is_one_device_by_whatever_name(double: Double, place: Path) -> None:
    first, second = device(place, index=0), device(place, uuid=UUID, name="again")
    async with first.session(), device(place, index=1, name="other").session():
        with pytest.raises(errors.DeviceLostError, match=f"again: GPU {UUID} is the device card already"):
            async with second.session():
                pass
    async with second.session() as session:
        await session.health()


async def test_gpus_of_one_lock_take_turns(double: Double, place: Path) -> None:
    devices = [device(place, index=index, name=f"card-{index}", lock="board") for index in range(2)]
    at_once, most = 0, 0

    async def block(one: gpu.Gpu) -> None:
        nonlocal at_once, most
        async with one.turn():
            at_once += 1
            most = max(most, at_once)
            await anyio.sleep(0.01)
            at_once -= 1

    async with anyio.create_task_group() as tasks:
        for one in devices * 3:
            tasks.start_soon(block, one)
    assert most == 1
    async with device(place, index=0).turn(), device(place, index=1).turn():  # those without a lock do not
        pass


# ---- what goes wrong


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        ("nvmlInit", 12, r"install NVIDIA's driver \(libnvidia-ml.so.1\)"),
        ("nvmlInit", 9, "modprobe nvidia"),
        ("nvmlInit", 18, "the driver was updated: restart the host"),
        ("nvmlDeviceGetUUID", 15, "fallen off the bus"),
        ("nvmlDeviceGetUUID", 16, "nvidia-smi --gpu-reset"),
        ("nvmlDeviceGetHandleByIndex", 6, "nvidia-smi -L lists the GPUs that there are"),
    ],
)
async def test_a_gpu_that_is_not_there_is_lost_with_an_advice(
    double: Double, place: Path, function: str, error: int, words: str
) -> None:
    made = device(place)
    async with made.session() as session:
        double.fails = {function: error}
        with pytest.raises(errors.DeviceLostError, match=words):
            await session.health()
        with pytest.raises(errors.DeviceLostError, match=words) as caught:
            await made.reach()
        assert errors.keys_of(caught.value) == ("index",), "nobody gave it the meter that fails with it"
        double.fails = {}
    double.fails = {function: error}
    with pytest.raises(errors.DeviceLostError, match=f"GPU 0: error {error}; .*{words}"):
        async with made.session():
            pass


async def test_a_driver_that_hangs_holds_up_nobody(double: Double, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "DEADLINE", 0.05)
    made = device(place)
    double.gate.clear()
    for words in ("does not answer within", "still hangs in an earlier call"):
        with pytest.raises(errors.DeviceLostError, match=words):
            async with made.session():
                pass
    double.gate.set()
    with anyio.fail_after(20):
        while True:
            try:
                await made.reach()
            except errors.DeviceLostError:
                await anyio.sleep(0.01)
            else:
                break


async def test_without_the_package_it_says_how_to_install_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, nvml.PACKAGE, None)  # type: ignore[arg-type]
    with pytest.raises(errors.DeviceLostError, match=r"nvidia-ml-py .*pip install 'aibenchd\[nvidia\]'"):
        async with device(place).session():
            pass


@pytest.mark.parametrize("keys", [{"uuid": ""}, {"index": 0, "uuid": UUID}])
def test_a_gpu_has_one_name(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="by its index or by its uuid"):
        gpu.Settings(name="card", kind="gpu", **keys)


async def test_each_gpu_of_this_host_is_an_entry_that_can_be_used(double: Double, place: Path) -> None:
    found = await gpu.Gpu.discover()
    assert [(one.entry["name"], one.entry["uuid"]) for one in found] == [("nvidia-h100-2e11", UUID), ("nvidia-h100-2e12", SECOND)]
    assert {one.about for one in found} == {"NVIDIA H100 driver 570.86.15"}
    await gpu.Gpu(gpu.Settings.model_validate(found[0].entry), place, base.RunSettings()).reach()


async def test_a_gpu_that_does_not_answer_is_found_with_what_to_do(double: Double) -> None:
    double.fails["nvmlDeviceGetName"] = Double.NVML_ERROR_GPU_IS_LOST
    for one in await gpu.Gpu.discover():
        assert "fallen off the bus" in one.about
        assert one.entry["name"] == f"gpu-{one.entry['uuid'][-4:]}"


async def test_without_the_package_or_the_driver_nothing_is_found_and_why_is_said(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.fails["nvmlInit"] = Double.NVML_ERROR_LIBRARY_NOT_FOUND
    with pytest.raises(errors.DeviceLostError, match="gpu: GPUs of this host: error 12; install NVIDIA's driver"):
        await gpu.Gpu.discover()
    monkeypatch.setitem(sys.modules, nvml.PACKAGE, None)  # type: ignore[arg-type]
    with pytest.raises(errors.DeviceLostError, match=r"gpu: GPUs need the package nvidia-ml-py .*aibenchd\[nvidia\]"):
        await gpu.Gpu.discover()


# ---- energy


def meter() -> metering.Meter:
    return metering.make(base.MeterSettings(kind="nvml", gpu="0"), on_this_host=True)


async def test_its_energy_is_by_its_own_counter(double: Double, place: Path) -> None:
    assert device(place, index=1).settings.meter == base.MeterSettings(kind="nvml", gpu="1")
    other = base.MeterSettings(kind="program", command=("watts",))
    assert device(place, index=1, meter=other).settings.meter == other
    async with meter().metering({}) as energy:
        assert math.isnan(energy.joules)
    assert energy.joules == pytest.approx(2.5)
    assert energy.seconds > 0
    double.fails = {"nvmlInit": double.NVML_ERROR_DRIVER_NOT_LOADED}
    with pytest.raises(errors.HarnessError, match="modprobe"):
        async with meter().metering({}):
            pass


def test_a_meter_names_its_gpu() -> None:
    with pytest.raises(ValueError, match="needs its gpu"):
        base.MeterSettings(kind="nvml")


# ---- the library itself


def test_the_double_has_nothing_that_the_library_has_not() -> None:
    library = pytest.importorskip(nvml.PACKAGE, reason="nvidia-ml-py is not installed: pip install 'aibenchd[nvidia]'")
    names = [name for name in vars(Double) if name.lower().startswith("nvml")]
    assert len(names) > 30
    for name in names:
        assert hasattr(library, name), name
        if isinstance(getattr(Double, name), int):
            assert getattr(library, name) == getattr(Double, name)
    assert set(gpus.ADVICES) <= {getattr(library, name) for name in dir(library) if name.startswith("NVML_ERROR_")}
    used = set(re.findall(r"\bnvml\.(nvml\w+|NVML\w+)", inspect.getsource(nvml)))
    assert used <= set(names)
    bits = {getattr(library, name) for name in dir(library) if re.match(r"nvmlClocks(Event|Throttle)Reason(?!.*All)", name)}
    assert bits - gpus.REASONS.keys() == {0x0, 0x1, 0x2, 0x100}  # none, idle, and clocks that somebody has set


async def test_a_real_gpu(place: Path) -> None:
    library = pytest.importorskip(nvml.PACKAGE, reason="nvidia-ml-py is not installed: pip install 'aibenchd[nvidia]'")
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        pytest.skip(f"no NVIDIA GPU, or no driver for it ({error})")
    async with device(place).session() as session:
        assert (await session.fingerprint())["hash"].startswith("GPU-")
        assert float((await session.state())["temperature"]) > 0
        command = base.Command(("nvidia-smi", "-L"), PurePosixPath(await session.directory("work")))
        assert (await session.run(command)).failure == ""
        async with meter().metering({}) as energy:
            await anyio.sleep(0.3)
        assert energy.joules > 0 or math.isnan(energy.joules)
